"""What a class is made of: class <- late channels <- early channels, each edge measured by an intervention on it alone.

    class_graph(net, pictures, "car", ["module:layer1.out", "module:layer2.out", "module:layer3.out"])

An edge's weight is the change of the class's logit when a sender is held at its mean over other classes for one
receiver alone: the receiver gets the value that it has without the sender, and everything else keeps its own.

Source: path interventions on filters, as in causal graphs of CNNs: the effect of each filter on each later one,
from the class back to the image; Goldowsky-Dill et al. 2023, Localizing model behavior with path patching, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from openwork.circuit import Circuit, Node
from openwork.edit import Edit, Patch, Set
from openwork.errors import BadInput, TaskFailed, UnknownName
from openwork.network import Behind, measure
from openwork.network.context import SourceRun
from openwork.pictures import Masked
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Edge, Site
from openwork.task import Batch, Metric, Tensors
from openwork.vision.corpora import Split, claims_about
from openwork.vision.halves import read, some
from openwork.vision.passes import passes

if TYPE_CHECKING:
    from openwork.network import Network

CONTROL = "random edges between the same layers"
TOGETHER = 8
"""Senders whose removal is held at once."""
SOURCE = "without {}"
SMALL = 1e-6
"""A relative change of a receiver below which its edge is not run: nothing is carried."""


@dataclass(frozen=True)
class Tracing:
    """How to trace a class back.

    Args:
        width: receivers of each layer that are traced further, the ones with the largest effect.
        images: of the class, of each half, at most; and as many of other classes for the means.
        claims: how many edges, the strongest on find images, are claimed on held-out ones.
        standard: what a claim must meet; its least share is of the class's mean margin.
        memory: a budget for what runs at once.
        seed: of the images and the controls.
    """

    width: int = 4
    images: int = 48
    claims: int = 5
    standard: Standard = field(default_factory=lambda: Standard(min_share=0.01))
    memory: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.images < 2 or self.claims < 0:
            raise BadInput(f"expected width from 1, images from 2 and claims from 0; got {self}")


def _margin(logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
    own = logits.gather(-1, answer[:, None]).squeeze(-1)
    return own - (logits.sum(-1) - own) / max(logits.shape[-1] - 1, 1)


MARGIN = Metric("logit of the class minus the mean of the others", "logits", _margin)


def class_graph(
    net: Network,
    pictures: Masked,
    of: str | int,
    sites: Sequence[str | Site],
    method: Tracing = Tracing(),
    *,
    held_out: Masked | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Result:
    """Trace a class back through the channels of some layers, and claim the strongest edges on held-out images.

    Args:
        net: a classifier.
        pictures: images with classes.
        of: the class, by name or number.
        sites: maps of channels, early ones first.
        method: how.
        held_out: images that nothing is found on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a finding for each of the strongest edges; and a table: ``edge_effect`` (edge) with ``edge_effect_low``,
        ``edge_effect_high`` and the coordinates ``sender``, ``receiver``, ``level`` (of the sender) and ``kept``;
        ``node_effect`` (node) with ends, the effect of a whole channel, ``node``, ``node_level``; ``claim_effect``
        (claim, held_out_image) and ``claim_control`` (claim, control).

    Raises:
        UnknownName: for a site or class that does not exist.
        BadInput: for images without classes, or sites that are no maps in the order of the network.
        TaskFailed: if the network tells none of the class's images.

    Units:
        logits.
    """
    names = [net.map.resolve(site)[0].path for site in sites]
    if not names or any(net.map.info(name).axes[:2] != ("batch", "channel") for name in names):
        raise BadInput(f"expected sites with the axes batch and channel, early ones first; got {list(map(str, sites))}")
    label = class_number(pictures, of)
    split = Split.of(pictures, held_out, method.seed)
    work = _Work(net, names, label, split, method)
    nodes, edges = work.trace(lambda share: tick(0.7 * share))
    settings = {"class": work.called, "sites": names, "pictures": pictures.name, **asdict(method)}
    chosen = sorted((e for e in edges if e.kept), key=lambda e: -abs(e.mean))[: method.claims]
    candidates = work.candidates(chosen, edges, lambda share: tick(0.7 + 0.3 * share))
    criteria = method.standard.criteria(work.scale, "logits")
    claims = claims_about(net, split, settings, method.seed)
    table = _table(nodes, edges, candidates)
    table.attrs.update(network=net.name, unit="logits", metric=MARGIN.name, class_name=work.called)
    remarks = [work.remark] if work.remark else []
    return Result("class graph", claimed(claims, criteria, candidates), table, settings, (*remarks, *split.remarks))


def class_number(pictures: Masked, of: str | int) -> int:
    """The number of a class.

    Raises:
        UnknownName: if there is none of that name.
        BadInput: if there are no classes, or none of that number.
    """
    if not isinstance(pictures, Masked) or not pictures.class_names:
        raise BadInput(f"expected images with classes; {pictures.name} names none")
    names = list(pictures.class_names)
    if isinstance(of, str):
        if of not in names:
            raise UnknownName.among("class", of, names)
        return names.index(of)
    if not 0 <= of < len(names):
        raise BadInput(f"expected a class from 0 to {len(names) - 1}; got {of}")
    return of


@dataclass(frozen=True, eq=False)
class Measured:
    """A channel's effect on the class, or that of an edge.

    Args:
        sender: the channel.
        receiver: the channel that alone reads the change; None where everything does.
        level: of the sender, from 0.
        effects: loss of the class's margin on each find image.
        kept: whether it is part of the graph.
    """

    sender: Site
    receiver: Site | None
    level: int
    effects: Float[np.ndarray, " image"]
    kept: bool = False

    @property
    def mean(self) -> float:
        """The mean effect."""
        return float(self.effects.mean())


class _Work:
    """The runs of one class."""

    def __init__(self, net: Network, names: list[str], label: int, split: Split, method: Tracing):
        self.net, self.names, self.label, self.method = net, names, label, method
        self.called = split.find.class_names[label]
        own, other = (self._rows(split.find, split.find_rows, is_class) for is_class in (True, False))
        held = self._rows(split.held, split.held_rows, True)
        if min(len(own), len(held)) < 2 or not other:
            raise BadInput(
                f"expected two find and two held-out images of {self.called!r} and one of another class; got "
                f"{len(own)}, {len(held)} and {len(other)}"
            )
        self.find, self.held = self._batch(split.find, own), self._batch(split.held, held)
        logits = net.run(dict(self.find.clean.values)).logits  # pyright: ignore[reportAttributeAccessIssue]
        right = float((logits.argmax(-1) == label).float().mean())
        if not right:
            raise TaskFailed(f"{net.name} says {self.called!r} of none of {len(own)} images of it; nothing to trace")
        self.remark = "" if right > 0.5 else f"WARNING: only {right:.0%} of the images of {self.called!r} are told"
        self.scale = float(self.find.measure(MARGIN, logits).mean())
        self.means = self._means(split.find, other)

    def _rows(self, pictures: Masked, rows: Sequence[int], own: bool) -> list[int]:
        labels = pictures.classes(rows).tolist()
        return some([r for r, c in zip(rows, labels, strict=True) if (c == self.label) == own], self.method.images,
                    self.method.seed)  # fmt: skip

    def _batch(self, pictures: Masked, rows: Sequence[int]) -> Batch:
        given = Tensors({self.net.preparer.main: read(self.net, pictures, rows)})
        n = len(rows)
        return Batch(given, given, (self.label,) * n, (self.label,) * n, (0,) * n)

    def _means(self, pictures: Masked, rows: Sequence[int]) -> dict[str, Tensor]:
        """The mean of every channel at every place over images of other classes."""
        sums: dict[str, Tensor] = {}
        for one in passes(self.net, pictures, self.names, rows=rows):
            for name, value in one.values.items():
                sums[name] = sums.get(name, 0) + value.double().sum(0)
        return {name: total / len(rows) for name, total in sums.items()}

    def out(self, site: Site) -> Edit:
        """The edit that holds a channel at its mean."""
        return Set(site, value=self.means[site.path][list(site.index)])

    def channels(self, level: int) -> list[Site]:
        """All channels of a layer."""
        return [Site(self.names[level], (c,)) for c in range(self.net.parts(self.names[level]))]

    def nodes(self, level: int, batch: Batch, channels: Sequence[Site]) -> Float[np.ndarray, "channel image"]:
        """The loss of margin when each channel is held at its mean."""
        found = measure(self.net, batch, MARGIN, [[self.out(c)] for c in channels], memory=self.method.memory)
        return found.base - found.values

    def edges(
        self,
        batch: Batch,
        pairs: Iterable[tuple[Site, Site]],
        tick: Callable[[float], None] = lambda share: None,
    ) -> dict[tuple[Site, Site], Float[np.ndarray, " image"]]:
        """The loss of margin when each sender is held at its mean for one receiver alone."""
        by_sender: dict[Site, list[Site]] = {}
        for sender, receiver in dict.fromkeys(pairs):
            by_sender.setdefault(sender, []).append(receiver)
        out: dict[tuple[Site, Site], np.ndarray] = {}
        senders = list(by_sender)
        later = Behind(self.net, batch.clean, [sender.path for sender in senders])
        plain: dict[str, Tensor] = {}
        for start in range(0, len(senders), TOGETHER):
            group = senders[start : start + TOGETHER]
            sources: dict[str, Any] = {}
            cells: list[tuple[Site, Site]] = []
            for sender in group:
                paths = list(dict.fromkeys(r.path for r in by_sender[sender]))
                run = later.run(edits=self.out(sender), keep=paths)
                if any(path not in plain for path in paths):
                    unedited = later.run(keep=paths)
                    plain |= {path: unedited[path] for path in paths}
                sources[SOURCE.format(sender)] = SourceRun({path: run[path] for path in paths}, run.layout)
                for receiver in by_sender[sender]:
                    c = list(receiver.index)
                    before, after = plain[receiver.path][:, c], run[receiver.path][:, c]
                    if float((after - before).abs().max()) > SMALL * max(float(before.abs().max()), 1e-12):
                        cells.append((sender, receiver))
                    else:
                        out[sender, receiver] = np.zeros(len(batch))
            if cells:
                edits = [[Patch(receiver, source=SOURCE.format(sender))] for sender, receiver in cells]
                found = measure(self.net, batch, MARGIN, edits, sources=sources, memory=self.method.memory)
                out |= dict(zip(cells, found.base - found.values, strict=True))
            tick(min(1.0, (start + TOGETHER) / len(senders)))
        return out

    def trace(self, tick: Callable[[float], None]) -> tuple[list[Measured], list[Measured]]:
        """Nodes and edges, from the class back to the first layer."""
        nodes: list[Measured] = []
        edges: list[Measured] = []
        last = len(self.names) - 1
        effects = self.nodes(last, self.find, self.channels(last))
        order = np.argsort(-np.abs(effects.mean(1)), kind="stable")
        largest = abs(float(effects[order[0]].mean()))
        least = self.method.standard.min_share * largest
        kept = [int(c) for c in order[: self.method.width] if largest and abs(float(effects[c].mean())) >= least]
        nodes += [
            Measured(site, None, last, values, c in kept)
            for c, (site, values) in enumerate(zip(self.channels(last), effects, strict=True))
        ]
        for level in range(last - 1, -1, -1):
            receivers = [Site(self.names[level + 1], (c,)) for c in kept]
            senders = self.channels(level)
            done = last - 1 - level
            found = self.edges(
                self.find, [(s, r) for s in senders for r in receivers],
                lambda share, done=done: tick((done + share) / max(last, 1)),
            )  # fmt: skip
            strongest = sorted(found, key=lambda pair: -abs(float(found[pair].mean())))
            taken: set[tuple[Site, Site]] = set()
            kept = []
            for pair in strongest:
                channel = pair[0].index[0]
                if not np.abs(found[pair]).max() or (channel not in kept and len(kept) == self.method.width):
                    continue
                share = abs(float(found[pair].mean())) / abs(float(found[strongest[0]].mean()))
                if share >= self.method.standard.min_share:
                    taken.add(pair)
                    kept += [channel] * (channel not in kept)
            edges += [Measured(s, r, level, values, (s, r) in taken) for (s, r), values in found.items()]
            if not kept:
                break
            whole = self.nodes(level, self.find, [Site(self.names[level], (c,)) for c in kept])
            nodes += [
                Measured(Site(self.names[level], (c,)), None, level, v, True) for c, v in zip(kept, whole, strict=True)
            ]
        return nodes, edges

    def candidates(
        self, chosen: Sequence[Measured], edges: Sequence[Measured], tick: Callable[[float], None]
    ) -> list[Candidate]:
        """Edges on held-out images beside random ones between the same layers."""
        count = self.method.standard.criteria(1.0, "").controls_needed
        random = np.random.default_rng(self.method.seed)
        in_graph = {(e.sender, e.receiver) for e in edges if e.kept}
        drawn: dict[int, list[tuple[Site, Site]]] = {}
        for level in dict.fromkeys(e.level for e in chosen):
            every = [(s, r) for s in self.channels(level) for r in self.channels(level + 1) if (s, r) not in in_graph]
            if every:
                drawn[level] = [every[int(i)] for i in random.choice(len(every), count, replace=len(every) < count)]
        pairs = [(e.sender, e.receiver) for e in chosen if e.receiver is not None]
        wanted = [*pairs, *(pair for some_pairs in drawn.values() for pair in some_pairs)]
        found = self.edges(self.held, wanted, tick) if wanted else {}
        out = []
        for edge in chosen:
            assert edge.receiver is not None
            sign = float(np.sign(edge.mean))
            controls = np.array([abs(float(found[pair].mean())) for pair in drawn.get(edge.level, [])])
            what = "for" if sign > 0 else "against"
            text = f"{edge.sender} speaks {what} {self.called} through {edge.receiver}"
            if len(controls):
                out.append(Candidate(text, sign * found[edge.sender, edge.receiver], controls, CONTROL))
        return out


def circuit_of(result: Result) -> Circuit:
    """The graph of a result of `class_graph` as a circuit."""
    table = result.table
    columns = (table[name].to_numpy() for name in ("node", "node_effect", "node_kept"))
    nodes = {Node(Site.parse(str(n))): float(v) for n, v, kept in zip(*columns, strict=True) if kept}
    edges = {}
    if "edge" in table.dims:
        columns = (table[name].to_numpy() for name in ("sender", "receiver", "edge_effect", "kept"))
        edges = {
            Edge(Site.parse(str(s)), Site.parse(str(r))): float(v)
            for s, r, v, kept in zip(*columns, strict=True)
            if kept
        }
    return Circuit(nodes, edges, f"class graph of {result.settings['class']}")


def _table(nodes: Sequence[Measured], edges: Sequence[Measured], candidates: Sequence[Candidate]) -> Any:
    import xarray

    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {
        "node": [str(n.sender) for n in nodes],
        "node_level": ("node", [n.level for n in nodes]),
        "node_kept": ("node", [n.kept for n in nodes]),
    }
    for name, some_of in (("node", nodes), ("edge", edges)):
        if not some_of:
            continue
        means = np.array([one.mean for one in some_of])
        error = np.array([1.96 * one.effects.std(ddof=1) / np.sqrt(len(one.effects)) for one in some_of])
        variables |= {
            f"{name}_effect": (name, means),
            f"{name}_effect_low": (name, means - error),
            f"{name}_effect_high": (name, means + error),
        }
    if edges:
        coords |= {
            "sender": ("edge", [str(e.sender) for e in edges]),
            "receiver": ("edge", [str(e.receiver) for e in edges]),
            "level": ("edge", [e.level for e in edges]),
            "kept": ("edge", [e.kept for e in edges]),
        }
    if candidates:
        variables["claim_effect"] = (("claim", "held_out_image"), np.stack([c.effects for c in candidates]))
        variables["claim_control"] = (("claim", "control"), np.stack([c.controls for c in candidates]))
        coords["claim"] = [c.text for c in candidates]
    return xarray.Dataset(variables, coords)
