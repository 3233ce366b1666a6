"""Metrics put on the scale from a baseline (0) to a target (1): faithfulness and recovery."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.metrics.checks import require_examples, require_finite, require_same_shape, widen


def recovery(
    value: Float[Tensor, "*batch"], baseline: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """How far each example went from its baseline to its target: (value − baseline) / mean(target − baseline).

    The gap is averaged over the batch before dividing. Examples whose own gap is near zero would otherwise dominate
    every mean; this way the mean of the result is the ratio of the means, which is `faithfulness`.

    Args:
        value: the metric under the edit (patched, or only the circuit left in place).
        baseline: the metric at 0 (corrupted, or everything ablated).
        target: the metric at 1 (clean, or the whole model).

    Returns:
        0 at the baseline, 1 at the target; below and above are possible, and not clipped.

    Raises:
        BadInput: shapes that differ, NaN or infinity, no example, or no gap between baseline and target.

    Units:
        fraction of the mean gap.

    Source:
        The normalised effect of activation patching: Wang et al. 2022; Heimersheim and Nanda 2024, section 3.
    """
    require_same_shape(value=value, baseline=baseline, target=target)
    value, baseline, target = widen(value), widen(baseline), widen(target)
    for name, tensor in (("value", value), ("baseline", baseline), ("target", target)):
        require_examples(tensor, name)
        require_finite(tensor, name)
    gap = (target - baseline).mean()
    scale = torch.stack((target.abs().mean(), baseline.abs().mean())).amax()
    if not gap.abs() > 8 * torch.finfo(gap.dtype).eps * scale:
        raise BadInput(
            f"expected target and baseline to differ, got mean target {float(target.mean()):.6g} and mean baseline "
            f"{float(baseline.mean()):.6g}; nothing can be recovered where nothing was lost: choose another baseline"
        )
    return (value - baseline) / gap


def faithfulness(
    circuit: Float[Tensor, "*batch"], empty: Float[Tensor, "*batch"], full: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """f(C) = (m(C) − m(∅)) / (m(M) − m(∅)), each m a mean over the examples.

    For an interval, take the mean of `recovery` with `openwork.evidence.bootstrap_interval`, or
    `openwork.evidence.ratio_interval`, which also resamples the gap.

    Args:
        circuit: the metric with everything outside the circuit ablated.
        empty: the metric with everything ablated.
        full: the metric of the whole model.

    Returns:
        1 for a circuit that does what the model does, 0 for one that does nothing; above 1 is no better than below.

    Raises:
        BadInput: shapes that differ, NaN or infinity, no example, or a model that does no better than its ablation.

    Units:
        fraction of the mean gap.

    Source:
        Mueller et al. 2025, MIB, section 3; Marks et al. 2024, Sparse feature circuits, section 3.
    """
    return recovery(circuit, empty, full).mean()
