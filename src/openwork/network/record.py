"""The dry run: one short forward pass that records which module called which, with what, and every attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from openwork.network.attention import SOFTMAX, Registry, batch_of, is_attention_function, positional, unfused_mha
from openwork.network.follow import Follower
from openwork.network.lie import Lie
from openwork.network.paths import Path, leaves
from openwork.network.session import Session

ACTIVATIONS = frozenset(("relu", "relu6", "gelu", "silu", "leaky_relu", "elu", "hardswish", "hardtanh", "clamp"))
"""Functions that a residual block may call on the sum itself."""


@dataclass(eq=False)
class Call:
    """One call of one module.

    Args:
        name: the module's path in the network.
        module: the module.
        ordinal: 0 for the module's first call in this forward pass, 1 for its second ...
        parent: the call it was made from.
        start: when it began, counted in events.
        end: when it returned.
        inputs: tensor arguments by path; the first key is a position or a keyword.
        outputs: returned tensors by path.
        volatile: inputs (``in``, path) and outputs (``out``, path) that in-place operations change afterwards.
        lies: how these tensors lie in the image.
        activations: pointwise functions that its own code called: (when, what went in, what came out).
    """

    name: str
    module: nn.Module
    ordinal: int
    parent: Call | None
    start: int
    end: int = -1
    inputs: dict[Path, Tensor] = field(default_factory=dict)
    outputs: dict[Path, Tensor] = field(default_factory=dict)
    children: list[Call] = field(default_factory=list)
    live: list[tuple[str, Path, Tensor, int]] = field(default_factory=list, repr=False)
    volatile: set[tuple[str, Path]] = field(default_factory=set)
    lies: dict[tuple[str, Path], Lie | None] = field(default_factory=dict, repr=False)
    activations: list[tuple[int, Tensor, Tensor]] = field(default_factory=list, repr=False)

    def lie(self, value: Tensor) -> Lie | None:
        """How one of the recorded inputs or outputs lies in the image."""
        for side, tensors in (("in", self.inputs), ("out", self.outputs)):
            for path, tensor in tensors.items():
                if tensor is value:
                    return self.lies.get((side, path))
        return None

    def within(self, other: Call) -> bool:
        """Whether this call happened during `other`."""
        return other.start <= self.start and self.end <= other.end

    def descendants(self) -> list[Call]:
        """All calls made during this one, outer before inner, in order of execution."""
        return [call for child in self.children for call in (child, *child.descendants())]


@dataclass(eq=False)
class AttentionCall:
    """One attention: where it happened and what went in and out.

    Args:
        route: ``registry``, ``sdpa`` or ``softmax``.
        owner: the module that the handler is keyed by.
        call: the module call during which it happened.
        time: when, counted in events.
        q, k, v: (batch, head, position, channel).
        z: (batch, position, head, channel).
        roles: for the function-mode routes, what each intercepted function of the owner's call is.
        volatile: whether an in-place operation changes z afterwards.
    """

    route: str
    owner: nn.Module
    call: Call
    time: int
    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    z: Tensor | None = None
    roles: dict[int, str] = field(default_factory=dict)
    live: Tensor | None = field(default=None, repr=False)
    volatile: bool = False


@dataclass
class Trace:
    """All calls of one forward pass, in order of their start."""

    root: Call
    calls: list[Call]
    attentions: list[AttentionCall]
    inputs: Mapping[str, Any]

    def of(self, name: str) -> list[Call]:
        """The calls of one module."""
        return [call for call in self.calls if call.name == name]


@dataclass
class _Op:
    """An intercepted function, for finding softmax attention afterwards."""

    kind: str
    call: Call
    counts: dict[Call, int]
    time: int
    inputs: tuple[Any, ...]
    output: Tensor
    live: Tensor = field(repr=False)


class Recorder(TorchFunctionMode):
    """Records one forward pass; tensors are cloned, for in-place operations change them later."""

    def __init__(self, root: nn.Module, inputs: Mapping[str, Any]):
        super().__init__()
        self.follower = Follower(root, inputs)
        self.names = {module: name for name, module in root.named_modules(remove_duplicate=True)}
        self.clock = 0
        self.stack: list[Call] = []
        self.calls: list[Call] = []
        self.counts: dict[nn.Module, int] = {}
        self.attentions: list[AttentionCall] = []
        self.ops: list[_Op] = []
        self.functions: dict[Call, int] = {}
        self.in_registry = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        ordinal = self.counts.get(module, 0)
        self.counts[module] = ordinal + 1
        parent = self.stack[-1] if self.stack else None
        call = Call(self.names[module], module, ordinal, parent, self.tick())
        for path, leaf in leaves({**dict(enumerate(args)), **kwargs}):
            call.inputs[path] = copy(leaf)
            call.live.append(("in", path, leaf, version(leaf)))
            call.lies["in", path] = self.follower.of(leaf)
        if parent is not None:
            parent.children.append(call)
        self.calls.append(call)
        self.stack.append(call)

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self.stack.pop()
        while call.module is not module:  # a call that an exception left early
            call = self.stack.pop()
        call.end = self.tick()
        for path, leaf in leaves(output):
            call.outputs[path] = copy(leaf)
            call.live.append(("out", path, leaf, version(leaf)))
            call.lies["out", path] = self.follower.of(leaf)

    def dispatched(
        self,
        kernel: Callable[..., Any],
        eager: Callable[..., Any],
        implementation: str,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Handler of the registry route."""
        self.in_registry += 1
        try:
            z, weights = kernel(module, query, key, value, *args, **kwargs)
        finally:
            self.in_registry -= 1
        record = AttentionCall("registry", module, self.stack[-1], self.tick())
        record.live = z
        record.q, record.k, record.v, record.z = copy(query), copy(key), copy(value), copy(z)
        self.attentions.append(record)
        return z, weights

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward and self.stack and not self.in_registry:
            with self:
                return unfused_mha(*args, **kwargs)
        activates = getattr(func, "__name__", "").strip("_") in ACTIVATIONS and bool(self.stack and args)
        before = copy(args[0]) if activates else None  # it may be overwritten
        output = func(*args, **kwargs)
        if before is not None:
            self.stack[-1].activations.append((self.tick(), before, copy(output)))
        self.follower.see(func, args, kwargs, output)
        if self.in_registry or not self.stack or not is_attention_function(func):
            return output
        for call in self.stack:
            self.functions[call] = self.functions.get(call, -1) + 1
        counts = {call: self.functions[call] for call in self.stack}
        kind = "sdpa" if func is F.scaled_dot_product_attention else "softmax" if func in SOFTMAX else "matmul"
        tensors = tuple(copy(a) if isinstance(a, Tensor) else a for a in positional(args, kwargs)[0])
        self.ops.append(_Op(kind, self.stack[-1], counts, self.tick(), tensors, copy(output), output))
        return output


def copy(tensor: Tensor) -> Tensor:
    """A detached copy; integer tensors too, for they may be changed in place as well."""
    return tensor.detach().clone()


def version(tensor: Tensor) -> int:
    """How many in-place operations a tensor has seen: one may change nothing on these inputs, and much on others."""
    return 0 if tensor.is_inference() else tensor._version


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit for bit (NaN equals NaN)."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def record(root: nn.Module, inputs: Mapping[str, Any]) -> Trace:
    """Run `root` once without gradients and record it.

    Args:
        root: the network.
        inputs: keyword arguments of its call.
    """
    recorder = Recorder(root, inputs)
    with Session(root) as session, torch.no_grad():
        for module in recorder.names:
            if isinstance(module, torch.jit.ScriptModule):
                continue
            session.on_input(module, recorder.before)
            session.on_output(module, recorder.after)
        session.enter(Registry({None: recorder.dispatched}))
        session.enter(recorder)
        session.install()
        root(**inputs)
        for call in recorder.calls:
            for side, path, leaf, before in call.live:
                shown = (call.inputs if side == "in" else call.outputs)[path]
                if version(leaf) != before or not same(leaf, shown):
                    call.volatile.add((side, path))
            call.live = []
    trace = Trace(recorder.calls[0], recorder.calls, recorder.attentions, dict(inputs))
    if not recorder.attentions or any(op.kind == "sdpa" for op in recorder.ops):
        trace.attentions.extend(_sdpa_attentions(recorder.ops))
    if not trace.attentions:
        trace.attentions.extend(_softmax_attentions(recorder.ops))
    for attention in trace.attentions:
        assert attention.live is not None
        assert attention.z is not None
        attention.volatile, attention.live = not same(attention.live, attention.z), None
    trace.attentions.sort(key=lambda a: a.time)
    return trace


def _sdpa_attentions(ops: list[_Op]) -> list[AttentionCall]:
    found = []
    for op in (op for op in ops if op.kind == "sdpa"):
        if len(op.inputs) < 3 or any(x.ndim != 4 for x in op.inputs[:3]):
            continue
        call = op.call
        record = AttentionCall("sdpa", call.module, call, op.time, roles={op.counts[call]: "sdpa"})
        record.q, record.k, record.v = op.inputs[:3]
        record.z, record.live = op.output.transpose(1, 2), op.live.transpose(1, 2)
        found.append(record)
    return found


def _softmax_attentions(ops: list[_Op]) -> list[AttentionCall]:
    """Triples matmul, softmax, matmul of one call in which the softmax goes over the keys."""
    found = []
    for position, op in enumerate(ops):
        if op.kind != "softmax" or op.output.ndim not in (3, 4):
            continue
        call, weights = op.call, op.output
        if sum(o.call is call and o.kind == "softmax" for o in ops) > 1:
            continue  # which of several is the attention cannot be told
        same = [o for o in ops if o.call is call and o.kind == "matmul"]
        before = [o for o in same if o.time < op.time and o.output.shape[-2:] == weights.shape[-2:]]
        after = [o for o in same if o.time > op.time and o.inputs[0].shape[-2:] == weights.shape[-2:]]
        batch = batch_of(call.module, call.inputs.values())
        if not before or not after or position == len(ops) - 1 or weights.shape[:-2].numel() % batch:
            continue
        first, last = before[-1], after[0]
        record = AttentionCall("softmax", call.module, call, op.time)
        record.roles = {first.counts[call]: "scores", op.counts[call]: "softmax", last.counts[call]: "z"}

        def heads(x: Tensor, batch: int = batch) -> Tensor:
            return x.reshape(batch, -1, *x.shape[-2:])

        record.q, record.k = heads(first.inputs[-2]), heads(first.inputs[-1].transpose(-1, -2))
        record.v, record.z = heads(last.inputs[1]), heads(last.output).transpose(1, 2)
        record.live = heads(last.live).transpose(1, 2)
        found.append(record)
    return found
