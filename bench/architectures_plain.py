"""One forward pass seen with plain torch hooks: the independent side of `architectures.py`.

Nothing here uses openwork. Every input and output of every module call is copied; a tensor is then looked up among
them, and a plain hook writes at the place where it was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

EQUAL = 2e-6
"""Two recordings of one tensor may differ by this: with hooks on them, torch leaves fused kernels of some modules."""


@dataclass(eq=False)
class PlainCall:
    """One call of one module: every tensor that went in and came out, copied, by its path in the arguments."""

    name: str
    module: nn.Module
    nth: int
    start: int
    end: int = -1
    inputs: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    outputs: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def within(self, other: PlainCall) -> bool:
        """Whether this call happened during another."""
        return other.start < self.start and self.end < other.end

    @property
    def is_member(self) -> bool:
        """Whether the module is a numbered member of a list of modules."""
        return self.name.rsplit(".", 1)[-1].isdigit()

    @property
    def holds_matrix(self) -> bool:
        """Whether the module is a linear map of its own."""
        weight = getattr(self.module, "weight", None)
        linear = isinstance(weight, Tensor) and weight.ndim == 2
        return linear and not isinstance(self.module, nn.Embedding)

    @property
    def is_norm(self) -> bool:
        """Whether the module's class calls itself a norm."""
        return "norm" in type(self.module).__name__.lower() and self.is_pointwise

    @property
    def is_pointwise(self) -> bool:
        """Whether the module has no children and no matrix: a norm, an activation."""
        simple = all(p.ndim <= 1 for p in self.module.parameters(recurse=False))
        return simple and not any(True for _ in self.module.children())


@dataclass(frozen=True)
class Place:
    """Where a tensor passes: an input or output of one call, and its factor there (the tensor is gain times it)."""

    call: PlainCall
    side: str
    path: tuple[Any, ...]
    gain: float = 1.0


def tensors(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """All floating tensors in nested tuples, lists and mappings with their paths."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for key, item in enumerate(value):
            yield from tensors(item, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Tensor) -> Any:
    """The same structure with one tensor replaced; a tensor of another shape is reshaped."""
    if not path:
        return new.reshape(value.shape)
    head, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        copy = type(value)(**{**value, head: put(value[head], rest, new)}) if hasattr(value, "to_tuple") else None
        return copy if copy is not None else {**value, head: put(value[head], rest, new)}
    items = list(value)
    items[head] = put(items[head], rest, new)
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def main_output(output: Any) -> Tensor:
    """The logits of an output, else its first floating tensor."""
    found = dict(tensors(output))
    for key in ("logits", "logits_per_image"):
        if (key,) in found:
            return found[(key,)]
    return next(iter(found.values()))


class PlainForward:
    """One recorded forward pass."""

    def __init__(self, module: nn.Module, kwargs: Mapping[str, Any]):
        self.module, self.kwargs = module, dict(kwargs)
        self.calls: list[PlainCall] = []
        names = {m: name for name, m in module.named_modules()}
        counts: dict[nn.Module, int] = {}
        stack: list[PlainCall] = []
        clock = iter(range(10**9))

        def before(inner: nn.Module, args: Any, named: Any) -> None:
            counts[inner] = counts.get(inner, -1) + 1
            call = PlainCall(names[inner], inner, counts[inner], next(clock))
            for path, tensor in tensors({**dict(enumerate(args)), **named}):
                call.inputs[path] = tensor.detach().clone()
            self.calls.append(call)
            stack.append(call)

        def after(inner: nn.Module, args: Any, output: Any) -> None:
            while stack.pop().module is not inner:
                pass
            call = next(c for c in reversed(self.calls) if c.module is inner and c.end < 0)
            call.end = next(clock)
            for path, tensor in tensors(output):
                call.outputs[path] = tensor.detach().clone()

        handles = []
        for inner in names:
            handles.append(inner.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(inner.register_forward_hook(after, prepend=True))
        try:
            with torch.no_grad():
                self.output = main_output(module(**self.kwargs)).clone()
        finally:
            for handle in handles:
                handle.remove()

    def places(self, value: Tensor, *, scaled: bool = False) -> list[Place]:
        """Every place where this tensor passes, bit for bit; with `scaled`, or a multiple of it."""
        flat = value.detach().reshape(-1)
        found = []
        for call in self.calls:
            for side, items in (("in", call.inputs), ("out", call.outputs)):
                for path, tensor in items.items():
                    if tensor.numel() != flat.numel() or tensor.shape[-1] not in (value.shape[-1], flat.numel()):
                        continue
                    other = tensor.reshape(-1)
                    if torch.equal(other, flat) or off(other, flat) <= EQUAL:
                        found.append(Place(call, side, path))
                    elif scaled and (gain := multiple(flat, other)) is not None:
                        found.append(Place(call, side, path, gain))
        return found

    def writing(self, places: list[Place], new: Tensor) -> Tensor:
        """The main output of a forward in which plain hooks write `new` at all of these places."""
        handles = [handle for place in places for handle in _hooks(place, new)]
        try:
            with torch.no_grad():
                return main_output(self.module(**self.kwargs)).clone()
        finally:
            for handle in handles:
                handle.remove()


def _hooks(place: Place, new: Tensor) -> list[Any]:
    """Plain hooks that write at one place in the right one of the module's calls."""
    seen = -1

    def count(inner: nn.Module, args: Any, named: Any) -> None:
        nonlocal seen
        seen += 1

    def write_input(inner: nn.Module, args: Any, named: Any) -> Any:
        if seen != place.call.nth:
            return None
        changed = put({**dict(enumerate(args)), **named}, place.path, new / place.gain)
        return tuple(changed[i] for i in range(len(args))), {k: changed[k] for k in named}

    def write_output(inner: nn.Module, args: Any, output: Any) -> Any:
        return put(output, place.path, new / place.gain) if seen == place.call.nth else None

    module = place.call.module
    first = module.register_forward_pre_hook(count, with_kwargs=True, prepend=True)
    if place.side == "in":
        return [first, module.register_forward_pre_hook(write_input, with_kwargs=True)]
    return [first, module.register_forward_hook(write_output, prepend=True)]


def multiple(value: Tensor, other: Tensor, limit: float = 1e-6) -> float | None:
    """The factor by which `value` is a multiple of `other`, or None."""
    left, right = value.double().flatten(), other.double().flatten()
    if left.numel() != right.numel() or not bool(right.any()):
        return None
    gain = float((right @ left) / (right @ right))
    return gain if gain != 0 and off(right * gain, left) < limit else None


def off(got: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value; infinite for other shapes or NaN."""
    if got.shape != expected.shape:
        return float("inf")
    if torch.equal(got, expected):
        return 0.0
    difference = float((got.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30))
    return difference if difference == difference else float("inf")
