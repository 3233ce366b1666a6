"""Sub-layers of a block: which contribution and which attention belong together, what reads the stream, which norm."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from openwork.network.blocks import Block, Contribution
from openwork.network.kinds import experts_of, flattened, is_feed_forward, is_linear, is_norm
from openwork.network.paths import Path
from openwork.network.record import AttentionCall, Call, same


@dataclass(eq=False)
class SubLayer:
    """One sub-layer.

    Args:
        name: its name within the block.
        term: what it adds; None in a block whose sum was not found.
        attention: its attention, if it has one.
        readers: the calls and arguments by which it reads the stream, behind its norm; empty if none can be told.
        norm: the norm that is its own, if there is one.
    """

    name: str
    term: Contribution | None
    attention: AttentionCall | None
    readers: list[tuple[Call, Path]] = field(default_factory=list)
    norm: Call | None = None


def sub_layers(block: Block, attentions: list[AttentionCall]) -> list[SubLayer]:
    """The sub-layers of a block in order of execution: attention, cross-attention, mixer, MLP."""
    layers = _named(block, attentions)
    for layer in layers:
        layer.readers = _readers(block, layer) if layer.term is not None else []
    candidates = [_norms(block, layer) for layer in layers]
    for layer, mine in zip(layers, candidates, strict=True):
        # the norm between attention and MLP may be the one's or the other's: it is whose that has no other
        taken = [norms[0] for norms in candidates if norms is not mine and len(norms) == 1]
        layer.norm = next((n for n in [*(n for n in mine if n not in taken), *mine]), None)
    return layers


def _named(block: Block, attentions: list[AttentionCall]) -> list[SubLayer]:
    """Which attention belongs to which contribution, and what each pair is called."""
    terms = contributions(block)
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
        options = _names(term, owner.get(index), len(terms), len(terms) - len(owner))
        name = next((o for o in options if o not in names), f"{options[-1]}{index}")
        names.add(name)
        layers.append(SubLayer(name, term, owner.get(index)))
    return layers


def contributions(block: Block) -> list[Contribution]:
    """Everything a block adds to the stream, in order of execution."""
    return sorted((t for s in block.sums for t in s.terms), key=lambda t: t.call.end)


def _names(term: Contribution, attention: AttentionCall | None, total: int, without: int) -> tuple[str, ...]:
    """What a sub-layer may be called; `without` counts those that have no attention."""
    if attention is not None:
        return ("attn", "cross" if crosses(attention) else "attn2")
    plain = is_feed_forward(term.call)
    if without == total:
        return ("mlp",) if total == 1 and plain else ("mixer",) if total == 1 else ("mixer", "mlp")
    if without > 1 and not plain and experts_of(term.call.module) is None:
        return ("mixer", "mlp")  # a convolution or a state space beside the attention
    return ("mlp",)


def crosses(attention: AttentionCall) -> bool:
    """Whether an attention reads its keys from another stream: an encoder's, or an image's."""
    assert attention.q is not None
    assert attention.k is not None
    stream = next((p for p, t in attention.call.inputs.items() if t.is_floating_point() and t.ndim == 3), None)
    other = stream is not None and _reads_more(attention.call, stream)
    return attention.k.shape[2] != attention.q.shape[2] or other


def has_heads(attention: AttentionCall, stream: Tensor) -> bool:
    """Whether what stands where heads do may be heads; attention over layers has the stream's positions there."""
    assert attention.q is not None
    rows, heads, queries = attention.q.shape[:3]
    return stream.ndim != 3 or (rows, heads) != stream.shape[:2] or queries == heads


def _readers(block: Block, layer: SubLayer) -> list[tuple[Call, Path]]:
    """See `SubLayer`.

    Mostly one module reads it. Where the linear maps lie bare in the block, each of them does.
    """
    term = layer.term
    assert term is not None
    shapes = (term.shape, flattened(term.shape))
    inner = block.call.descendants()
    since = max((t.call.end for t in contributions(block) if t.call.end < term.call.start), default=block.call.start)
    last = [c for c in inner if c.end <= term.call.end and c.start > since]
    if layer.attention is not None:
        around = [c for c in inner if c.start < layer.attention.time < c.end]
        candidates = [*around, *[c for c in inner if c.end < layer.attention.time and not c.children]]
    else:
        deep = [c for c in last if c.children and any(same(v, term.value) for v in c.outputs.values())]
        before_norm = [c for c in last if c.children and not is_norm(c)]
        candidates = [*deep, *before_norm, *[c for c in last if not c.children and is_linear(c.module)]]
    norms = [s.norm for s in block.sums if term in s.terms and s.norm is not None]

    def behind_norm(call: Call, value: Tensor) -> bool:  # it takes no stream past the sub-layer, or before its norm
        return not any(norm.within(call) for norm in norms) and not _norms_first(call, value)

    for call in candidates:
        path = next((p for p, t in call.inputs.items() if t.shape in shapes and t.is_floating_point()), None)
        if path is None or not behind_norm(call, call.inputs[path]):
            continue
        value = call.inputs[path]
        if layer.attention is None and _reads_more(call, path):
            return []  # a pooled copy of the stream, say, which a write at one argument would not reach
        found = [(call, path)]
        for other in last:
            also = next((p for p, t in other.inputs.items() if same(t, value)), None)
            overlaps = any(other.within(c) or c.within(other) for c, _ in found)
            if also is not None and not overlaps and _holds_weights(other) and behind_norm(other, value):
                found.append((other, also))
        return sorted(found, key=lambda reader: reader[0].start)
    return []


def _norms(block: Block, layer: SubLayer) -> list[Call]:
    """The norms that may be a sub-layer's: the one its sum goes through, whose output it reads, or that it ends in."""
    if not layer.readers or layer.term is None:
        return []
    reader, path = layer.readers[0]
    value = reader.inputs[path]
    inner = [c for c in block.call.descendants() if is_norm(c)]
    found = [s.norm for s in block.sums if s.norm is not None and layer.term is s.terms[-1] and is_norm(s.norm)]
    found += [c for c in inner if any(same(t, value) for t in c.outputs.values())]
    found += [c for c in inner if c is layer.term.call]
    return list(dict.fromkeys(found))


def _holds_weights(call: Call) -> bool:
    """Whether a call makes something of its input; a dropout or an identity may hand on the stream itself."""
    return any(True for _ in call.module.parameters()) or is_linear(call.module)


def _norms_first(call: Call, value: Tensor) -> bool:
    """Whether a call, or one within it, is of a norm that reads this very tensor."""
    return any(is_norm(c) and any(same(t, value) for t in c.inputs.values()) for c in [call, *call.descendants()])


def _reads_more(call: Call, path: Path) -> bool:
    """Whether a call takes a further tensor as wide as the stream, but another one."""
    value = call.inputs[path]
    others = [t for p, t in call.inputs.items() if p != path and t.is_floating_point() and t.ndim == value.ndim]
    return any(t.shape[-1] == value.shape[-1] and not same(t, value) for t in others)
