"""Gradients through units that are silent, for the first steps of an ascent that would otherwise never begin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

RELUS = {F.relu, torch.relu, Tensor.relu}
IN_PLACE = {F.relu_, torch.relu_, Tensor.relu_}
CAPPED = {F.relu6}
CLAMPS = {torch.clamp_min, Tensor.clamp_min, torch.clamp, Tensor.clamp, torch.clip, Tensor.clip}


class RedirectedRelu(TorchFunctionMode):
    """While entered, ReLUs pass gradients of a loss even where they are silent, if a picture would get none otherwise.

    For each row of a batch: where the ordinary gradient of a ReLU's input is zero throughout, the gradient that came
    is passed on instead, except where it would push a negative input lower still. What is computed stays the same, bit
    for bit. It is an entry of torch's own stack and patches nothing, so it is gone with the ``with`` block, whatever
    ended that.

    Source:
        Lucid, `redirected_relu_grad`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or not args or not isinstance(args[0], Tensor) or not args[0].requires_grad:
            return func(*args, **kwargs)
        writes = func in IN_PLACE or (func in RELUS | CAPPED and (kwargs.get("inplace") or args[1:] == (True,)))
        if func in RELUS | IN_PLACE | CAPPED or (func in CLAMPS and _is_relu(func, args[1:], kwargs)):
            top = 6.0 if func in CAPPED else None
            return (_InPlace if writes else _Redirected).apply(args[0], top)
        return func(*args, **kwargs)


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float | None) -> Tensor:
        ctx.save_for_backward(*_sides(x, top))
        return x.clamp(0, top) if top is not None else x.relu()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return redirected(grads[0], *ctx.saved_tensors), None


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float | None) -> Tensor:
        ctx.save_for_backward(*_sides(x, top))
        ctx.mark_dirty(x)
        return x.clamp_(0, top) if top is not None else x.relu_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return redirected(grads[0], *ctx.saved_tensors), None


def redirected(grad: Tensor, low: Tensor, passes: Tensor) -> Tensor:
    """The gradient of the input of a ReLU.

    Args:
        grad: of a loss, with respect to its output; the first axis counts pictures.
        low: where its input is negative or zero.
        passes: where its ordinary derivative is 1.
    """
    plain = grad * passes
    silent = ~plain.flatten(1).any(1).reshape(-1, *(1,) * (grad.ndim - 1))
    if not bool(silent.any()):
        return plain
    return torch.where(silent, torch.where(low & (grad > 0), torch.zeros_like(grad), grad), plain)


def _sides(x: Tensor, top: float | None) -> tuple[Tensor, Tensor]:
    low = x <= 0
    return low, ~low if top is None else ~low & (x < top)


def _is_relu(func: Any, rest: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether a clamp is one: at least 0, and no upper end."""
    low = rest[0] if rest else kwargs.get("min")
    high = rest[1] if len(rest) > 1 else kwargs.get("max")
    return high is None and not isinstance(low, Tensor) and low is not None and float(low) == 0.0
