"""How much of an activation a reconstruction of it keeps."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.metrics.checks import require_finite, require_same_shape, widen


def variance_unexplained(
    activations: Float[Tensor, "*sample channel"], reconstruction: Float[Tensor, "*sample channel"]
) -> Float[Tensor, ""]:
    """Fraction of variance unexplained: E‖x − x̂‖² / (E‖x‖² − ‖E x‖²).

    The residual is *not* centred, so that a reconstruction with the wrong bias pays for it, and the variance *is*
    taken about the mean, so that a constant prediction of the mean scores exactly 1. The expectations are over all
    samples given: the ratio of sums, not the mean of ratios per sample or per batch.

    Args:
        activations: x; every axis but the last counts samples. Drop padding first.
        reconstruction: x̂.

    Returns:
        0 for a perfect reconstruction, 1 for the constant mean, more for worse than that.

    Raises:
        BadInput: shapes that differ, NaN or infinity, or activations without variance.

    Units:
        fraction of the variance.

    Source:
        The definition SAELens uses since 2026 (its issues 443, 659, 665 tell why the others are wrong).
    """
    require_same_shape(activations=activations, reconstruction=reconstruction)
    x, guess = widen(activations).flatten(0, -2), widen(reconstruction).flatten(0, -2)
    require_finite(x, "activations")
    require_finite(guess, "reconstruction")
    # E‖x − E x‖² is E‖x‖² − ‖E x‖² without the cancellation that a large mean brings
    variance = (x - x.mean(0)).square().sum()
    if x.shape[0] < 2 or not variance > 0:
        raise BadInput(
            f"activations: expected at least two different samples, got {x.shape[0]} with variance "
            f"{float(variance):.3g}; the explained fraction of no variance is undefined"
        )
    return (x - guess).square().sum() / variance


def variance_explained(
    activations: Float[Tensor, "*sample channel"], reconstruction: Float[Tensor, "*sample channel"]
) -> Float[Tensor, ""]:
    """1 − `variance_unexplained`: 1 is perfect, 0 the constant mean, negative worse than that.

    Args:
        activations: x; every axis but the last counts samples. Drop padding first.
        reconstruction: x̂.

    Raises:
        BadInput: as `variance_unexplained`.

    Units:
        fraction of the variance.
    """
    return 1 - variance_unexplained(activations, reconstruction)
