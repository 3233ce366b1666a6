"""How alike two vectors, or two representations of the same samples, are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.metrics.checks import require_finite, require_same_shape, widen


def cosine(a: Float[Tensor, "*batch channel"], b: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch"]:
    """Cosine of the angle between two vectors.

    Args:
        a: one vector an example.
        b: the other.

    Returns:
        −1 to 1 per example.

    Raises:
        BadInput: shapes that differ, NaN or infinity, or a zero vector, which has no direction.

    Units:
        none.
    """
    require_same_shape(a=a, b=b)
    return (_unit(a, "a") * _unit(b, "b")).sum(-1).clamp(-1, 1)


def cka(
    a: Float[Tensor, "sample channel_a"], b: Float[Tensor, "sample channel_b"], debiased: bool = True
) -> Float[Tensor, ""]:
    """Linear centred kernel alignment of two representations of the same samples.

    Blind to rotation and to a common scale of the channels. The plain form, ``debiased=False``, approaches 1 for
    *unrelated* representations with more channels than samples; the debiased one stays about 0 there, and may
    therefore fall slightly below it.

    Args:
        a: row i is sample i in one representation.
        b: row i is the same sample in the other.
        debiased: use the unbiased estimate of HSIC.

    Returns:
        1 for representations equal up to rotation and scale, about 0 for unrelated ones.

    Raises:
        BadInput: different numbers of samples, fewer than 4, NaN or infinity, or a representation without variance.

    Units:
        none.

    Source:
        Kornblith et al. 2019, Similarity of neural network representations revisited, equation 4; the unbiased HSIC
        of Song et al. 2012, equation 5.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[0] or a.shape[0] < 4:
        raise BadInput(
            "expected (sample, channel) twice, with the same 4 or more samples, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    gram_a, gram_b = _gram(a, "a"), _gram(b, "b")
    hsic = _unbiased_hsic if debiased else _hsic
    norm_a, norm_b = hsic(gram_a, gram_a), hsic(gram_b, gram_b)
    if not (norm_a > 0 and norm_b > 0):
        raise BadInput(
            f"expected representations with positive HSIC, got {float(norm_a):.3g} and {float(norm_b):.3g}: one sample "
            f"carries all the variance of {a.shape[0]}; add samples, or remove the outlier"
        )
    return hsic(gram_a, gram_b) / (norm_a * norm_b).sqrt()


def _unit(vectors: Tensor, name: str) -> Tensor:
    vectors = widen(vectors)
    require_finite(vectors, name)
    norms = vectors.norm(dim=-1, keepdim=True)
    if bool((norms == 0).any()):
        raise BadInput(f"{name}: expected vectors with a direction, got a zero vector; drop those examples first")
    return vectors / norms


def _gram(samples: Tensor, name: str) -> Tensor:
    """Inner products of the centred samples, in float64: HSIC is a small difference of large sums."""
    samples = widen(samples).double()
    require_finite(samples, name)
    # each form of HSIC centres again; centring the channels first only keeps a large mean from eating the digits
    centred = samples - samples.mean(0)
    if not bool((centred != 0).any()):
        raise BadInput(f"{name}: expected samples that differ, got one repeated {samples.shape[0]} times")
    return centred @ centred.T


def _hsic(k: Tensor, m: Tensor) -> Tensor:
    return (k * m).sum()


def _unbiased_hsic(k: Tensor, m: Tensor) -> Tensor:
    n = k.shape[0]
    k, m = k - k.diag().diag(), m - m.diag().diag()
    total = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(1))
    return total / (n * (n - 3))
