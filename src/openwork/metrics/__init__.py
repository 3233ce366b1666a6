"""Pure functions from tensors to numbers with a unit; each returns one number an example where that makes sense."""

from openwork.metrics.answers import (
    PAD,
    accuracy,
    entropy,
    log_probability,
    logit_difference,
    probability,
    rank,
)
from openwork.metrics.divergence import cross_entropy, kl_divergence, token_cross_entropy
from openwork.metrics.reconstruction import variance_explained, variance_unexplained
from openwork.metrics.recovery import faithfulness, recovery
from openwork.metrics.similarity import cka, cosine

__all__ = [
    "PAD",
    "accuracy",
    "cka",
    "cosine",
    "cross_entropy",
    "entropy",
    "faithfulness",
    "kl_divergence",
    "log_probability",
    "logit_difference",
    "probability",
    "rank",
    "recovery",
    "token_cross_entropy",
    "variance_explained",
    "variance_unexplained",
]
