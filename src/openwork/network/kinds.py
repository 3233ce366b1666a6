"""What a recorded call is: a norm, a linear map, a mixture of experts; and what the axes of its tensors mean."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from openwork.network.record import Call

HIDDEN = ("batch", "position", "channel")


def hidden_axes(value: Tensor, call: Call) -> tuple[str, ...]:
    """The axes of a hidden state: as it was followed from the image, or else by its dimensions."""
    lie = call.lie(value)
    if lie is not None and lie.axes[0] == "batch" and "channel" in lie.axes and len({*lie.axes} - {None}) == value.ndim:
        return tuple(str(axis) for axis in lie.axes)
    if value.ndim == 4:
        convs = [c.module for c in [call, *call.descendants()] if isinstance(c.module, nn.Conv2d)]
        first = any(conv.in_channels == value.shape[1] for conv in convs)
        return ("batch", "channel", "y", "x") if first else ("batch", "y", "x", "channel")
    if value.ndim == 2:
        return ("position", "channel")
    return HIDDEN if value.ndim == 3 else ("batch", *(f"axis{i}" for i in range(1, value.ndim - 1)), "channel")


def flattened(shape: torch.Size) -> torch.Size:
    """The shape with batch and position as one axis."""
    return torch.Size((shape[:-1].numel(), shape[-1]))


def experts_of(module: nn.Module) -> int | None:
    """The number of experts of a mixture: the first axis of its fused weights, or the length of its list of experts."""
    for name, inner in module.named_modules():
        if "expert" not in name.lower():
            continue
        if isinstance(inner, nn.ModuleList):
            return len(inner)
        fused = [p for p in inner.parameters(recurse=False) if p.ndim == 3]
        if fused:
            return fused[0].shape[0]
    return None


def is_norm(call: Call) -> bool:
    """Whether a call is of a leaf module that normalises."""
    return not call.children and bool(re.search(r"norm|^ln", type(call.module).__name__, re.IGNORECASE))


def is_linear(module: nn.Module) -> bool:
    """Whether a leaf module holds a matrix that it applies to its input (Linear, Conv1D, quantised linears)."""
    weight = getattr(module, "weight", None)
    kind = type(module).__name__.lower()
    if callable(weight):  # quantised modules unpack their weight on demand
        return kind == "linear"
    return isinstance(weight, Tensor) and weight.ndim == 2 and "embedding" not in kind and "norm" not in kind


def is_feed_forward(call: Call) -> bool:
    """Whether a sub-layer without attention consists of linear maps and pointwise functions alone."""
    leaves = [c for c in [call, *call.descendants()] if not c.children]
    held = [c for c in leaves if any(True for _ in c.module.parameters(recurse=False))]
    return bool(held) and all(is_linear(c.module) or is_norm(c) for c in held)
