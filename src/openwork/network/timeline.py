"""When each module ran in the dry run, and at what moment each site lies: the order that replay follows.

Times count events of the dry run. No tensors are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from openwork.network.blocks import Block
from openwork.network.kinds import is_linear
from openwork.network.paths import Path
from openwork.network.ports import AttentionPort, ForkPort, MidPort, ModulePort, Port, ScalePort
from openwork.network.record import Call, Trace


@dataclass(eq=False)
class Span:
    """One call of one module.

    Args:
        name: the module's path in the network.
        module: the module.
        ordinal: 0 for its first call in a forward pass.
        start: when it began.
        end: when it returned.
        children: the calls made during it.
        volatile: whether in-place operations change what it returned.
        overwrites: whether they change what it was given.
    """

    name: str
    module: nn.Module
    ordinal: int
    start: int
    end: int
    children: list[Span] = field(default_factory=list)
    volatile: bool = False
    overwrites: bool = False

    @classmethod
    def of(cls, call: Call) -> Span:
        sides = {side for side, _ in call.volatile}
        children = [cls.of(child) for child in call.children]
        times = call.start, call.end
        return cls(call.name, call.module, call.ordinal, *times, children, "out" in sides, "in" in sides)

    def walk(self) -> Iterator[Span]:
        """This span and all below it, outer before inner."""
        yield self
        for child in self.children:
            yield from child.walk()

    def finished(self, time: int) -> Iterator[Span]:
        """The outermost spans below this one that were over at a time."""
        for child in self.children:
            if child.end <= time:
                yield child
            elif child.start < time:
                yield from child.finished(time)


@dataclass(eq=False)
class Attended:
    """One attention: where and when it happened.

    Args:
        owner: the module that it is keyed by.
        route: ``registry``, ``sdpa`` or ``softmax``.
        ordinal: which call of the owner.
        time: when.
    """

    owner: nn.Module
    route: str
    ordinal: int
    time: int


@dataclass(eq=False)
class Stage:
    """One block.

    Args:
        name: e.g. ``blocks.3`` or ``encoder.blocks.0``.
        span: its call.
        pre: path of the hidden state in its arguments.
        post: path of the hidden state in what it returns.
        linked: whether the next block reads exactly what this one returned; True for the last.
        attentions: the attentions within it.
    """

    name: str
    span: Span
    pre: Path
    post: Path
    linked: bool
    attentions: list[Attended]


@dataclass(eq=False)
class Timeline:
    """All calls of the dry run, without their tensors.

    Args:
        root: the call of the network.
        stages: its blocks.
        attentions: every attention.
        head: the linear map whose output is the logits, if the last leaf of their shape is one.
    """

    root: Span
    stages: list[Stage]
    attentions: list[Attended]
    head: nn.Module | None

    @classmethod
    def of(cls, trace: Trace, blocks: list[Block], logits: Tensor) -> Timeline:
        """Take the times from a recorded dry run."""
        root = Span.of(trace.root)
        spans = {(span.module, span.ordinal): span for span in root.walk()}
        attentions = [Attended(a.owner, a.route, a.call.ordinal, a.time) for a in trace.attentions]
        stages = []
        for block in blocks:
            span = spans[block.call.module, block.call.ordinal]
            inside = [a for a in attentions if span.start < a.time < span.end]
            linked = True if block.chained is None else block.chained
            stages.append(Stage(block.name, span, block.pre, block.post, linked, inside))
        return cls(root, stages, attentions, _head(trace, logits))

    def time(self, port: Port) -> int:
        """When a site is reached: what was over by then cannot change when it is written."""
        if isinstance(port, MidPort):
            return self.time(port.added)
        if isinstance(port, ForkPort):
            return min(self.time(reader) for reader in port.readers)
        if isinstance(port, AttentionPort):
            found = [a for a in self.attentions if a.owner is port.module and port.ordinal in (None, a.ordinal)]
            return min(a.time for a in found)
        assert isinstance(port, ModulePort | ScalePort)
        found = [s for s in self.root.walk() if s.module is port.module and port.ordinal in (None, s.ordinal)]
        out = isinstance(port, ModulePort) and port.side == "out"
        return min(s.end if out else s.start for s in found)

    @cached_property
    def repeated(self) -> set[nn.Module]:
        """Modules that are called more than once in a forward pass."""
        return {span.module for span in self.root.walk() if span.ordinal}


def _head(trace: Trace, logits: Tensor) -> nn.Module | None:
    last = [c for c in trace.calls if not c.children and c.outputs.get((), torch.empty(0)).shape == logits.shape]
    if not last or logits.ndim != 3 or not is_linear(last[-1].module):
        return None
    module = last[-1].module
    weight = module.weight
    alone = sum(c.module is module for c in trace.calls) == 1
    return module if alone and isinstance(weight, Tensor) and weight.shape[0] == logits.shape[-1] else None
