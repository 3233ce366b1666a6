"""What every metric demands of its tensors before it computes a number from them."""

from __future__ import annotations

import torch
from torch import Tensor

from openwork.errors import BadInput


def widen(values: Tensor) -> Tensor:
    """Half precision to float32, so that sums and exponentials keep their digits; wider types unchanged."""
    if not values.is_floating_point():
        raise BadInput(f"expected a floating point tensor, got {values.dtype}; convert it with .float()")
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def refuse_nan(values: Tensor, name: str) -> None:
    """Raise `BadInput` if any entry is NaN: comparisons and argmax would pass over it in silence."""
    missing = int(values.isnan().sum())
    if missing:
        raise BadInput(
            f"{name}: expected numbers, got NaN in {missing} of {values.numel()} entries; "
            "check the weights and the edits of the run that produced it"
        )


def require_finite(values: Tensor, name: str) -> None:
    """Raise `BadInput` if any entry is NaN or infinite."""
    wrong = int((~values.isfinite()).sum())
    if wrong:
        raise BadInput(
            f"{name}: expected finite numbers, got NaN or infinity in {wrong} of {values.numel()} entries; "
            "check the weights and the edits of the run that produced it"
        )


def require_same_shape(**tensors: Tensor) -> None:
    """Raise `BadInput`, naming every shape, unless all tensors have the same one."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        came = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise BadInput(f"expected tensors of one shape, got {came}; align the examples first")


def require_examples(values: Tensor, name: str) -> None:
    """Raise `BadInput` on a tensor with no entries: its mean would be NaN."""
    if not values.numel():
        raise BadInput(
            f"{name}: expected at least one example, got shape {tuple(values.shape)}; pass a non-empty batch"
        )


def log_softmax(logits: Tensor, name: str = "logits") -> Tensor:
    """Natural-log probabilities over the last axis, at least float32.

    A logit of −∞ (a masked token) is a probability of zero. NaN, +∞ and a row of nothing but −∞ have no
    distribution and raise `BadInput`.
    """
    if not logits.ndim or not logits.shape[-1]:
        raise BadInput(f"{name}: expected (..., vocab) with a vocabulary, got shape {tuple(logits.shape)}")
    logs = widen(logits).log_softmax(-1)
    refuse_nan(logs, f"{name} (log-softmax; NaN also comes from +inf or a row of only -inf)")
    return logs
