"""Pictures of representations: layers with their phases, matched features, spectra, drift, places by label."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from openwork.reports.curves import Curve, curves
from openwork.reports.estimates import labels, short
from openwork.reports.heatmap import SLANTED
from openwork.reports.labelled import MOST_BARS, MOST_CURVES, Drawn
from openwork.reports.scatter import scatter
from openwork.reports.svg import Canvas, Picture
from openwork.reports.words import number

if TYPE_CHECKING:
    import xarray

MOST_FEATURES = 64
SIZE, LEFT = 560, 90


def representations(table: xarray.Dataset) -> tuple[list[Drawn], xarray.Dataset]:
    """Every picture of this kind that a table has data for, and the table without what they show."""
    drawn: list[Drawn] = []
    for needed, shown, picture in PICTURES:
        if needed <= set(map(str, table.data_vars)) and (found := picture(table)):
            drawn += found
            table = table.drop_vars([name for name in table.data_vars if str(name).startswith(shown)])
    return drawn, table


def _phases(table: xarray.Dataset) -> list[Drawn]:
    phase, values = table["phase"].to_numpy(), table["distance"].to_numpy()
    names = [short(str(s)) for s in table["site"].to_numpy()]
    stable = table["stability"].to_numpy()
    frames = [(np.flatnonzero(phase == k), np.flatnonzero(phase == k)) for k in np.unique(phase)]
    hints = [
        [f"{a} and {b}: {number(values[i, j])}" for j, b in enumerate(names)] for i, a in enumerate(names)
    ]  # fmt: skip
    count = len(frames)
    title = f"Cosine distance between layers; {count} phase{'s' * (count > 1)}"
    picture = _matrix(values, names, names, hints, frames, title)
    holds = ", ".join(f"{names[i]} {stable[i]:.0%}" for i in range(1, len(names)) if phase[i] != phase[i - 1])
    note = f"{title}. Frames: the phases, cut on find texts; the darker, the farther apart."
    note += f" A phase begins there in so many of the resampled texts: {holds}." if holds else ""
    return [Drawn(picture, note)]


def _matches(table: xarray.Dataset) -> list[Drawn]:
    values = table["alike"].to_numpy()
    if max(values.shape) > MOST_FEATURES:
        return []
    mine, theirs = ([str(n) for n in table[axis].to_numpy()] for axis in ("feature", "other_feature"))
    partner = [str(n) for n in table["counterpart"].to_numpy()]
    universal = table["universal"].to_numpy()
    marked = [(i, theirs.index(name)) for i, name in enumerate(partner) if name and universal[i]]
    hints = [[f"{short(a)} and {short(b)}: {number(values[i, j])}" for j, b in enumerate(theirs)]
             for i, a in enumerate(mine)]  # fmt: skip
    title = f"How alike features of {table.attrs.get('network')} (upwards) and {table.attrs.get('other')} are"
    frames = [(np.array([i]), np.array([j])) for i, j in marked]
    picture = _matrix(values, [short(n) for n in mine], [short(n) for n in theirs], hints, frames, title)
    return [Drawn(picture, f"{title}, on held-out texts. Frames: matched on find texts, and above the control.")]


def _ranked(table: xarray.Dataset) -> list[Drawn]:
    """Of many features: how alike each is to its counterpart, the most alike first, beside those of the control."""
    if table.sizes["feature"] <= MOST_BARS:
        return []
    sites = np.array([str(name).partition("[")[0] for name in table["feature"].to_numpy()])
    if len(set(sites)) > MOST_CURVES - 2:
        sites[:] = "features"
    found = []
    for site in dict.fromkeys(sites.tolist()):
        found.append(_falling(short(site), table["likeness"][sites == site]))
    found.append(_falling("best of the copies with shuffled weights", table["control_likeness"]))
    found.append(Curve("universal above this", [0.0, 100.0], [float(table.attrs["threshold"])] * 2))
    title = f"How alike features of {table.attrs.get('network')} and their counterparts are, the most alike first"
    picture = curves([one for one in found if one.x], "share of features (%)", "likeness", title)
    return [Drawn(picture, f"{title}, on held-out examples.")]


def _falling(name: str, values: xarray.DataArray) -> Curve:
    found = np.sort(values.dropna("feature").to_numpy())[::-1].tolist()
    return Curve(name, [100 * (i + 0.5) / len(found) for i in range(len(found))], found)


def _matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], hints: Sequence[Sequence[str]],
    frames: Sequence[tuple[np.ndarray, np.ndarray]], title: str,
) -> Picture:  # fmt: skip
    """Cells shaded by value, the first row at the bottom, with a frame around each run of cells of a set."""
    cell = SIZE / max(*values.shape, 8)
    height, width = cell * len(rows), cell * len(columns)
    largest = float(np.nanmax(np.abs(values))) or 1.0
    text = f"{title}; values from {number(float(values.min()))} to {number(float(values.max()))}"
    canvas = Canvas(LEFT + width + 60, height + 86, title, text)
    for i in range(len(rows)):
        for j in range(len(columns)):
            x, y = LEFT + cell * j, 4 + height - cell * (i + 1)
            place = {"x": x + 0.5, "y": y + 0.5, "width": cell - 1, "height": cell - 1}
            canvas.add("rect", **place, class_="cell")
            share = abs(float(values[i, j])) / largest
            kind = "plus" if values[i, j] >= 0 else "minus"
            canvas.add("rect", hint=hints[i][j], **place, class_=kind, fill_opacity=round(share, 3))
            if cell >= 34:
                strong = " strong" if share > 0.55 else ""
                canvas.text_at(
                    x + cell / 2, y + cell / 2 + 4, f"{values[i, j]:.2f}".replace("-", "−"), f"value{strong}"
                )
    for along, across in frames:
        for a in _runs(along):
            for b in _runs(across):
                canvas.add(
                    "rect", x=LEFT + cell * b[0], y=4 + height - cell * (a[-1] + 1), width=cell * len(b),
                    height=cell * len(a), class_="marked", fill="none",
                )  # fmt: skip
    every, slanted = (max(1, int(np.ceil(least / cell))) for least in (14, SLANTED))
    for i, name in enumerate(rows):
        if not i % every:
            canvas.text_at(LEFT - 8, 4 + height - cell * (i + 0.5) + 4, name, "label", "end")
    for j, name in enumerate(columns):
        if not j % slanted:
            x = LEFT + cell * (j + 0.5)
            canvas.add(
                "text",
                name,
                class_="label",
                text_anchor="end",
                transform=f"translate({x:.1f},{height + 18}) rotate(-35)",
            )
    return canvas.picture()


def _runs(members: np.ndarray) -> list[np.ndarray]:
    return np.split(members, np.flatnonzero(np.diff(members) > 1) + 1)


def _drift(table: xarray.Dataset) -> list[Drawn]:
    if table.sizes["site"] > MOST_CURVES or table.sizes["stage"] < 3:
        return []
    x, across = _steps([str(name) for name in table["stage"].to_numpy()])
    sites = labels(table["cka_last"], "site")
    drawn = []
    for to in ("last", "previous", "first"):
        found = []
        for i, site in enumerate(sites):
            y, low, high = (table[f"cka_{to}{end}"].isel(site=i).to_numpy() for end in ("", "_low", "_high"))
            if to == "previous":
                y, low, high = (np.concatenate([[np.nan], values[1:]]) for values in (y, low, high))
            found.append(Curve(site, x, y.tolist(), low.tolist(), high.tolist()))
        title = f"CKA with the {to} checkpoint"
        drawn.append(Drawn(curves(found, across, "CKA", title), f"{title}; bands are 95 % jackknife intervals."))
    kinds = [name for name in ("kept", "moved", "merged", "vanished", "split", "appeared") if name in table]
    found = [Curve(name, x[1:], table[name].to_numpy()[1:].tolist()) for name in kinds]
    title = "What became of heads or units since the previous checkpoint"
    note = f"{title}: how many were kept, moved, merged with another or vanished; how many split off or appeared."
    drawn.append(Drawn(curves(found, across, "parts", title), note))
    if "own" in table and table.sizes["part"] <= MOST_FEATURES:
        drawn.append(_own(table))
    return drawn


def _own(table: xarray.Dataset) -> Drawn:
    values = 1 - table["own"].transpose("part", "stage").to_numpy()[:, 1:]
    parts = [short(part) for part in labels(table["own"], "part")]
    names = [name.partition("@")[2] or name for name in map(str, table["stage"].to_numpy()[1:])]
    hints = [
        [f"{part}, {name}: {number(values[i, j])}" for j, name in enumerate(names)] for i, part in enumerate(parts)
    ]
    title = "How much each head or unit changed since the previous checkpoint"
    return Drawn(_matrix(values, parts, names, hints, [], title), f"{title}: 1 minus its likeness to itself.")


def _steps(names: Sequence[str]) -> tuple[list[float], str]:
    """Steps of training as far as names tell them, or else the order."""
    found = [re.search(r"step-?(\d+)$", name) for name in names]
    steps = [float(match[1]) if match else np.nan for match in found]
    if np.isfinite(steps).all() and (np.diff(steps) > 0).all():
        return steps, "step"
    return list(map(float, range(len(names)))), "checkpoint, in order"


def _spectra(table: xarray.Dataset) -> list[Drawn]:
    if table.sizes["site"] > MOST_CURVES:
        return []
    held = np.nancumsum(table["eigenvalue"].to_numpy(), axis=1)
    x = list(map(float, range(1, held.shape[1] + 1)))
    found = [Curve(name, x, y.tolist()) for name, y in zip(labels(table["eigenvalue"], "site"), held, strict=True)]
    title = "Share of the variance that the first directions hold"
    return [Drawn(curves(found, "number of directions", "share", title), f"{title}.")]


def _places(table: xarray.Dataset) -> list[Drawn]:
    axes = ("", "")
    if "explained" in table:
        first, second = (float(value) for value in table["explained"].to_numpy()[:2])
        axes = (f"first direction, {first:.1%} of the variance", f"second direction, {second:.1%}")
    title = f"{str(table.attrs.get('how', '')).upper()} of {table.attrs.get('site')} of {table.attrs.get('network')}"
    kinds = [str(label) for label in table["label"].to_numpy()]
    picture = scatter(table["place"].to_numpy(), kinds, table["held_out"].to_numpy().astype(bool), title, axes)
    note = f"{title}, by label. Faint: find texts, to which it was fitted; solid: held-out ones."
    note += "" if "explained" in table else " Distances between groups and their sizes mean little in UMAP."
    return [Drawn(picture, note)]


PICTURES: tuple[tuple[set[str], tuple[str, ...], Callable[[xarray.Dataset], list[Drawn]]], ...] = (
    ({"phase", "distance", "stability"}, ("distance",), _phases),
    ({"alike", "counterpart", "universal"}, ("alike",), _matches),
    ({"likeness", "control_likeness", "universal"}, ("likeness",), _ranked),
    ({"cka_first", "cka_previous", "cka_last"}, ("cka_", "own"), _drift),
    ({"eigenvalue", "effective_rank"}, ("eigenvalue",), _spectra),
    ({"place", "label", "held_out"}, ("place",), _places),
)
"""Variables that a picture needs, how the names of those that it shows begin, and how it is drawn."""
