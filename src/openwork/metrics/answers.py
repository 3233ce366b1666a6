"""Metrics that ask how the network stands towards a named answer: logit difference, probability, rank, accuracy.

`answer` and `wrong` are token (or class) ids: one id an example, shape ``(*batch,)``, or a set of ids an example,
shape ``(*batch, k)``. Sets of unequal size are padded with `PAD`; every example needs at least one id.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openwork.errors import BadInput
from openwork.metrics.checks import log_softmax, refuse_nan, widen

PAD = -1
"""The id that fills up answer sets of unequal size."""


def logit_difference(
    logits: Float[Tensor, "*batch vocab"],
    answer: Int[Tensor, ...],
    wrong: Int[Tensor, ...],
    reduce: Literal["mean", "max"] = "mean",
) -> Float[Tensor, "*batch"]:
    """Logit of the answer minus logit of the wrong answer: the log of how much likelier the answer is.

    Args:
        logits: at the position that predicts the answer.
        answer: right ids, one or a set an example.
        wrong: wrong ids, one or a set an example.
        reduce: how a *set* of ids becomes one logit: its mean, or its largest (the strongest competitor).

    Returns:
        The difference per example.

    Raises:
        BadInput: shapes that do not fit, ids outside the vocabulary, NaN at an id that is read.

    Units:
        nats.

    Source:
        Wang et al. 2022, Interpretability in the Wild, section 2 (one wrong id); Heimersheim and Janiak 2023, A
        circuit for Python docstrings (``reduce="max"`` over the wrong arguments).
    """
    logits = widen(logits)
    return _reduced(logits, answer, "answer", reduce) - _reduced(logits, wrong, "wrong", reduce)


def log_probability(logits: Float[Tensor, "*batch vocab"], answer: Int[Tensor, ...]) -> Float[Tensor, "*batch"]:
    """Log of the probability of the answer; of a set, the log of the summed probability.

    Args:
        logits: at the position that predicts the answer.
        answer: right ids, one or a set an example.

    Returns:
        The log-probability per example, at most 0; −∞ where the answer is masked out.

    Raises:
        BadInput: shapes that do not fit, ids outside the vocabulary, NaN logits.

    Units:
        nats.
    """
    values, counts = _gather(log_softmax(logits), answer, "answer")
    return torch.where(counts, values, -torch.inf).logsumexp(-1)


def probability(logits: Float[Tensor, "*batch vocab"], answer: Int[Tensor, ...]) -> Float[Tensor, "*batch"]:
    """Probability of the answer; of a set, the summed probability.

    Args:
        logits: at the position that predicts the answer.
        answer: right ids, one or a set an example.

    Returns:
        The probability per example.

    Raises:
        BadInput: shapes that do not fit, ids outside the vocabulary, NaN logits.

    Units:
        probability, 0 to 1.
    """
    return log_probability(logits, answer).exp()


def rank(logits: Float[Tensor, "*batch vocab"], answer: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """How many ids the network prefers to the answer; ids tied with it count half.

    The half makes a network whose logits are all equal come out in the middle, not first.

    Args:
        logits: at the position that predicts the answer.
        answer: the right id of each example.

    Returns:
        0 where the answer is preferred to every other id, vocab − 1 where it is last.

    Raises:
        BadInput: shapes that do not fit, ids outside the vocabulary, NaN logits.

    Units:
        ids.
    """
    refuse_nan(logits, "logits")
    if answer.ndim >= logits.ndim:
        raise BadInput(f"answer: expected one id an example, got shape {tuple(answer.shape)}; a set has no one rank")
    values, _ = _gather(logits, answer, "answer")
    above, tied = (logits > values).sum(-1), (logits == values).sum(-1) - 1
    return above + tied / 2


def accuracy(
    logits: Float[Tensor, "*batch vocab"],
    answer: Int[Tensor, "*batch"],
    wrong: Int[Tensor, ...] | None = None,
) -> Float[Tensor, "*batch"]:
    """1 where the answer has a strictly larger logit than its competitors, else 0. A tie is not an answer.

    Args:
        logits: at the position that predicts the answer.
        answer: the right id of each example.
        wrong: the competitors, one or a set an example; every other id when None.

    Returns:
        1.0 or 0.0 per example.

    Raises:
        BadInput: shapes that do not fit, ids outside the vocabulary, NaN logits.

    Units:
        fraction of examples.
    """
    if wrong is None:
        return (rank(logits, answer) == 0).to(torch.float32)
    return (logit_difference(logits, answer, wrong, reduce="max") > 0).to(torch.float32)


def entropy(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Entropy of the predicted distribution: 0 when certain, log(vocab) when uniform.

    Args:
        logits: unnormalised; −∞ is a probability of zero.

    Returns:
        The entropy per example.

    Raises:
        BadInput: NaN logits, or a row with no distribution.

    Units:
        nats.

    Source:
        Shannon 1948, section 6.
    """
    logs = log_softmax(logits)
    return -(logs.exp() * logs.masked_fill(logs == -torch.inf, 0.0)).sum(-1)


def _reduced(logits: Tensor, ids: Tensor, name: str, reduce: str) -> Tensor:
    values, counts = _gather(logits, ids, name)
    if reduce == "mean":
        values = torch.where(counts, values, 0.0).sum(-1) / counts.sum(-1)
    elif reduce == "max":
        values = torch.where(counts, values, -torch.inf).amax(-1)
    else:
        raise BadInput(f"reduce: expected 'mean' or 'max', got {reduce!r}")
    refuse_nan(values, f"logits of {name}")
    return values


def _gather(logits: Tensor, ids: Tensor, name: str) -> tuple[Tensor, Bool[Tensor, "*batch k"]]:
    """The logits at each example's ids, (*batch, k), and which of them are ids rather than padding."""
    batch, vocab = logits.shape[:-1], logits.shape[-1]
    sets = ids if ids.ndim == logits.ndim else ids.unsqueeze(-1)
    if sets.shape[:-1] != batch:
        raise BadInput(
            f"{name}: expected ids of shape {tuple(batch)} or {(*batch, 'k')} for logits {tuple(logits.shape)}, "
            f"got {tuple(ids.shape)}; take the logits at the answer's position first"
        )
    counts = sets != PAD
    if bool(((sets < PAD) | (sets >= vocab)).any()):
        raise BadInput(f"{name}: expected ids in 0..{vocab - 1} ({PAD} pads), got {int(sets.min())}..{int(sets.max())}")
    if not bool(counts.any(-1).all()):
        raise BadInput(f"{name}: expected at least one id an example, got an example with only padding; drop it")
    ordered = sets.sort(-1).values
    if bool(((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != PAD)).any()):
        raise BadInput(f"{name}: expected distinct ids in each set, got a repeated one; it would count twice")
    return logits.gather(-1, sets.clamp(min=0).long()), counts
