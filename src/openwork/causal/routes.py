"""Routes from senders to receivers: what goes through them alone, and random routes of the same shape beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from openwork.causal.candidates import Gap
from openwork.causal.controls import Twins
from openwork.causal.wiring import Wiring, layers_of
from openwork.circuit import Node
from openwork.edit import Edit, Patch
from openwork.errors import BadInput
from openwork.network import measure
from openwork.network.context import SourceRun
from openwork.network.measure import Tick, silent
from openwork.network.run import Run
from openwork.site import Site, Where
from openwork.task import Batch, Metric

READS = ("q", "k", "v")
TRIES = 30
"""Draws for each control that is wanted; more find nothing new where few routes are alike."""


@dataclass(frozen=True)
class Route:
    """Senders and the receivers through which alone they act."""

    senders: tuple[Node, ...]
    receivers: tuple[Node, ...]

    def __str__(self) -> str:
        return " -> ".join(" + ".join(map(str, nodes)) for nodes in (self.senders, self.receivers))

    def check(self, wiring: Wiring) -> None:
        """Refuse a route of which a part does nothing, or whose parts cannot be told apart.

        Raises:
            BadInput: naming the sender or receiver.
        """
        idle = [
            (s, "no receiver reads it") for s in self.senders if not any(wiring.exists(s, r) for r in self.receivers)
        ]
        idle += [
            (r, "it reads no sender") for r in self.receivers if not any(wiring.exists(s, r) for s in self.senders)
        ]
        for node, why in idle:
            raise BadInput(
                f"there is no path through {node}: {why}. Receivers read what comes before them, and attention and MLP "
                "of a parallel block do not read each other"
            )
        order = wiring.net.map.order
        first = min(order(node.site.path) for node in self.senders)
        for layer, nodes in layers_of(self.senders).items():
            site = nodes[0].site
            if site.path.endswith(".hidden") and any(r.site.path == site.path for r in self.receivers):
                raise BadInput(f"units of {layer} cannot be senders and receivers of one path; patch two paths")
            plain = any(c.name == "read by the output projection" for c in wiring.net.map.info(site.path).checks)
            if site.path.endswith(".z") and first < order(site.path) and not plain:
                raise BadInput(
                    f"{site} cannot be a sender beside an earlier one: what {layer} adds depends on more than its "
                    f"heads, and would carry the change of the earlier one too; name {layer}.out"
                )


@dataclass(frozen=True, eq=False)
class Traffic:
    """What goes through routes.

    Args:
        values: the metric when a route alone carries what its senders have in the other run.
        effects: the change that this makes: lost of the behaviour (base clean) or won of it (base corrupted).
        totals: of each set of senders, its effect through everything.
        base: the metric of the unedited run.
        gap: the metric of clean and corrupted runs.
    """

    values: Float[np.ndarray, "route example"]
    effects: Float[np.ndarray, "route example"]
    totals: Float[np.ndarray, "senders example"]
    base: Float[np.ndarray, " example"]
    gap: Gap


@dataclass(frozen=True, eq=False)
class Router:
    """Measures routes on some examples.

    Args:
        wiring: of the network.
        batch: the examples.
        metric: what is read off.
        base: the inputs that run; senders take their values from the other ones.
        mlps: whether MLPs between sender and receiver are frozen like all else.
        budget: bytes of what receivers read that are held at once.
    """

    wiring: Wiring
    batch: Batch
    metric: Metric
    base: Literal["clean", "corrupted"]
    mlps: Literal["frozen", "live"]
    budget: int

    def measure(self, routes: Sequence[Route], alone: Sequence[tuple[Node, ...]] = (), tick: Tick = silent) -> Traffic:
        """Send through every route.

        Args:
            routes: the routes; those from the same senders share one run of stage (i).
            alone: sets of senders to measure through everything.
            tick: told the share that is done.
        """
        net, order = self.wiring.net, self.wiring.net.map.order
        by_senders: dict[tuple[Node, ...], list[int]] = {}
        for number, route in enumerate(routes):
            by_senders.setdefault(route.senders, []).append(number)
        written = {node.site.path for senders in (*by_senders, *alone) for node in senders}
        other = self.batch.corrupted if self.base == "clean" else self.batch.clean
        plain = net.run(getattr(self.batch, self.base), keep=sorted({*written, *self.wiring.outs}, key=order))
        donor = net.run(other, keep=sorted(written, key=order))
        gap = Gap.of(net, self.batch, self.metric)
        unedited = gap.sign * (gap.clean if self.base == "clean" or gap.corrupted is None else gap.corrupted)
        totals = np.empty((len(alone), len(self.batch)))
        if alone:
            totals = self._cells([[Patch(n.site, n.where, "donor") for n in some] for some in alone], {"donor": donor})
        values, done = np.empty((len(routes), len(self.batch))), 0
        for part in self._parts(by_senders, routes, plain):
            sources: dict[str, Any] = {}
            cells: list[Sequence[Edit]] = []
            numbers: list[int] = []
            for place, senders in enumerate(part):
                mine, name = by_senders[senders], f"senders {place}"
                sources[name] = self._recorded(senders, [routes[i] for i in mine], plain, donor)
                cells += [[Patch(self._seen(n), n.where, name) for n in routes[i].receivers] for i in mine]
                numbers += mine
            values[numbers] = self._cells(cells, sources)
            done += len(numbers)
            tick(done / len(routes))
        turned = gap.sign if self.base == "corrupted" else -gap.sign
        return Traffic(values, turned * (values - unedited), turned * (totals - unedited), unedited, gap)

    def twins(self, route: Route, count: int, seed: int) -> Float[np.ndarray, " control"]:
        """The mean effects of random twins of a route.

        In each, the senders have as much of another value as they have in the other run, at the same tokens, but in a
        random direction; the receivers read that.

        Args:
            route: the route.
            count: how many twins.
            seed: of the directions.
        """
        net, other = self.wiring.net, "corrupted" if self.base == "clean" else "clean"
        edits = [Patch(node.site, node.where, source=other) for node in route.senders]
        twins = Twins(net, self.batch, self.base, edits, seed=seed)
        written = {node.site.path for node in route.senders}
        plain = net.run(getattr(self.batch, self.base), keep=sorted({*written, *self.wiring.outs}))
        gap = Gap.of(net, self.batch, self.metric)
        unedited = gap.sign * (gap.clean if self.base == "clean" or gap.corrupted is None else gap.corrupted)
        turned = gap.sign if self.base == "corrupted" else -gap.sign
        means: list[float] = []
        step = max(1, self.budget // max(1, sum(self._bytes(self._seen(n).path, plain) for n in route.receivers)))
        for start in range(0, count, step):
            sources, cells = {}, []
            for number in range(start, min(start + step, count)):
                _, given = twins.twin(number)
                (donor,) = given.values()
                sources[f"twin {number}"] = self._recorded(route.senders, [route], plain, donor)
                cells.append([Patch(self._seen(n), n.where, f"twin {number}") for n in route.receivers])
            means += (turned * (self._cells(cells, sources) - unedited)).mean(1).tolist()
        return np.array(means)

    def _cells(self, cells: Sequence[Sequence[Edit]], sources: dict[str, Any]) -> Float[np.ndarray, "cell example"]:
        net = self.wiring.net
        return measure(net, self.batch, self.metric, cells, base=self.base, sources=sources).values

    def _seen(self, receiver: Node) -> Site:
        """Where what a receiver reads is recorded and written."""
        return Site(self.wiring.end) if receiver.site.path == "logits" else receiver.site

    def _recorded(self, senders: Sequence[Node], routes: Iterable[Route], plain: Run, donor: Run) -> SourceRun:
        """Stage (i): what receivers read when the senders' own contributions change, and no other."""
        net, order = self.wiring.net, self.wiring.net.map.order
        wanted = sorted({self._seen(n).path for route in routes for n in route.receivers}, key=order)
        layers = layers_of(senders)
        first = min(order(node.site.path) for node in senders)
        # naming the rows makes a patch write a copy: some networks add to what a module returns in place
        everywhere = Where(rows=range(len(self.batch)))
        edits: list[Edit] = []
        for out in self.wiring.outs:
            live = self.mlps == "live" and Site(out).kind.startswith("mlp")
            if out[: -len(".out")] not in layers and not live and first < order(out) < order(wanted[-1]):
                edits.append(Patch(out, everywhere, source="plain"))
        for nodes in layers.values():
            # the heads beside a sender read a stream that an earlier sender may have changed
            edits.append(Patch(nodes[0].site.path, everywhere, source="plain"))
            edits += [Patch(node.site, replace(node.where, rows=everywhere.rows), source="donor") for node in nodes]
        sources = {"plain": plain, "donor": donor}
        run = net.run(getattr(self.batch, self.base), keep=wanted, edits=edits, sources=sources, until=wanted[-1])
        return SourceRun(run.values, run.layout)

    def _parts(
        self, by_senders: dict[tuple[Node, ...], list[int]], routes: Sequence[Route], plain: Run
    ) -> list[list[tuple[Node, ...]]]:
        """Sets of senders of which what receivers read is held together."""
        parts: list[list[tuple[Node, ...]]] = []
        held = 0
        for senders, numbers in by_senders.items():
            size = sum(
                self._bytes(p, plain) for p in {self._seen(n).path for i in numbers for n in routes[i].receivers}
            )
            if size > self.budget:
                raise BadInput(
                    f"expected a memory budget of at least {size} bytes, for all that is read after "
                    f"{' + '.join(map(str, senders))}; got {self.budget}. Give more, or name fewer receivers"
                )
            if not parts or held + size > self.budget:
                parts.append([])
                held = 0
            parts[-1].append(senders)
            held += size
        return parts

    def _bytes(self, site: str, plain: Run) -> int:
        sites, layout = self.wiring.net.map, plain.layout
        info = sites.info(site)
        columns = info.shape[1] if sites.layout_at(site, layout) is None else layout.width
        return info.itemsize * layout.rows * columns * int(np.prod(info.shape[2:]))


def alike(wiring: Wiring, route: Route, count: int, random: np.random.Generator) -> list[Route]:
    """Random routes of the same shape: as many layers apart, between components of the same kinds.

    All of a route moves by the same number of blocks, and goes there through random heads, groups or units; a single
    query, key or value may become another of these.

    Args:
        wiring: of the network.
        route: what to match.
        count: how many.
        random: generator.

    Returns:
        different routes, none of them `route` itself; fewer than `count` where the network has not so many.
    """
    found: dict[tuple[frozenset[Node], frozenset[Node]], Route] = {}
    own = frozenset(route.senders), frozenset(route.receivers)
    nodes = [*route.senders, *route.receivers]
    fixed = any(n.site.path in ("logits", "embed", wiring.start) for n in nodes)
    blocks = [b for n in nodes if (b := n.site.block) is not None]
    shifts = [0] if fixed else list(range(-min(blocks), wiring.net.n_blocks - max(blocks)))
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        shift = int(random.choice(shifts))
        senders, receivers = (_moved(wiring, side, shift, random) for side in (route.senders, route.receivers))
        key = frozenset(senders), frozenset(receivers)
        if len(senders) < len(route.senders) or len(receivers) < len(route.receivers) or key == own or key in found:
            continue
        reads = all(any(wiring.exists(s, r) for s in senders) for r in receivers)
        if reads and all(any(wiring.exists(s, r) for r in receivers) for s in senders):
            found[key] = Route(senders, receivers)
    return list(found.values())


def _moved(wiring: Wiring, nodes: Sequence[Node], shift: int, random: np.random.Generator) -> tuple[Node, ...]:
    """Random components for some nodes, in the blocks `shift` further on; fewer if they do not exist."""
    taken: dict[str, list[int]] = {}
    out: dict[Node, None] = {}
    for node in nodes:
        path, block = node.site.path, node.site.block
        if block is not None and path != wiring.start:
            path = path.replace(f"blocks.{block}.", f"blocks.{block + shift}.")
        last = path.rpartition(".")[2]
        if last in READS and len(node.site.index) == 1:
            path = f"{path[: -len(last)]}{random.choice(READS)}"
        if path not in wiring.net.sites or path.endswith((".cross.k", ".cross.v")):
            continue
        left = [i for i in range(wiring.net.parts(path)) if i not in taken.get(path, [])] if node.site.index else []
        if len(left) < len(node.site.index):
            continue
        index = sorted(int(i) for i in random.choice(left, len(node.site.index), replace=False)) if left else []
        taken.setdefault(path, []).extend(index)
        out[Node(Site(path, tuple(index)), node.where)] = None
    return tuple(out)
