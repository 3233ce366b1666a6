"""Sweeps: one edit at every site, position, head, unit or token group, and what each does to a task."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Edit, Twin
from openwork.errors import BadInput, UnknownName
from openwork.network.anatomy import SiteInfo
from openwork.network.layout import place_axes
from openwork.network.measure import Base, Measured, Tick, measure
from openwork.network.replay.reading import Reading
from openwork.site import Site
from openwork.store.progress import Bar
from openwork.task import Batch, Inputs, Metric, Split, Task

if TYPE_CHECKING:
    import xarray

    from openwork.network.network import Network

PARTS = ("head", "unit", "channel", "expert")
AXES = ("site", "position", "group", *PARTS, "example")
LEVEL = 0.95


def sweep(
    net: Network,
    task: Task,
    edit: Edit,
    over: str | Iterable[str] = "site",
    *,
    split: Split | None = None,
    base: Base | None = None,
    sources: Mapping[str, Any] | None = None,
    surrogates: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    memory: str | int | None = None,
    controls: int = 0,
    seed: int = 0,
    to: str | Path | None = None,
    tick: Tick | None = None,
) -> xarray.DataArray:
    """Measure one edit at every place of a family, exactly as one full forward pass a place would.

    Args:
        net: the network.
        task: the behaviour.
        edit: the edit; its site may be a pattern.
        over: what to go through, in the order of the result's axes: ``site``, ``position``, ``group`` (the token groups
            of the inputs, ``first`` and ``last`` among them), ``head``, ``unit``, ``channel`` or ``expert`` (the parts
            of the site). Examples come last, whether named or not.
        split: the rows of one split; all rows unless given.
        base: the inputs that are edited; unless given, the corrupted ones for an edit that reads the clean run, and
            the clean ones for every other.
        sources: as in `Network.run`; ``clean`` and ``corrupted`` are those of the task.
        surrogates: as in `Network.run`.
        memory: a budget such as ``"4GiB"`` for what runs at once.
        controls: how many matched controls of each cell to run: changes of the same size at the same tokens, each in a
            random direction. With none, the other cells of the sweep stand in for them.
        seed: of the controls' directions.
        to: a folder that keeps what was computed, so that the same call goes on after an interruption.
        tick: told the share that is done; a bar on the terminal unless given.

    Returns:
        the metric of every cell and example with the axes of `over` and ``example``; NaN where a row has no such
        position or a site no such part. Beside it, as coordinates: ``base``, ``clean`` and ``corrupted`` (example) are
        the metric of unedited runs; ``effect``, ``low``, ``high`` and ``p`` (cell) the mean change against the base
        with its 95 % interval and the p-value of the paired t-test; ``control`` and ``control_p`` (cell) the mean
        effect of the controls and the share of them at least as large, (1 + larger) / (1 + controls); ``how`` (cell)
        what was computed again. ``table.effect.plot()`` draws it, ``table.to_dataframe()`` lists it.

    Raises:
        UnknownName: for an axis, site, source or surrogate that does not exist.
        BadInput: for axes that do not fit the site, and as `measure`.
        EditMissed: if the edit reaches nothing anywhere.
    """
    axes = _axes(over)
    batch = task.split(split) if split else task.batch(range(len(task)))
    family = Family.of(net, batch, edit, axes)
    base = base or ("corrupted" if edit.needs == "clean" else "clean")
    twins = [(Twin(of=cell[0], seed=seed + k),) for k in range(controls) for cell in family.cells]
    with Bar(f"sweep of {len(family.cells)} cells", quiet=tick is not None, patience=1.0) as bar:
        found = measure(
            net, batch, task.metric, [*family.cells, *twins], base=base, sources=sources, surrogates=surrogates,
            memory=memory, to=to, tick=tick or bar.tick,
        )  # fmt: skip
    return _table(net, batch, task.metric, edit, axes, family, found, base)


def _axes(over: str | Iterable[str]) -> tuple[str, ...]:
    axes = tuple(a for a in ((over,) if isinstance(over, str) else over) if a != "example")
    for axis in axes:
        if axis not in AXES:
            raise UnknownName.among("axis to sweep over", axis, AXES)
    if not axes or len(set(axes)) < len(axes) or sum(a in PARTS for a in axes) > 1 or {"position", "group"} <= {*axes}:
        raise BadInput(
            f"expected different axes of {AXES}, at most one of heads, units, channels and experts, and positions or "
            f"groups; got {axes}"
        )
    return axes


@dataclass(frozen=True)
class Family:
    """All cells of a sweep.

    Args:
        labels: axis -> labels of its coordinates.
        cells: the edits of each cell that exists.
        places: where each cell lies: an index on every axis.
    """

    labels: dict[str, list[Any]]
    cells: list[tuple[Edit, ...]]
    places: list[tuple[int, ...]]

    @classmethod
    def of(cls, net: Network, batch: Batch, edit: Edit, axes: Sequence[str]) -> Family:
        """Go through the axes."""
        sites = net.map.resolve(edit.site)
        if "site" not in axes and len(sites) > 1:
            raise BadInput(f"expected 'site' among the axes to go through {len(sites)} sites; got {tuple(axes)}")
        labels: dict[str, list[Any]] = {}
        for axis in axes:
            labels[axis] = cls._labels(net, batch, edit, sites, axis)
        cells: list[tuple[Edit, ...]] = []
        places: list[tuple[int, ...]] = []
        for place in itertools.product(*(range(len(labels[axis])) for axis in axes)):
            at = {axis: labels[axis][i] for axis, i in zip(axes, place, strict=True)}
            site = next(s for s in sites if str(s) == at.get("site", str(sites[0])))
            part = next((at[a] for a in PARTS if a in at), None)
            if part is not None:
                if part >= net.map.info(site.path).parts:
                    continue
                site = Site(site.path, (part,))
            where = edit.where
            if "position" in at:
                where = replace(where, positions=(at["position"],), group=None)
            if "group" in at:
                where = replace(where, positions=None, group=at["group"])
            cells.append((replace(edit, site=site, where=where),))
            places.append(place)
        return cls(labels, cells, places)

    @staticmethod
    def _labels(net: Network, batch: Batch, edit: Edit, sites: Sequence[Site], axis: str) -> list[Any]:
        if axis == "site":
            return [str(site) for site in sites]
        if axis == "position":
            lengths = getattr(batch.clean, "lengths", None)
            if lengths is None:
                info = net.map.info(sites[0].path)
                places = place_axes(info.axes)
                if not places:
                    raise BadInput(f"expected a site with positions; {sites[0]} has axes {info.axes}")
                return list(range(max(_count(net.map.info(site.path)) for site in sites)))
            return list(range(max(lengths)))
        if axis == "group":
            if not isinstance(batch.clean, Inputs):
                if not batch.clean.regions:
                    raise BadInput("expected inputs with token groups, or images with regions, to sweep over; got none")
                return list(batch.clean.regions)
            return list(dict.fromkeys((*batch.clean.groups, "first", "last")))
        named = {net.map.info(site.path).axes[net.map.info(site.path).part_axis] for site in sites}
        if axis != "unit" and named != {axis}:
            raise BadInput(f"expected sites whose parts are {axis}s; {sites[0]} and others have {sorted(named)}")
        return list(edit.site.index) or list(range(max(net.map.info(site.path).parts for site in sites)))


def _table(
    net: Network,
    batch: Batch,
    metric: Metric,
    edit: Edit,
    axes: tuple[str, ...],
    family: Family,
    found: Measured,
    base: Base,
) -> xarray.DataArray:
    import xarray

    shape = tuple(len(family.labels[axis]) for axis in axes)
    places = tuple(np.array(index) for index in zip(*family.places, strict=True))
    values = np.full((*shape, len(batch)), np.nan)
    count = len(family.cells)
    measured = np.where(found.reached, found.values, np.nan)
    values[places] = measured[:count]
    how = np.full(shape, "", dtype=object)
    how[places] = found.how[:count]
    unedited = {
        which: found.unedited[which] if which in found.unedited else plain(net, batch, metric, which)
        for which in _BASES
    }
    coords: dict[str, Any] = {**family.labels, "example": np.arange(len(batch))}
    coords |= {"base": ("example", found.base)} | {which: ("example", unedited[which]) for which in _BASES}
    coords |= {name: (axes, x) for name, x in effects(values - found.base).items()}
    kind, control, control_p = _controls(measured - found.base, count)
    for name, x in (("control", control), ("control_p", control_p)):
        whole = np.full(shape, np.nan)
        whole[places] = x
        coords[name] = (axes, whole)
    coords["how"] = (axes, how.astype(str))
    attributes = {
        "metric": metric.name, "unit": metric.unit, "edit": _said(edit), "edited": base, "network": net.name,
        "split": batch.split or "all", "level": LEVEL, "control": kind, **found.notes,
    }  # fmt: skip
    return xarray.DataArray(values, coords, (*axes, "example"), name=metric.name, attrs=attributes)


def _count(info: SiteInfo) -> int:
    """The number of positions of a site in the dry run."""
    return math.prod(info.shape[axis] for axis in place_axes(info.axes))


_BASES: tuple[Base, ...] = ("clean", "corrupted")


def plain(net: Network, batch: Batch, metric: Metric, which: Base) -> Float[np.ndarray, " example"]:
    """The metric of the unedited clean or corrupted run of each example."""
    logits = net.run(getattr(batch, which)).logits
    return Reading(batch, metric).values(logits, range(len(batch))).numpy()


def effects(change: Float[np.ndarray, "*cell example"]) -> dict[str, Float[np.ndarray, "*cell"]]:
    """Mean change of each cell with its t-interval, and the p-value of the paired t-test against no change.

    Cells that change no example have effect 0, an interval of no width and p = 1.

    Source:
        `scipy.stats.ttest_1samp`.
    """
    from scipy import stats

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cells without spread: handled below
        test: Any = stats.ttest_1samp(change, 0.0, axis=-1, nan_policy="omit")
        interval = test.confidence_interval(LEVEL)
        mean = np.nanmean(change, axis=-1)
    low, high, p = (np.asarray(x, dtype=float) for x in (interval.low, interval.high, test.pvalue))
    flat = np.isnan(p) & ~np.isnan(mean)
    level = np.where(flat, mean, np.nan)
    return {
        "effect": mean,
        "low": np.where(flat, level, low),
        "high": np.where(flat, level, high),
        "p": np.where(flat, 1.0, p),
    }


def _controls(
    change: Float[np.ndarray, "cells example"], count: int
) -> tuple[str, Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """What the controls are, their mean effect, and the share of them that reach a cell's; `count` cells come first."""
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cell that reaches no example has no mean
        mean = np.nanmean(change, axis=1)
    cells, twins = mean[:count], mean[count:].reshape(-1, count)
    if len(twins):
        larger = (np.abs(twins) >= np.abs(cells)).sum(0)
        text = f"{len(twins)} changes of equal size at the same tokens in random directions"
        return text, twins.mean(0), (1 + larger) / (1 + len(twins))
    rank = stats.rankdata(-np.abs(cells), method="max", nan_policy="omit")
    others = (np.nansum(cells) - cells) / max(1, np.isfinite(cells).sum() - 1)
    return "the other cells", others, rank / max(1, np.isfinite(cells).sum())


def _said(edit: Edit) -> str:
    return json.dumps(edit.to_json()) if edit.serialisable else repr(edit)
