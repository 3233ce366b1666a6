"""From a dry run to named sites: what each tensor of the grammar is in this network, and how it can be reached.

Nothing here trusts a module's name: sub-layers are told apart by where attention happens and by what adds up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from openwork.network.blocks import Block, Contribution, Sum, faint, find_blocks
from openwork.network.kinds import experts_of, flattened, hidden_axes, is_linear, is_norm
from openwork.network.paths import Path
from openwork.network.ports import AttentionPort, ForkPort, MidPort, ModulePort, Port, ScalePort, View, norm_scale
from openwork.network.record import AttentionCall, Call, Trace, same
from openwork.network.sublayers import SubLayer, has_heads, sub_layers

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
    return float((got.detach().double() - expected.detach().double()).abs().max() / scale)


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
        for branch in faint(block):
            module = branch.name.rpartition(".")[2]
            self.refused[f"{name}.{module}.*"] = "it adds too little to the stream to be told from nothing"
        for attention in (a for a in attentions if not has_heads(a, pre)):
            module = attention.call.name.rpartition(".")[2]
            self.refused[f"{name}.{module}.q|k|v|z|scores|pattern"] = "positions stand where the heads should"
        layers = sub_layers(block, [a for a in attentions if has_heads(a, pre)])
        for layer in layers:
            yield from self._sublayer(block, layer, layers, axes)
        yield Found(f"{name}.resid_post", self._out(call, block.post), post, axes, [*total, *chain])

    def _sublayer(
        self, block: Block, layer: SubLayer, layers: list[SubLayer], axes: tuple[str, ...]
    ) -> Iterator[Found]:
        name, term = f"{block.name}.{layer.name}", layer.term
        if layer.readers and term is not None:
            yield from self._norm(block, layer, layers)
            ports = tuple(self._in(c, p, c.inputs[p].shape != term.shape) for c, p in layer.readers)
            reader, path = layer.readers[0]
            port = ports[0] if len(ports) == 1 else ForkPort(ports)
            yield Found(f"{name}.in", port, reader.inputs[path].reshape(term.shape), axes)
        elif term is not None:
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
                    (deviation(t.reshape(middle.shape), middle), c, p)
                    for c in block.call.descendants()
                    if c.start > term.call.end
                    for p, t in c.inputs.items()
                    if t.shape in (middle.shape, flattened(middle.shape))
                ]
                off, reader, path = min(readers, key=lambda r: r[0], default=(float("inf"), None, ()))
                limit = tolerance(middle.dtype) / 100
                if len(done) == 1 and reader is not None and off <= limit:
                    flat = reader.inputs[path].shape != middle.shape
                    exactly = self._in(reader, path, flat) if off == 0 else None
                    mid = MidPort(self._in(block.call, block.pre), port, exactly)
                    checks = [Check("read by the next sub-layer", off, limit)]
                    yield Found(f"{block.name}.resid_mid", mid, middle, axes, checks)

    def _norm(self, block: Block, layer: SubLayer, layers: list[SubLayer]) -> Iterator[Found]:
        """The scale of a sub-layer's own norm; parallel sub-layers share theirs."""
        number = {"attn": "norm1", "mixer": "norm1", "mlp": "norm2", "cross": "norm_cross"}.get(layer.name)
        before = layers[: layers.index(layer)]
        if number is None or layer.norm is None or any(x.norm is layer.norm for x in before):
            return
        if layer.name == "mixer" and any(x.name == "attn" for x in layers):
            return  # the first norm is that of the attention
        found = scale_of(layer.norm, layer.norm.module in self.repeated)
        if found is None:
            self.refused[f"{block.name}.{number}.scale"] = "its norm divides by neither standard deviation nor rms"
            return
        port, residual = found
        value, shape = layer.norm.inputs[port.path], block.call.outputs[block.post].shape
        if value.shape == flattened(shape) != shape:
            port, value = replace(port, flat=True), value.reshape(shape)
        checks = [Check("norm", residual, tolerance(value.dtype))]
        yield Found(f"{block.name}.{number}.scale", port, port.scale(value), hidden_axes(value, layer.norm), checks)

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
