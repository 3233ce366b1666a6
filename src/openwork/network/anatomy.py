"""From a dry run to named sites: what each tensor of the grammar is in this network, and how it can be reached.

Nothing here trusts a module's name: sub-layers are told apart by where attention happens and by what adds up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from openwork.network.blocks import Block, Contribution, Sum, find_blocks
from openwork.network.kinds import (
    experts_of,
    flattened,
    hidden_axes,
    is_feed_forward,
    is_linear,
    is_norm,
)
from openwork.network.paths import Path
from openwork.network.ports import AttentionPort, MidPort, ModulePort, Port, ScalePort, View, norm_scale
from openwork.network.record import AttentionCall, Call, Trace, same

HEADS = ("batch", "position", "head", "channel")
WEIGHTS = ("batch", "head", "query", "key")


@dataclass(frozen=True)
class Check:
    """One identity that was checked on this checkpoint.

    Args:
        name: what was checked.
        residual: the deviation found, relative to the largest value.
        tolerance: the largest deviation that passes.
    """

    name: str
    residual: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.residual <= self.tolerance

    def __str__(self) -> str:
        return f"{self.name} {'exact' if self.residual == 0 else format(self.residual, '.0e')}"


@dataclass(frozen=True)
class SiteInfo:
    """One site and its certificate.

    Args:
        name: the site's name.
        axes: names of its axes.
        shape: its shape in the dry run.
        status: ``certified``, or ``inert`` when writes reach no output on this checkpoint.
        checks: the identities that were checked.
        part_axis: the axis that an index selects on.
        itemsize: bytes of an element.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    status: str
    checks: tuple[Check, ...]
    part_axis: int
    itemsize: int

    @property
    def parts(self) -> int:
        """How many heads, units or channels there are."""
        return self.shape[self.part_axis]


@dataclass(eq=False)
class Found:
    """A site before its certificate: the port, the recorded value and the identities checked so far."""

    name: str
    port: Port
    value: Tensor
    axes: tuple[str, ...]
    checks: list[Check] = field(default_factory=list)
    part: str = "channel"

    @property
    def part_axis(self) -> int:
        return self.axes.index(self.part)

    @property
    def view(self) -> View:
        return View(self.part_axis, self.value.shape[self.part_axis])


def deviation(got: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value; infinite for other shapes."""
    if got.shape != expected.shape:
        return float("inf")
    if same(got, expected):
        return 0.0
    scale = expected.double().abs().max().clamp_min(1e-30)
    return float((got.double() - expected.double()).abs().max() / scale)


def tolerance(dtype: torch.dtype) -> float:
    """What counts as equal up to rounding, relative to the largest value."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 5e-2


def sum_check(step: Sum) -> Check:
    """The check that contributions add up; one that holds bit for bit has no residual."""
    name = "residual sum" + " up to a constant vector" * step.constant
    return Check(name, 0.0 if step.exact else step.residual, tolerance(step.after.dtype))


def output_port(call: Call, path: Path, gain: float = 1.0, *, repeated: bool = False) -> ModulePort:
    """The port of an output of a recorded call."""
    return ModulePort(
        call.module, "out", path, gain, call.ordinal if repeated else None, ("out", path) in call.volatile
    )


def input_port(call: Call, path: Path, *, repeated: bool = False) -> ModulePort:
    """The port of an argument of a recorded call."""
    return ModulePort(call.module, "in", path, 1.0, call.ordinal if repeated else None, ("in", path) in call.volatile)


class Surveyor:
    """Names the sites of one recorded network."""

    def __init__(self, trace: Trace):
        self.trace = trace
        self.blocks = find_blocks(trace)
        self.refused: dict[str, str] = {}
        counts: dict[nn.Module, int] = {}
        for call in trace.calls:
            counts[call.module] = counts.get(call.module, 0) + 1
        self.repeated = {module for module, count in counts.items() if count > 1}
        self.refused_blocks = [b.name for b in self.blocks if not b.sums]

    def find(self) -> list[Found]:
        """All sites, in order of execution."""
        sites = [*self._embedding()]
        for block in self.blocks:
            sites.extend(self._block(block))
        sites.extend(self._tail())
        return sites

    # -- ports that know about modules called several times --

    def _out(self, call: Call, path: Path, gain: float = 1.0, flat: bool = False) -> ModulePort:
        port = output_port(call, path, gain, repeated=call.module in self.repeated)
        return replace(port, flat=True) if flat else port

    def _in(self, call: Call, path: Path, flat: bool = False) -> ModulePort:
        port = input_port(call, path, repeated=call.module in self.repeated)
        also = tuple(p for p, t in call.inputs.items() if p != path and same(t, call.inputs[path]))
        return replace(port, flat=flat, also=also)

    # -- outside the blocks --

    def _embedding(self) -> Iterator[Found]:
        if not self.blocks:
            return
        ids = [v for v in self.trace.inputs.values() if isinstance(v, Tensor) and not v.is_floating_point()]
        for call in self.trace.calls:
            reads_ids = any(same(t, i) for t in call.inputs.values() for i in ids)
            if not call.children and isinstance(call.module, nn.Embedding) and reads_ids and () in call.outputs:
                value = call.outputs[()]
                yield Found("embed", self._out(call, ()), value, hidden_axes(value, call))
                return

    def _tail(self) -> Iterator[Found]:
        if self.blocks:
            last = self.blocks[-1]
            final = last.call.outputs[last.post]
            for call in self.trace.calls:
                if call.start > last.call.end and not call.children and is_norm(call):
                    path = next((p for p, t in call.inputs.items() if same(t, final)), None)
                    if path is not None and () in call.outputs:
                        value = call.outputs[()]
                        axes = hidden_axes(value, call)
                        yield Found(
                            "final_norm", self._out(call, ()), value, axes, [Check("reads resid_post", 0.0, 0.0)]
                        )
                        break
        root = self.trace.root
        for path, value in root.outputs.items():
            if path in (("logits",), ("logits_per_image",)) or path == ():
                if value.is_floating_point():
                    axes = {2: ("batch", "class"), 3: ("batch", "position", "vocabulary")}.get(value.ndim)
                    axes = axes or ("batch", *(f"axis{i}" for i in range(1, value.ndim)))
                    yield Found("logits", ModulePort(root.module, "out", path), value, axes, part=axes[-1])
                return

    # -- one block --

    def _block(self, block: Block) -> Iterator[Found]:
        call, name = block.call, block.name
        pre, post = call.inputs[block.pre], call.outputs[block.post]
        axes = hidden_axes(pre, call)
        chain = [] if block.chained is None else [Check("chain", 0.0 if block.chained else 1.0, 1.0)]
        total = [sum_check(s) for s in block.sums]
        yield Found(f"{name}.resid_pre", self._in(call, block.pre), pre, axes, [*total])
        attentions = [a for a in self.trace.attentions if call.start < a.time < call.end]
        if not block.sums:
            self.refused[f"{name}.*.out"] = block.reason
        layers = self._sublayers(block, attentions)
        for layer in layers:
            yield from self._sublayer(block, layer, axes)
        yield Found(f"{name}.resid_post", self._out(call, block.post), post, axes, [*total, *chain])

    def _sublayers(self, block: Block, attentions: list[AttentionCall]) -> list[SubLayer]:
        """The sub-layers of a block in order of execution: attention, cross-attention, mixer, MLP."""
        terms = sorted((t for s in block.sums for t in s.terms), key=lambda t: t.call.end)
        if not terms:
            return [SubLayer("attn" if i == 0 else "cross", None, a) for i, a in enumerate(attentions[:2])]
        owner: dict[int, AttentionCall] = {}
        for attention in attentions:
            inside = [i for i, t in enumerate(terms) if t.call.start < attention.time < t.call.end]
            later = [i for i, t in enumerate(terms) if t.call.end > attention.time and i not in owner]
            for index in (inside or later)[:1]:
                owner.setdefault(index, attention)
        layers: list[SubLayer] = []
        names: set[str] = set()
        for index, term in enumerate(terms):
            attention = owner.get(index)
            options = (
                ("attn", "cross" if crosses(attention) else "attn2")
                if attention
                else ("mlp",)
                if owner or len(terms) == 1
                else ("mixer", "mlp")
            )
            if not attention and not owner and len(terms) == 1 and not is_feed_forward(term.call):
                options = ("mixer",)
            name = next((o for o in options if o not in names), f"{options[-1]}{index}")
            names.add(name)
            layers.append(SubLayer(name, term, attention))
        return layers

    def _sublayer(self, block: Block, layer: SubLayer, axes: tuple[str, ...]) -> Iterator[Found]:
        name, term = f"{block.name}.{layer.name}", layer.term
        start = None
        if term is not None:
            start = self._input(block, layer)
            if start is not None:
                reader, path = start
                value = reader.inputs[path].reshape(term.shape)
                yield from self._norm(block, layer, value)
                flat = reader.inputs[path].shape != term.shape
                yield Found(f"{name}.in", self._in(reader, path, flat), value, axes)
            else:
                self.refused[f"{name}.in"] = "no module of the sub-layer takes a tensor of the stream's shape"
        if layer.attention is not None:
            yield from self._attention(name, layer.attention)
        elif term is not None and layer.name.startswith("mlp"):
            yield from self._hidden(name, block, layer)
        if term is None:
            return
        port = self._out(term.call, term.path, term.gain, term.flat)
        value = term.value * term.gain if term.gain != 1.0 else term.value
        yield Found(f"{name}.out", port, value, axes, [Check(f"gain {term.gain:.4g}", 0.0, 0.0)])
        yield from self._mid(block, term, port, axes)

    def _mid(self, block: Block, term: Contribution, port: ModulePort, axes: tuple[str, ...]) -> Iterator[Found]:
        """The stream between this contribution and the next, where a later sub-layer reads it."""
        for step in block.sums:
            if term not in step.terms:
                continue
            done = step.terms[: step.terms.index(term) + 1]
            if step.norm is not None and term is step.terms[-1] and step is not block.sums[-1]:
                norm = step.norm
                path = next(p for p, t in norm.outputs.items() if same(t, step.after))
                number = block.sums.index(step) + 1
                name = f"{block.name}.resid_mid" + (str(number) if number > 1 else "")
                yield Found(name, self._out(norm, path), step.after, axes, [sum_check(step)])
            elif term is not step.terms[-1] and step.base_gain == 1.0 and same(step.base, block.call.inputs[block.pre]):
                middle = step.base
                for t in done:
                    middle = middle + (t.value if t.gain == 1.0 else t.value * t.gain)
                readers = [
                    (deviation(t, middle), c, p)
                    for c in block.call.descendants()
                    if c.start > term.call.end
                    for p, t in c.inputs.items()
                    if t.shape == middle.shape
                ]
                off, reader, path = min(readers, key=lambda r: r[0], default=(float("inf"), None, ()))
                limit = tolerance(middle.dtype) / 100
                if len(done) == 1 and reader is not None and off <= limit:
                    exactly = self._in(reader, path) if off == 0 else None
                    mid = MidPort(self._in(block.call, block.pre), port, exactly)
                    checks = [Check("read by the next sub-layer", off, limit)]
                    yield Found(f"{block.name}.resid_mid", mid, middle, axes, checks)

    def _input(self, block: Block, layer: SubLayer) -> tuple[Call, Path] | None:
        """The call and argument by which a sub-layer reads the stream."""
        term = layer.term
        assert term is not None
        shapes = (term.shape, flattened(term.shape))
        inner = block.call.descendants()
        if layer.attention is not None:
            around = [c for c in inner if c.start < layer.attention.time < c.end]
            candidates = [*around, *[c for c in inner if c.end < layer.attention.time and not c.children]]
        else:
            others = [t.call.end for s in block.sums for t in s.terms if t.call.end < term.call.start]
            since = max(others, default=block.call.start)
            last = [c for c in inner if c.end <= term.call.end and c.start > since]
            deep = [c for c in last if c.children and any(same(v, term.value) for v in c.outputs.values())]
            before_norm = [c for c in last if c.children and not is_norm(c)]
            candidates = [*deep, *before_norm, *[c for c in last if not c.children and is_linear(c.module)]]
        norms = [s.norm for s in block.sums if term in s.terms and s.norm is not None]
        for call in candidates:
            found = [p for p, t in call.inputs.items() if t.shape in shapes and t.is_floating_point()]
            if any(norm.within(call) for norm in norms) or (found and _norms_first(call, call.inputs[found[0]])):
                continue  # it takes the stream past the sub-layer too, or before its norm
            if found and layer.attention is None and _reads_more(call, found[0]):
                return None  # a pooled copy of the stream, say, which a write at one argument would not reach
            if found:
                return call, found[0]
        return None

    def _norm(self, block: Block, layer: SubLayer, value: Tensor) -> Iterator[Found]:
        """The norm of a sub-layer: the one whose output it reads, or the one its sum goes through."""
        number = {"attn": "norm1", "mixer": "norm1", "mlp": "norm2", "cross": "norm_cross"}.get(layer.name)
        if number is None:
            return
        inner = block.call.descendants()
        norms = [s.norm for s in block.sums if s.norm is not None and layer.term in s.terms and is_norm(s.norm)]
        norms += [c for c in inner if is_norm(c) and any(same(t, value) for t in c.outputs.values())]
        norms += [c for c in inner if is_norm(c) and layer.term is not None and c is layer.term.call]
        if number == "norm2" and any(same(t, value) for c in norms[:1] for t in self._attention_inputs(block)):
            return  # parallel sub-layers share their norm
        for call in norms[:1]:
            found = scale_of(call, call.module in self.repeated)
            if found is None:
                self.refused[f"{block.name}.{number}.scale"] = "its norm divides by neither standard deviation nor rms"
                continue
            port, residual = found
            scale = port.scale(call.inputs[port.path])
            limit = tolerance(value.dtype)
            yield Found(
                f"{block.name}.{number}.scale", port, scale, hidden_axes(value, call), [Check("norm", residual, limit)]
            )

    def _attention_inputs(self, block: Block) -> list[Tensor]:
        inner = block.call.descendants()
        times = [a.time for a in self.trace.attentions if block.call.start < a.time < block.call.end]
        return [t for c in inner if any(c.start < time < c.end for time in times) for t in c.inputs.values()]

    def _attention(self, name: str, attention: AttentionCall) -> Iterator[Found]:
        assert attention.q is not None
        assert attention.k is not None
        assert attention.v is not None
        assert attention.z is not None
        if sum(a.call is attention.call for a in self.trace.attentions) > 1:
            self.refused[f"{name}.q|k|v|z|scores|pattern"] = "one call of the module computes several attentions"
            return
        q, k, v, z = (x.transpose(1, 2) for x in (attention.q, attention.k, attention.v, attention.z.transpose(1, 2)))
        ordinal = attention.call.ordinal if attention.owner in self.repeated else None
        port = AttentionPort(attention.owner, "q", attention.route, tuple(attention.roles.items()), ordinal)
        checks = []
        projection = self._reader_of(z.flatten(2), attention)
        if projection is not None:
            checks.append(Check("read by the output projection", 0.0, 0.0))
        weights = q.new_zeros(q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        for part, value in (("q", q), ("k", k), ("v", v)):
            yield Found(f"{name}.{part}", replace(port, part=part), value, HEADS, [], "head")
        yield Found(f"{name}.scores", replace(port, part="scores"), weights, WEIGHTS, [], "head")
        yield Found(f"{name}.pattern", replace(port, part="pattern"), weights, WEIGHTS, [], "head")
        yield Found(f"{name}.z", replace(port, part="z", volatile=attention.volatile), z, HEADS, checks, "head")

    def _reader_of(self, value: Tensor, attention: AttentionCall) -> Call | None:
        for call in self.trace.calls:
            if call.start > attention.time and not call.children:
                if any(t.shape == value.shape and same(t, value) for t in call.inputs.values()):
                    return call
                if call.start > attention.call.end:
                    return None
        return None

    def _hidden(self, name: str, block: Block, layer: SubLayer) -> Iterator[Found]:
        """The input of the down-projection: the linear map whose output is what the MLP adds."""
        term = layer.term
        assert term is not None
        inner = [c for c in block.call.descendants() if c.end <= term.call.end]
        targets = [term.value]
        if is_norm(term.call):  # sandwich norm: the MLP's own output is what the norm reads
            targets = [t for t in term.call.inputs.values() if t.shape == term.shape]
        for call in reversed(inner):
            out = call.outputs.get(())
            if out is None or call.children or not is_linear(call.module):
                continue
            if any(out.numel() == t.numel() and same(out.reshape(t.shape), t) for t in targets):
                path = next(iter(call.inputs))
                value = call.inputs[path]
                with torch.no_grad():
                    residual = deviation(call.module(value), out)
                check = Check("down(hidden) == out", residual, tolerance(value.dtype))
                flat = value.ndim == 2 and len(term.shape) == 3
                shown = value.reshape(*term.shape[:-1], -1) if flat else value
                yield Found(f"{name}.hidden", self._in(call, path, flat), shown, hidden_axes(shown, call), [check])
                return
        yield from self._router(name, block, layer, inner)

    def _router(self, name: str, block: Block, layer: SubLayer, inner: list[Call]) -> Iterator[Found]:
        """The logits by which a mixture of experts chooses: the first output with one number for each expert."""
        term = layer.term
        assert term is not None
        mixture = term.call if not is_norm(term.call) else block.call
        experts = experts_of(mixture.module)
        if experts is None:
            self.refused[f"{name}.hidden"] = "no single linear map gives the MLP's output"
            return
        self.refused[f"{name}.experts.hidden"] = f"the {experts} experts are computed as one fused operation"
        shape = (*term.shape[:-1], experts)
        for call in (c for c in inner if c.within(mixture)):
            for path, value in call.outputs.items():
                if value.is_floating_point() and value.shape in (shape, flattened(torch.Size(shape))):
                    for deeper in inner:  # what routers return beside their choice may be for the record only
                        if (
                            deeper.within(call)
                            and deeper is not call
                            and () in deeper.outputs
                            and same(deeper.outputs[()], value)
                        ):
                            call, path = deeper, ()
                    flat = value.ndim == 2
                    shown = value.reshape(shape)
                    axes = ("batch", "position", "expert")
                    port = self._out(call, path, flat=flat)
                    yield Found(f"{name}.router", port, shown, axes, [Check("one logit an expert", 0.0, 0.0)], "expert")
                    return


def crosses(attention: AttentionCall) -> bool:
    """Whether an attention reads its keys from another stream: an encoder's, or an image's."""
    assert attention.q is not None
    assert attention.k is not None
    stream = next((p for p, t in attention.call.inputs.items() if t.is_floating_point() and t.ndim == 3), None)
    other = stream is not None and _reads_more(attention.call, stream)
    return attention.k.shape[2] != attention.q.shape[2] or other


@dataclass(eq=False)
class SubLayer:
    """One sub-layer: its name, what it adds, and its attention if it has one."""

    name: str
    term: Contribution | None
    attention: AttentionCall | None


def _norms_first(call: Call, value: Tensor) -> bool:
    """Whether a call, or one within it, is of a norm that reads this very tensor."""
    return any(is_norm(c) and any(same(t, value) for t in c.inputs.values()) for c in [call, *call.descendants()])


def _reads_more(call: Call, path: Path) -> bool:
    """Whether a call takes a further tensor as wide as the stream, but another one."""
    value = call.inputs[path]
    others = [t for p, t in call.inputs.items() if p != path and t.is_floating_point() and t.ndim == value.ndim]
    return any(t.shape[-1] == value.shape[-1] and not same(t, value) for t in others)


def scale_of(call: Call, repeated: bool) -> tuple[ScalePort, float] | None:
    """The scale of a norm call, with the residual of ``out == a * normalised + b``; None if it is no such norm."""
    out = call.outputs.get(())
    path = next((p for p, t in call.inputs.items() if out is not None and t.shape == out.shape), None)
    if out is None or path is None:
        return None
    value = call.inputs[path]
    names = ("eps", "variance_epsilon", "epsilon", "layer_norm_eps", "norm_eps")
    eps = next((float(e) for n in names if isinstance(e := getattr(call.module, n, None), (int, float))), 0.0)
    best: tuple[ScalePort, float] | None = None
    for centred in (True, False):
        inner = value.double() - value.double().mean(-1, keepdim=True) * centred
        unit = (inner / norm_scale(value, centred, eps).double()).flatten(0, -2)
        flat = out.double().flatten(0, -2)
        slope_unit, slope_out = unit - unit.mean(0), flat - flat.mean(0)
        slope = (slope_unit * slope_out).sum(0) / slope_unit.pow(2).sum(0).clamp_min(1e-30)
        residual = float((slope_out - slope * slope_unit).abs().max() / flat.abs().max().clamp_min(1e-30))
        if best is None or residual < best[1]:
            best = ScalePort(call.module, path, centred, eps, call.ordinal if repeated else None), residual
    assert best is not None
    return best if best[1] <= tolerance(value.dtype) else None
