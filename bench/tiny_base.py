"""What every tiny model shares: its record, its seed, and weights that are nowhere trivially one or zero."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

BATCH, LENGTH, SEED = 2, 11, 0


@dataclass(frozen=True)
class Tiny:
    """A tiny random network with the keyword arguments of one forward."""

    name: str
    family: str
    module: nn.Module
    example: dict[str, torch.Tensor]


class CannotBuild(Exception):
    """This type cannot be built here; the message says why in one line."""


def token_ids(length: int = LENGTH, seed: int = SEED) -> torch.Tensor:
    """Random ordinary tokens, 10 to 89: the special ones lie outside."""
    return torch.randint(10, 90, (BATCH, length), generator=torch.Generator().manual_seed(seed))


def noise(*shape: int) -> torch.Tensor:
    """Standard normal numbers that are the same on every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED + 1))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` returns under the seed; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return make()


def unsettle(module: nn.Module) -> None:
    """Add small noise to every vector, every constant tensor and the running statistics of batch norms."""
    generator = torch.Generator().manual_seed(SEED + 2)
    with torch.no_grad():
        for parameter in module.parameters():
            flat = parameter.dim() <= 1 or bool((parameter == parameter.flatten()[0]).all())
            if parameter.numel() and parameter.is_floating_point() and flat:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        for child in module.modules():
            mean, variance = getattr(child, "running_mean", None), getattr(child, "running_var", None)
            if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
                mean.add_(0.1 * torch.randn(mean.shape, generator=generator))
                variance.mul_(torch.exp(0.2 * torch.randn(variance.shape, generator=generator)))


def finish(name: str, family: str, module: nn.Module, example: dict[str, torch.Tensor]) -> Tiny:
    """Settle the module (float32, evaluation, unsettled weights), keep the arguments it takes, prove one forward."""
    module = module.float().eval()
    unsettle(module)
    parameters = inspect.signature(module.forward).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    taken = {key: value for key, value in example.items() if open_ended or key in parameters}
    first, second = _numbers(module, taken), _numbers(module, taken)
    if not first:
        raise CannotBuild("the forward returns no floating-point tensor")
    if not all(bool(t.isfinite().all()) for t in first):
        raise CannotBuild("the forward returns values that are not finite")
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise CannotBuild("the forward is random: two calls differ")
    return Tiny(name, family, module, taken)


def _numbers(module: nn.Module, example: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The floating-point tensors that one forward returns at its top level."""
    with torch.no_grad():
        output = module(**example)
    tensors = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else [output]
    return [t for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()]
