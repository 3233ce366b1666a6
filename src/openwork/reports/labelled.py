"""Pictures of labelled tables, chosen by their axes: heat maps, lines over layers, bars with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from openwork.errors import BadInput
from openwork.reports.curves import Curve, curves
from openwork.reports.estimates import Estimates, estimates, labels
from openwork.reports.evidence import Bar, intervals
from openwork.reports.heatmap import Cell, heat_map
from openwork.reports.svg import Picture
from openwork.reports.words import number
from openwork.studies.schema import Control, Estimate

if TYPE_CHECKING:
    import xarray

DEPTH = ("site", "layer", "centre", "sender")
"""Axes along the depth of a network; they go upwards."""
PLACES = (*DEPTH, "position", "receiver", "component")
"""Axes that make a map, however few places they have."""
MOST_BARS, MOST_COLUMNS, MOST_PANELS, MOST_CURVES, FEWEST_POINTS = 24, 120, 8, 6, 4


@dataclass(frozen=True)
class Drawn:
    """A picture and what stands below it."""

    picture: Picture
    note: str


def draw(table: xarray.Dataset) -> list[Drawn]:
    """Every variable of a table that has an interval.

    Args:
        table: variables with named axes, whose ends are called ``X_low`` and ``X_high``, or ``low`` and ``high`` for
            ``effect`` and ``indirect``.

    Returns:
        pictures in the order of the variables; those with few cells that are no places in a network share one.
    """
    drawn: list[Drawn] = []
    bars: dict[str, list[Bar]] = {}
    for one in map(as_map, estimates(table)):
        if not any(True for _ in one.cells()):
            continue
        if "centre" in one.value.dims and lines_fit(one):
            drawn.append(lines(one))
        elif set(one.value.dims) & {*PLACES} or one.value.size > MOST_BARS:
            drawn += maps(one)
        else:
            bars.setdefault(one.unit, []).extend(_bars(one, table))
    note = "Estimates with 95 % intervals; in grey the mean of matched random controls and where 95 % of them lie."
    for unit, some in bars.items():
        text = note if any(bar.kind == "control" for bar in some) else note.partition(";")[0] + "."
        drawn.append(Drawn(intervals(some, unit, "Estimates with their intervals"), text))
    return [*drawn, *losses(table)]


def as_map(one: Estimates) -> Estimates:
    """Components as layer by head or unit, where each has a place of its own there."""
    if one.value.dims != ("component",) or not {"layer", "kind", "index"} <= set(one.value.coords):
        return one
    layers, kinds, index = (one.value[name].to_numpy().tolist() for name in ("layer", "kind", "index"))
    places = list(zip(layers, kinds, index, strict=True))
    if len(set(places)) < len(places) or min(layers) < 0 or "set" in kinds:
        return one
    names = {place: _part(*place[1:]) for place in places}
    columns = list(dict.fromkeys(names[p] for p in sorted(places, key=lambda p: (kinds.index(p[1]), p[2]))))
    rows = list(range(max(layers) + 1))

    def spread(array: xarray.DataArray) -> xarray.DataArray:
        import xarray

        out = np.full((len(rows), len(columns)), np.nan)
        for place, value in zip(places, array.to_numpy().tolist(), strict=True):
            out[place[0], columns.index(names[place])] = value
        return xarray.DataArray(out, {"layer": rows, "part": columns}, ("layer", "part"), name=array.name)

    beside = {name: spread(x) for name, x in one.beside.items()}
    p = None if one.p is None else spread(one.p)
    return replace(one, value=spread(one.value), low=spread(one.low), high=spread(one.high), p=p, beside=beside)


def _part(kind: str, index: int) -> str:
    name = {"attn.z": "head", "mlp.out": "MLP", "attn.out": "attention"}.get(kind, kind)
    return name if index < 0 else f"{name} {index}"


def maps(one: Estimates) -> list[Drawn]:
    """Heat maps of estimates over one to three axes, several side by side in one scale where there are three."""
    rows, columns, panels = _axes(one)
    largest = float(np.nanmax(np.abs(one.value.to_numpy()))) or 1.0
    if not panels:
        return [_map(one, rows, columns, "", {}, largest)]
    names = list(itertools.product(*(labels(one.value, axis) for axis in panels)))
    places = [
        dict(zip(panels, p, strict=True)) for p in itertools.product(*(range(one.value.sizes[a]) for a in panels))
    ]
    sizes = [float(np.nanmax(np.abs(one.value.isel(p).to_numpy()), initial=-1.0)) for p in places]
    kept = sorted(sorted((i for i, s in enumerate(sizes) if s >= 0), key=lambda i: -sizes[i])[:MOST_PANELS])
    drawn = [_map(one, rows, columns, ", ".join(names[i]), places[i], largest) for i in kept]
    if len(kept) < len(places):
        left_out = f" Shown are the {len(kept)} maps with the largest values of {len(places)}."
        drawn[-1] = replace(drawn[-1], note=drawn[-1].note + left_out)
    return drawn


def _axes(one: Estimates) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Which axis goes upwards, which sideways, and which make several maps."""
    dims = list(map(str, one.value.dims))
    if not dims:
        return None, None, ()
    rows = next((d for d in dims if d in DEPTH), dims[0] if len(dims) > 1 else None)
    rest = [d for d in dims if d != rows]
    columns = max(rest, key=lambda d: one.value.sizes[d]) if rest else None
    return rows, columns, tuple(d for d in rest if d != columns)


def _map(
    one: Estimates, rows: str | None, columns: str | None, panel: str, at: dict[str, int], largest: float
) -> Drawn:
    places = {axis: {c[axis] for c in one.cells() if at.items() <= c.items()} for axis in (rows, columns) if axis}
    cells = [c for c in one.cells() if at.items() <= c.items()]
    note = ""
    if columns and len(places[columns]) > MOST_COLUMNS:
        best = {column: max(abs(one.at(c)[0]) for c in cells if c[columns] == column) for column in places[columns]}
        places[columns] = set(sorted(best, key=lambda column: -best[column])[:MOST_COLUMNS])
        note = f" Shown are the {MOST_COLUMNS} of {len(best)} with the largest values."
    order = {axis: sorted(some) for axis, some in places.items()}
    named = {axis: [labels(one.value, axis)[i] for i in some] for axis, some in order.items()}
    drawn = []
    for cell in cells:
        if columns and cell[columns] not in places[columns]:
            continue
        row, column = (order[axis].index(cell[axis]) if axis else 0 for axis in (rows, columns))
        where = [named[axis][i] for axis, i in ((rows, row), (columns, column)) if axis]
        drawn.append(Cell(row, column, one.at(cell)[0], f"{', '.join(where)}: {one.said(cell)}", one.sure(cell)))
    best_cell = max(drawn, key=lambda c: abs(c.value))
    axes = " and ".join(axis for axis in (rows, columns) if axis)
    title = f"{one.title} by {axes}" + (f": {panel}" if panel else "")
    text = (
        f"{title}, {len(drawn)} cells. The largest: {best_cell.hint.partition(chr(10))[0]}."
    )  # fmt: skip
    upwards = f"; {rows}s go upwards" if rows in DEPTH and len(named.get(rows or "", ())) > 1 else ""
    picture = heat_map(
        drawn, named[rows] if rows else [one.title.lower()], named[columns] if columns else [""], one.unit, title, text,
        largest,
    )  # fmt: skip
    bold = "with p < 0.05 after correction for many comparisons" if _adjusted(one) else (
        "with p < 0.05" if one.p is not None else "whose 95 % interval leaves out 0"
    )  # fmt: skip
    return Drawn(picture, f"{title}{upwards}. Bold: {bold}. Point at a cell for its interval.{note}")


def _adjusted(one: Estimates) -> bool:
    return one.p is not None and one.p.name == "q"


def lines_fit(one: Estimates) -> bool:
    """Whether the estimates over windows of layers are better drawn as lines."""
    others = math.prod(size for dim, size in one.value.sizes.items() if dim != "centre")
    return one.value.sizes["centre"] >= FEWEST_POINTS and others <= MOST_CURVES


def lines(one: Estimates) -> Drawn:
    """Estimates over windows of layers, one line for each of the other places."""
    others = [str(d) for d in one.value.dims if d != "centre"]
    x = one.value["centre"].to_numpy().astype(float).tolist()
    found = []
    for place in itertools.product(*(range(one.value.sizes[d]) for d in others)):
        at = dict(zip(others, place, strict=True))
        name = ", ".join(labels(one.value, d)[i] for d, i in at.items()) or one.title
        ends = [one.at({**at, "centre": i}) for i in range(len(x))]
        value, low, high = (list(values) for values in zip(*ends, strict=True))
        found.append(Curve(name, x, value, low, high))
    title = f"{one.title} by the middle of the window of layers"
    return Drawn(curves(found, "layer", one.unit, title), f"{title}; bands are 95 % intervals.")


def losses(table: xarray.Dataset) -> list[Drawn]:
    """Losses over steps of training, where the table has any."""
    if "loss" not in table or "step" not in table["loss"].dims:
        return []
    loss = table["loss"]
    if loss.ndim > 2:
        return []
    series = loss if loss.ndim == 2 else loss.expand_dims("training")
    first = str(next(d for d in series.dims if d != "step"))
    names = labels(series, first)
    if first == "training" and first not in series.coords:
        names = ["loss", *(f"shuffled pairs {i}" for i in range(1, len(names)))]
    rows = series.transpose(first, "step").to_numpy()[:MOST_CURVES]
    found = [
        Curve(name, list(map(float, range(len(y)))), y.tolist())
        for name, y in zip(names[: len(rows)], rows, strict=True)
    ]
    return [
        Drawn(curves(found, "step", "loss (nats)", "Loss while learning"), "Loss while learning, on find examples.")
    ]


def _bars(one: Estimates, table: xarray.Dataset) -> list[Bar]:
    """One bar for each cell, and one below it for its matched controls where the table has them over the same axes."""
    counted = next((table.sizes[d] for d in ("held_out_example", "example") if d in table.sizes), 1)
    controls = table.get("control_effect") if one.name in ("effect", "recovered") else None
    bars = []
    for cell in one.cells():
        value, low, high = one.at(cell)
        where = ", ".join(labels(one.value, axis)[i] for axis, i in cell.items())
        name = f"{one.title.lower()}: {where}" if where and one.name != "effect" else where or one.title.lower()
        estimate = Estimate(value=value, low=min(low, value), high=max(high, value), n=counted)
        bars.append(Bar(name, estimate, "found" if not cell or one.name == "effect" else "plain"))
        if controls is not None and cell and set(controls.dims) == {*cell, "control"}:
            some = controls.isel(cell).to_numpy().astype(float)
            some = some[np.isfinite(some)]
            if len(some):
                low, high = np.quantile(some, (0.025, 0.975)).tolist()
                control = Control(name="controls", value=float(some.mean()), low=low, high=high, n=len(some))
                bars.append(Bar(f"controls of {where}", control, "control"))
    return bars


def sweep_map(table: xarray.DataArray) -> Picture:
    """The mean change of every cell of a sweep, as a heat map whose hints give the interval.

    Args:
        table: what `openwork.sweep` returned. A third axis stands beside the second.

    Raises:
        BadInput: if the table has no effects, as after arithmetic on it.
    """
    if not {"effect", "low", "high"} <= set(table.coords):
        raise BadInput(
            "expected the table of openwork.sweep, with the coordinates effect, low and high; got "
            f"{sorted(map(str, table.coords))}"
        )
    flat = table.reset_coords(["effect", "low", "high", *({"p"} & set(table.coords))])
    flat.attrs["unit"] = table.attrs.get("unit", "")
    one = next(e for e in estimates(flat.drop_vars(str(table.name), errors="ignore")) if e.name == "effect")
    rows, columns, panels = _axes(one)
    if panels:
        assert columns is not None
        one = _beside(one, columns, panels[0])
        columns = f"{panels[0]}, {columns}"
    largest = float(np.nanmax(np.abs(one.value.to_numpy()))) or 1.0
    return _map(one, rows, columns, "", {}, largest).picture


def _beside(one: Estimates, columns: str, panel: str) -> Estimates:
    """Two axes as one."""
    names = [", ".join(p) for p in itertools.product(labels(one.value, panel), labels(one.value, columns))]
    axis = f"{panel}, {columns}"

    def joined(array: xarray.DataArray) -> xarray.DataArray:
        import xarray

        rest = [d for d in array.dims if d not in (panel, columns)]
        values = array.transpose(*rest, panel, columns).to_numpy()
        values = values.reshape(*values.shape[: len(rest)], -1)
        kept = {str(d): array[d].to_numpy() for d in rest}
        return xarray.DataArray(values, {**kept, axis: names}, (*rest, axis), name=array.name)

    p = None if one.p is None else joined(one.p)
    return replace(one, value=joined(one.value), low=joined(one.low), high=joined(one.high), p=p, beside={})


def rows_of(table: xarray.Dataset, most: int = 200) -> list[tuple[str, str, str, str, str]]:
    """All estimates as rows: variable, place, estimate with its unit, interval, p; the largest `most` of each."""
    out: list[tuple[str, str, str, str, str]] = []
    for one in estimates(table):
        cells: Sequence[dict[str, int]] = sorted(one.cells(), key=lambda c: -abs(one.at(c)[0]))[:most]
        for cell in cells:
            value, low, high = one.at(cell)
            where = ", ".join(labels(one.value, axis)[i] for axis, i in cell.items())
            p = "" if one.p is None else f"{one.p.name} = {float(one.p.isel(cell)):.2g}"
            ends = f"{number(low)} to {number(high)}"
            out.append((one.title.lower(), where, f"{number(value)} {one.unit}", ends, p))
    return out
