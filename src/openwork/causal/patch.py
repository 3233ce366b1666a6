"""Activation patching: write a part of one run into another and see how much of the behaviour comes along.

    patch(net, task, "blocks.*.resid_pre", over=("site", "position"))
    patch(net, task, "blocks.*.attn.z", over=("site", "head"), method=Patching(way="noise"))
    patch(net, task, "blocks.*.mlp.out", method=Patching(extent="from first"))

Source: Vig et al. 2020, Causal mediation analysis; Wang et al. 2022; Heimersheim and Nanda 2024, How to use and
interpret activation patching.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from openwork.causal.candidates import Gap, recoveries, require_twins, settings_of
from openwork.causal.controls import KIND, Twins
from openwork.edit import Edit, Patch
from openwork.errors import BadInput, UnknownName
from openwork.evidence import benjamini_hochberg
from openwork.network import measure
from openwork.network.measure import Base, Tick, silent
from openwork.network.sweep import AXES, PARTS, Family, effects
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Site, Where
from openwork.task import Batch, Task

if TYPE_CHECKING:
    from openwork.network import Network

WAYS = ("denoise", "noise")
EXTENTS = ("single", "from first", "to last")


@dataclass(frozen=True)
class Patching:
    """How to patch.

    Args:
        way: ``denoise`` writes clean values into the corrupted run and asks what restores the behaviour: what suffices.
            ``noise`` writes corrupted values into the clean run and asks what breaks it: what is needed.
        extent: ``single`` patches one site at a time; ``from first`` all sites up to each, ``to last`` each and all
            after it.
        claims: how many places, the best on the find split, to claim on the held-out one.
        standard: what a claim must meet.
        seed: of control directions and intervals.
    """

    way: str = "denoise"
    extent: str = "single"
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.way not in WAYS or self.extent not in EXTENTS:
            raise BadInput(f"expected way of {WAYS} and extent of {EXTENTS}; got {self.way!r} and {self.extent!r}")
        if self.claims < 0:
            raise BadInput(f"expected no negative number of claims; got {self.claims}")

    @property
    def base(self) -> Base:
        """The inputs that are edited."""
        return "corrupted" if self.way == "denoise" else "clean"

    @property
    def source(self) -> Base:
        """The inputs whose values are written."""
        return "clean" if self.way == "denoise" else "corrupted"


def patch(
    net: Network,
    task: Task,
    sites: str | Site = "blocks.*.resid_pre",
    over: str | Iterable[str] = ("site", "position"),
    method: Patching = Patching(),
    *,
    where: Any = None,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Patch every place of a family, choose the best on the find split and claim them on the held-out one.

    Args:
        net: the network.
        task: the behaviour, with corrupted inputs.
        sites: a site or pattern: residual stream, heads, queries, keys, values, MLPs, neurons.
        over: what to go through, as in `openwork.sweep`: ``site``, ``position`` or ``group``, and one of ``head``,
            ``unit``, ``channel`` and ``expert``.
        method: how.
        where: positions or a token group, when `over` goes through neither.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        the findings, none where clean and corrupted runs do not differ; and a table with the axes of `over` and
        ``example``: ``value`` of the metric; over examples, ``effect`` (larger: more restored, or more broken) with
        ``low`` and ``high``, ``p`` of the paired t-test and ``q`` adjusted for all cells, ``n`` examples reached,
        ``recovery`` with its interval, the effect as a share of the gap between clean and corrupted. What was claimed
        has the axes ``claim``, ``held_out_example`` and ``control``.

    Raises:
        BadInput: if clean and corrupted inputs are all the same, or axes do not fit the sites.
        UnknownName: for a site, an axis or a token group that does not exist.
        Misaligned: for positions of clean and corrupted rows that do not correspond.
        EditMissed: if a place exists in no example.

    Units:
        those of the metric; ``recovery`` is a fraction of the mean gap.

    Source:
        Heimersheim and Nanda 2024, sections 2 and 3.
    """
    require_twins(task)
    axes = _axes(over)
    find = task.split("find")
    places = _Places.of(net, find, Patch(sites, Where.of(where), source=method.source), axes, method)
    gap = Gap.of(net, find, task.metric)
    found = measure(net, find, task.metric, places.cells, base=method.base, memory=memory, tick=tick)
    change = _effects(found.values, found.reached, gap, method)
    table = _table(places, found.values, change, gap, method)
    chosen = _best(change, places, gap, method) if gap.open else []
    settings = settings_of(
        method, sites=str(sites), over=list(axes), where=str(Where.of(where)), task=task.name, metric=task.metric.name
    )
    claims = Claims(net, task, settings, method.seed)
    findings, held = _claims(net, task, [places.cells[i] for i in chosen], method, gap.scale, claims)
    table = table.assign(held)
    table.attrs.update(
        metric=task.metric.name, unit=task.metric.unit, network=net.name, way=method.way, extent=method.extent
    )
    return Result("activation patching", findings, table, settings, _remarks(gap))


def _axes(over: str | Iterable[str]) -> tuple[str, ...]:
    axes = tuple(axis for axis in ((over,) if isinstance(over, str) else over) if axis != "example")
    for axis in axes:
        if axis not in AXES:
            raise UnknownName.among("axis to patch over", axis, AXES)
    if not axes or len({*axes}) < len(axes) or len({*axes} & {*PARTS}) > 1 or {"position", "group"} <= {*axes}:
        raise BadInput(f"expected different axes, positions or groups, and at most one of {PARTS}; got {axes}")
    return axes


@dataclass(frozen=True)
class _Places:
    """The cells of a family, and where each lies on its axes."""

    labels: dict[str, list[Any]]
    cells: list[tuple[Edit, ...]]
    places: list[tuple[int, ...]]

    @classmethod
    def of(cls, net: Network, batch: Batch, edit: Patch, axes: tuple[str, ...], method: Patching) -> _Places:
        family = Family.of(net, batch, edit, axes)
        if not family.cells:
            raise BadInput(f"expected at least one place to patch; {edit.site} over {axes} has none")
        if method.extent == "single":
            return cls(family.labels, family.cells, family.places)
        if "site" not in axes:
            raise BadInput(f"expected 'site' among the axes of a cumulative patch; got {axes}")
        axis = axes.index("site")
        cells = []
        for place in family.places:
            cell: list[Edit] = []
            for other, own in zip(family.places, family.cells, strict=True):
                alike = other[:axis] + other[axis + 1 :] == place[:axis] + place[axis + 1 :]
                earlier = other[axis] <= place[axis] if method.extent == "from first" else other[axis] >= place[axis]
                if alike and earlier:
                    cell += own
            cells.append(tuple(cell))
        return cls(family.labels, cells, family.places)

    def spread(self, values: np.ndarray, fill: Any = np.nan) -> np.ndarray:
        """Values of the cells, (cell, ...), on the family's axes."""
        out = np.full((*map(len, self.labels.values()), *values.shape[1:]), fill)
        out[tuple(np.array(index) for index in zip(*self.places, strict=True))] = values
        return out


def _effects(
    values: Float[np.ndarray, "cell example"], reached: Bool[np.ndarray, "cell example"], gap: Gap, method: Patching
) -> Float[np.ndarray, "cell example"]:
    """The metric restored or lost, NaN where an example has no such place."""
    assert gap.corrupted is not None
    change = gap.sign * values - gap.corrupted if method.way == "denoise" else gap.clean - gap.sign * values
    return np.where(reached, change, np.nan)


def _table(places: _Places, values: np.ndarray, change: np.ndarray, gap: Gap, method: Patching) -> Any:
    import xarray

    assert gap.corrupted is not None
    axes = tuple(places.labels)
    summary = {**effects(change), **recoveries(change, gap.clean - gap.corrupted, method.seed)}
    summary["n"] = (~np.isnan(change)).sum(-1).astype(float)
    summary["q"] = benjamini_hochberg(np.nan_to_num(summary["p"], nan=1.0))
    variables: dict[str, Any] = {name: (axes, places.spread(x)) for name, x in summary.items()}
    variables["value"] = ((*axes, "example"), places.spread(np.where(np.isnan(change), np.nan, values)))
    coords: dict[str, Any] = {**places.labels, "example": np.arange(values.shape[1])}
    coords["clean"] = ("example", gap.sign * gap.clean)
    coords["corrupted"] = ("example", gap.sign * gap.corrupted)
    if "site" in axes:
        blocks = [Site.parse(site).block for site in places.labels["site"]]
        coords["layer"] = ("site", [-1 if block is None else block for block in blocks])
    return xarray.Dataset(variables, coords)


def _best(change: Float[np.ndarray, "cell example"], places: _Places, gap: Gap, method: Patching) -> list[int]:
    """The cells with the largest effects; of those alike to a thousandth of the gap, the ones that patch less."""
    here = ~np.isnan(change)
    enough = min(method.standard.min_examples, change.shape[1])
    mean = np.where(here, change, 0.0).sum(-1) / np.maximum(here.sum(-1), 1)
    open_to = [i for i in range(len(change)) if here[i].sum() >= enough]
    unit = max(gap.scale, 1e-12) / 1000
    return sorted(open_to, key=lambda i: (-round(mean[i] / unit), len(places.cells[i]), i))[: method.claims]


def _claims(
    net: Network, task: Task, cells: Sequence[tuple[Edit, ...]], method: Patching, scale: float, claims: Claims
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The findings about some cells on the held-out split, and the numbers behind them."""
    if not cells:
        return (), {}
    batch = task.split("held-out")
    gap = Gap.of(net, batch, task.metric)
    criteria = method.standard.criteria(scale, task.metric.unit)
    found = measure(net, batch, task.metric, cells, base=method.base)
    change = _effects(found.values, found.reached, gap, method)
    candidates, controls = [], []
    for number, cell in enumerate(cells):
        twins = Twins(net, batch, method.base, cell, seed=method.seed + number)
        twin_values = twins.measure(task.metric, criteria.controls_needed)[0]
        reached = np.broadcast_to(found.reached[number], twin_values.shape)
        means = np.nanmean(_effects(twin_values, reached, gap, method), axis=1)
        controls.append(means)
        own = change[number]
        candidates.append(Candidate(_text(cell, task, method), own[~np.isnan(own)], means))
    return claimed(claims, criteria, candidates, KIND), held_out_table([c.text for c in candidates], change, controls)


def _text(cell: Sequence[Edit], task: Task, method: Patching) -> str:
    first, last = cell[0], cell[-1]
    sites = str(first.site) if len(cell) == 1 else f"{len(cell)} sites from {first.site} to {last.site}"
    where = "" if first.where == Where() else f" at {said(first.where)}"
    what = "restores" if method.way == "denoise" else "takes away"
    return f"writing the {method.source} value of {sites}{where} into the {method.base} run {what} {task.metric.name}"


def said(where: Where) -> str:
    """A place in words."""
    if where.group is not None:
        return f"the tokens {where.group!r}"
    if where.positions is None:
        return "every position"
    return "position " + ", ".join(map(str, where.positions))


def _remarks(gap: Gap) -> tuple[str, ...]:
    assert gap.corrupted is not None
    own = gap.clean - gap.corrupted
    remarks = [] if gap.open else [gap.closed]
    wrong = int((own * np.sign(own.mean()) <= 0).sum())
    if wrong:
        remarks.append(f"in {wrong} of {len(own)} examples the gap between clean and corrupted has the other sign")
    return tuple(remarks)
