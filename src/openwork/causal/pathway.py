"""Effective pathways: all attention is cut but what is named, and the behaviour is there or not.

    keep_pathway(net, task, [Flow("copied", "previous", 0, 0), Flow("last", "copied", 1, 1)])

Source: Map the Flow (effective pathways of video language models).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from openwork.causal.attention_edges import Groups, Pairs, as_many, existing, layout_of, said, scores_of, visible
from openwork.causal.candidates import settings_of, sign_of
from openwork.causal.knockout import CHUNK
from openwork.edit import KnockOut
from openwork.errors import BadInput
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Where
from openwork.task import Batch, Metric, Task
from openwork.tasks.metrics import ACCURACY, PROBABILITY

if TYPE_CHECKING:
    from openwork.network import Network

SAME_NUMBER = "random sets of attention edges, as many kept in each layer"


@dataclass(frozen=True)
class Keeping:
    """How to judge a pathway.

    Args:
        reading: the ``probability`` of the right answer, or the metric of the ``task``.
        standard: what the claim must meet; effects are measured against what is lost when nothing is kept.
        seed: of the random edges.
    """

    reading: Literal["probability", "task"] = "probability"
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reading not in ("probability", "task"):
            raise BadInput(f"expected reading probability or task; got {self.reading!r}")


@dataclass(frozen=True)
class Flow:
    """Attention that a pathway keeps.

    Args:
        queries: the tokens that read: positions, a token group, or None for all of them.
        keys: the tokens that they read, likewise.
        first: the first layer in which they do.
        last: the last one.
    """

    queries: Any
    keys: Any
    first: int
    last: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", Where.of(self.queries))
        object.__setattr__(self, "keys", Where.of(self.keys))
        if not 0 <= self.first <= self.last:
            raise BadInput(f"expected layers first <= last from 0 on; got {self.first} and {self.last}")

    def __str__(self) -> str:
        layers = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{said(self.keys)} to {said(self.queries)} in {layers}"


def keep_pathway(
    net: Network,
    task: Task,
    flows: Sequence[Flow],
    method: Keeping = Keeping(),
    *,
    tick: Tick = silent,
) -> Result:
    """Cut all attention but that of a pathway, and claim on held-out examples that the pathway is enough.

    Every token goes on reading itself; whatever else it reads must be named in `flows`.

    Args:
        net: the network.
        task: the behaviour.
        flows: what is kept, in which layers.
        method: how.
        tick: told the share that is done.

    Returns:
        one finding: how much of the reading comes back over cutting everything, against as many random edges kept in
        each layer. The table, of the held-out split, has ``value``, ``base``, ``nothing_kept`` and ``effect`` (value
        minus nothing kept), ``right`` and ``right_at_base`` (1 where the answer is the likeliest token), all
        (example); ``kept`` (layer), the share of edges that is kept; and ``control_effect`` (claim, control).

    Raises:
        BadInput: for a flow of layers that do not exist or without any edge, or no flow.
        UnknownName: for a token group that does not exist.
        SiteRefused: for a network without attention scores.

    Units:
        those of the reading.

    Source:
        Map the Flow, effective pathways, with random edges of equal ratio as control.
    """
    import xarray

    if not flows:
        raise BadInput("expected at least one flow to keep; got none")
    beyond = next((flow for flow in flows if flow.last >= net.n_blocks), None)
    if beyond is not None:
        raise BadInput(f"expected layers of the {net.n_blocks} blocks; got {beyond}")
    metric = PROBABILITY if method.reading == "probability" else task.metric
    sign = sign_of(metric)
    plans = {which: _Pathway.of(net, task.split(which), flows) for which in ("find", "held-out")}
    find, held = plans["find"], plans["held-out"]
    random = np.random.default_rng(method.seed)
    first = find.measure(metric, [find.nothing])
    scale = float(abs(first[0].mean() - first[1].mean()))
    criteria = method.standard.criteria(scale, metric.unit)
    base, nothing, value = held.measure(metric, [held.nothing, held.kept])
    right_at_base, right = held.measure(ACCURACY, [held.kept])
    controls = []
    for start in range(0, criteria.controls_needed, CHUNK):
        some = [held.random(random) for _ in range(min(CHUNK, criteria.controls_needed - start))]
        controls += [float(sign * (x - nothing).mean()) for x in held.measure(metric, some)[1:]]
        tick(len(controls) / criteria.controls_needed)
    effect = sign * (value - nothing)
    settings = settings_of(method, task=task.name, metric=metric.name, flows=[str(flow) for flow in flows])
    text = f"{'; '.join(map(str, flows))} is enough for {task.name}"
    claims = Claims(net, task, settings, method.seed)
    findings = claimed(claims, criteria, [Candidate(text, effect, np.array(controls))], SAME_NUMBER)
    numbers = {
        "value": value, "base": base, "nothing_kept": nothing, "effect": effect, "right": right,
        "right_at_base": right_at_base,
    }  # fmt: skip
    variables: dict[str, Any] = {name: ("example", x) for name, x in numbers.items()}
    variables["kept"] = ("layer", held.share)
    variables["claimed"] = ("claim", [text])
    variables["control_effect"] = (("claim", "control"), [controls])
    attributes = {"metric": metric.name, "unit": metric.unit, "network": net.name, "split": "held-out"}
    table = xarray.Dataset(variables, {"example": np.arange(len(held.batch)), "layer": held.layers}, attributes)
    suppressed = f"{100 * (1 - held.share.mean()):.0f} % of all edges are cut"
    return Result("attention pathway", findings, table, settings, (suppressed,))


@dataclass(frozen=True, eq=False)
class _Pathway:
    """A pathway on some examples: for each layer, what exists and what is cut of it."""

    net: Network
    batch: Batch
    layers: list[int]
    others: Pairs
    kept: list[Pairs]

    @classmethod
    def of(cls, net: Network, batch: Batch, flows: Sequence[Flow]) -> _Pathway:
        layout = layout_of(net, batch)
        sites = scores_of(net, range(net.n_blocks))
        layers = [layer for site in sites if (layer := site.block) is not None]
        others = [seen & ~np.eye(len(seen), dtype=bool) for seen in visible(net, layout)]
        kept = [[np.zeros_like(seen) for seen in others] for _ in layers]
        for flow in flows:
            own = existing(net, layout, flow.queries, flow.keys)
            for place, layer in enumerate(layers):
                if flow.first <= layer <= flow.last:
                    kept[place] = [a | b for a, b in zip(kept[place], own, strict=True)]
        kept = [[a & b for a, b in zip(layer, others, strict=True)] for layer in kept]
        return cls(net, batch, layers, others, kept)

    @property
    def nothing(self) -> list[Pairs]:
        """No edge kept."""
        return [[np.zeros_like(x) for x in self.others] for _ in self.layers]

    @property
    def share(self) -> Float[np.ndarray, " layer"]:
        """The share of edges that is kept in each layer."""
        total = sum(int(x.sum()) for x in self.others)
        return np.array([sum(int(x.sum()) for x in layer) / max(total, 1) for layer in self.kept])

    def random(self, random: np.random.Generator) -> list[Pairs]:
        """As many edges of each example kept in each layer, but random ones."""
        return [as_many([int(x.sum()) for x in layer], self.others, random) for layer in self.kept]

    def measure(self, metric: Metric, kept: Sequence[list[Pairs]]) -> list[Float[np.ndarray, " example"]]:
        """The metric with all edges, and with some edges kept of all."""
        groups = Groups(self.net.causal)
        cells = []
        for one in kept:
            cell: list[KnockOut] = []
            for layer, pairs in zip(self.layers, one, strict=True):
                gone = [a & ~b for a, b in zip(self.others, pairs, strict=True)]
                cell += groups.cut(gone, scores_of(self.net, [layer]))
            cells.append(cell)
        found = measure(self.net, groups.added_to(self.batch), metric, [cell for cell in cells if cell])
        values = iter(found.values)
        return [found.base, *(next(values) if cell else found.base for cell in cells)]
