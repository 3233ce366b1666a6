"""Ports: how the value of a site is read, and written, while the network runs.

Every port turns "see this site" into hooks of a `Session`. What a visit sees has the site's axes, and what it returns
is put back in the form in which the module handed it over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openwork.network.attention import FunctionTap, Handler, Registry, Visits, registry_handler
from openwork.network.paths import Path, read, replaced
from openwork.network.session import Session, Visit


@dataclass(eq=False, frozen=True)
class Port(ABC):
    """The base of all ports."""

    @abstractmethod
    def attach(self, session: Session, visit: Visit, writes: bool) -> None:
        """Let `visit` see the site whenever it is computed during the session."""


@dataclass(eq=False, frozen=True)
class ModulePort(Port):
    """An output or input of a module.

    Args:
        module: the module.
        side: ``out`` or ``in``.
        path: which of its outputs or arguments.
        gain: the factor with which it enters the residual stream; visits see ``gain * raw``.
        ordinal: which of the module's calls in one forward pass, or None for its only one.
        volatile: whether later in-place operations change the tensor, so that a copy must be shown.
        flat: whether batch and position are one axis of the tensor; visits see two.
        also: further arguments that take the same tensor, and so what is written.
    """

    module: nn.Module
    side: str
    path: Path
    gain: float = 1.0
    ordinal: int | None = None
    volatile: bool = False
    flat: bool = False
    also: tuple[Path, ...] = ()

    def attach(self, session: Session, visit: Visit, writes: bool) -> None:
        see = self._scaled(visit) if self.gain != 1.0 else visit
        if self.volatile:
            see = _copying(see)
        if self.flat:
            see = _unflattened(see, session)
        if self.side == "out":
            self._attach_output(session, see)
        else:
            self._attach_input(session, see)

    def _scaled(self, visit: Visit) -> Visit:
        gain = self.gain

        def see(raw: Tensor) -> Tensor | None:
            value = raw * gain
            new = visit(value)
            return None if new is None else raw + (new - value) / gain  # an unchanged value leaves raw bit for bit

        return see

    def _attach_output(self, session: Session, visit: Visit) -> None:
        path, ordinal = self.path, self.ordinal
        if not path and ordinal is None:
            session.on_output(self.module, lambda module, args, output: visit(output))
            return

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if ordinal is not None and session.nth_call(module) != ordinal:
                return None
            new = visit(read(output, path))
            return None if new is None else replaced(output, path, new)

        if ordinal is not None:
            session.count_calls(self.module)
        session.on_output(self.module, hook)

    def _attach_input(self, session: Session, visit: Visit) -> None:
        key, rest, ordinal, also = self.path[0], self.path[1:], self.ordinal, self.also
        by_position = isinstance(key, int)

        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if ordinal is not None and session.nth_call(module) != ordinal:
                return None
            value = args[key] if by_position else kwargs[key]  # type: ignore[index]
            new = visit(read(value, rest) if rest else value)
            if new is None:
                return None
            arguments = {**dict(enumerate(args)), **kwargs}
            for path in (self.path, *also):
                arguments[path[0]] = replaced(arguments[path[0]], path[1:], new)
            return tuple(arguments[i] for i in range(len(args))), {k: arguments[k] for k in kwargs}

        if ordinal is not None:
            session.count_calls(self.module)
        session.on_input(self.module, hook)


def _copying(visit: Visit) -> Visit:
    return lambda value: visit(value.clone())


def _unflattened(visit: Visit, session: Session) -> Visit:
    def see(value: Tensor) -> Tensor | None:
        new = visit(value.reshape(session.rows, -1, *value.shape[1:]))
        return None if new is None else new.reshape(value.shape)

    return see


@dataclass(eq=False, frozen=True)
class ForkPort(Port):
    """One tensor that several modules read; a write is computed once and reaches them all.

    Args:
        readers: where they read it, in order of execution.
    """

    readers: tuple[ModulePort, ...]

    def attach(self, session: Session, visit: Visit, writes: bool) -> None:
        first, *others = self.readers
        if not writes:
            first.attach(session, visit, writes)
            return
        held: list[Tensor | None] = [None]

        def see_first(value: Tensor) -> Tensor | None:
            held[0] = visit(value)
            return held[0]

        first.attach(session, see_first, writes)
        for port in others:
            port.attach(session, lambda value: held[0], writes)


@dataclass(eq=False, frozen=True)
class MidPort(Port):
    """The residual stream between two sub-layers: what the first read plus what it added.

    A write goes through the first sub-layer's contribution, the one place from which both the second sub-layer and the
    rest of the stream read it.

    Args:
        base: where the stream enters the block.
        added: the contributions between the two points.
        reader: where the second sub-layer reads exactly this sum, for looking at it without adding up again.
    """

    base: ModulePort
    added: ModulePort
    reader: ModulePort | None = None

    def attach(self, session: Session, visit: Visit, writes: bool) -> None:
        if self.reader is not None and not writes:
            self.reader.attach(session, visit, writes)
            return
        held: list[Tensor] = []

        def see_base(value: Tensor) -> None:
            held[:] = [value]

        def see_added(value: Tensor) -> Tensor | None:
            if not held:
                return None
            middle = held[0] + value
            held.clear()
            new = visit(middle)
            return None if new is None else value + (new - middle)

        self.base.attach(session, see_base, writes=False)
        self.added.attach(session, see_added, writes=writes)


@dataclass(eq=False, frozen=True)
class ScalePort(Port):
    """The divisor of a norm, (batch, position, 1): a standard deviation, or a root mean square.

    Args:
        module: the norm.
        path: which of its arguments it normalises.
        centred: whether it subtracts the mean first (LayerNorm) or not (RMSNorm).
        eps: added to the mean square under the root.
        ordinal, flat: as in `ModulePort`.
    """

    module: nn.Module
    path: Path
    centred: bool
    eps: float
    ordinal: int | None = None
    flat: bool = False

    def scale(self, value: Tensor) -> Tensor:
        """The divisor for this input of the norm."""
        return norm_scale(value, self.centred, self.eps)

    def attach(self, session: Session, visit: Visit, writes: bool) -> None:
        change: list[Tensor] = []

        def see_input(value: Tensor) -> None:
            old = self.scale(value)
            new = visit(old)
            change[:] = [] if new is None else [old / new]

        def see_output(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            if not change or not isinstance(output, Tensor):
                return None
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor) and bias.is_meta:  # offloaded again; it is what the norm makes of zeros
                bias = module.forward(output.new_zeros(output.shape[-1:]))
            extra = change.pop().to(output.dtype) - 1  # zero, and so bit for bit the same, for an unchanged scale
            extra = extra.reshape(*output.shape[:-1], 1)
            return output + (output if bias is None else output - bias) * extra

        port = ModulePort(self.module, "in", self.path, ordinal=self.ordinal, flat=self.flat)
        port.attach(session, see_input, writes=False)
        if writes:
            session.on_output(self.module, see_output)


def norm_scale(value: Tensor, centred: bool, eps: float) -> Tensor:
    """The divisor of LayerNorm (`centred`) or RMSNorm over the last axis, in float32."""
    value = value.float()
    if centred:
        return torch.native_layer_norm(value, value.shape[-1:], None, None, eps)[2].reciprocal()
    power = torch.linalg.vector_norm(value, dim=-1, keepdim=True).square() / value.shape[-1]
    return (power + eps).sqrt()


@dataclass(eq=False, frozen=True)
class AttentionPort(Port):
    """A part of an attention: q, k, v, scores, pattern or z.

    Args:
        module: the module that the attention is keyed by.
        part: which part.
        route: ``registry``, ``sdpa`` or ``softmax``.
        roles: see `FunctionTap`.
        ordinal: as in `ModulePort`.
        direct: see `Visits`.
        volatile: as in `ModulePort`.
    """

    module: nn.Module
    part: str
    route: str
    roles: tuple[tuple[int, str], ...] = ()
    ordinal: int | None = None
    direct: bool = False
    volatile: bool = False

    def attach(self, session: Session, visit: Visit, writes: bool) -> None:
        taps = session.once(AttentionTaps, lambda: AttentionTaps(session))
        visits = taps.visits(self)
        visits[self.part] = _copying(visit) if self.volatile else visit
        if writes:
            visits.written.add(self.part)


class AttentionTaps:
    """All attention visits of one session, behind one registry wrapper and at most one function mode."""

    def __init__(self, session: Session):
        self.session = session
        self.handlers: dict[nn.Module | None, Handler] = {}
        self.functions: dict[nn.Module, tuple[Callable[[], Visits], dict[int, str]]] = {}
        self.by_call: dict[nn.Module, dict[int | None, Visits]] = {}

    def visits(self, port: AttentionPort) -> Visits:
        """The visits of the port's module in the port's call of it."""
        module = port.module
        if module not in self.by_call:
            self.by_call[module] = {}
            self._route(port, self._chooser(module, port.ordinal is not None))
        visits = self.by_call[module].setdefault(port.ordinal, Visits())
        visits.direct |= port.direct
        return visits

    def _chooser(self, module: nn.Module, repeated: bool) -> Callable[[], Visits]:
        """Which visits hold for the module's present call."""
        calls, none = self.by_call[module], Visits()
        if not repeated:
            return lambda: calls[None]
        self.session.count_calls(module)
        return lambda: calls.get(self.session.nth_call(module), none)

    def _route(self, port: AttentionPort, choose: Callable[[], Visits]) -> None:
        if port.route == "registry":
            if not self.handlers:
                self.session.enter(Registry(self.handlers))
            self.handlers[port.module] = registry_handler(choose)
            return
        if not self.functions:
            self.tap = self.session.enter(FunctionTap(self.functions))
        self.functions[port.module] = (choose, dict(port.roles))
        self.session.on_input(port.module, self.tap.begin)
        self.session.on_output(port.module, self.tap.end)


@dataclass(eq=False, frozen=True)
class View:
    """How the index of a site selects: the axis of heads, units or channels, and how many there are."""

    axis: int
    count: int


def select(value: Tensor, axis: int, index: tuple[int, ...]) -> Tensor:
    """The parts of `value` that an index names; a view where possible."""
    if not index:
        return value
    if len(index) == 1:
        return value.narrow(axis, index[0], 1)
    return value.index_select(axis, torch.tensor(index, device=value.device))


def joined(first: Visit, second: Callable[[Tensor], Tensor | None]) -> Visit:
    """Both visits, the second one on what the first left."""

    def visit(value: Tensor) -> Tensor | None:
        once = first(value)
        twice = second(value if once is None else once)
        return once if twice is None else twice

    return visit
