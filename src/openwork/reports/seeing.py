"""Pictures of circuits in vision: graphs of classes, maps of places, the categories of layers, unions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.reports.estimates import short
from openwork.reports.evidence import Bar, intervals
from openwork.reports.heatmap import Cell, heat_map
from openwork.reports.kernels import kernel_pictures
from openwork.reports.labelled import Drawn
from openwork.reports.svg import Canvas, Picture
from openwork.reports.words import number
from openwork.studies.schema import Estimate

if TYPE_CHECKING:
    import xarray

BOX, HIGH, GAP_X, GAP_Y, SIDE = 86, 30, 22, 74, 190
MOST_BARS = 16


def circuit_pictures(table: xarray.Dataset) -> list[Drawn]:
    """Every picture of this kind that a table has data for; empty for tables of other methods."""
    names = {*map(str, table.data_vars)}
    drawn = kernel_pictures(table)
    if "node_effect" in names and "class_name" in table.attrs:
        drawn.append(class_picture(table))
    if {"place_effect", "channel_place_effect", "differs"} <= names:
        drawn += place_maps(table)
    if {"share", "contains"} <= names:
        drawn += hierarchy_pictures(table)
    if {"least", "weight", "q"} <= names and "set" in table.dims:
        drawn += union_pictures(table)
    if {"answer", "detects", "weight"} <= names and "reader" in table.dims:
        drawn += shared_pictures(table)
    return drawn


def class_picture(table: xarray.Dataset) -> Drawn:
    """The graph of a class: early channels at the bottom, the class at the top."""
    nodes = [
        (str(n), int(level), float(v))
        for n, level, v, kept in zip(
            *(table[k].to_numpy() for k in ("node", "node_level", "node_effect", "node_kept")), strict=True
        )
        if kept
    ]
    edges = []
    if "edge" in table.dims:
        columns = (table[k].to_numpy() for k in ("sender", "receiver", "edge_effect", "kept"))
        edges = [(str(s), str(r), float(v)) for s, r, v, kept in zip(*columns, strict=True) if kept]
    levels = sorted({level for _, level, _ in nodes})
    rows = {level: [node for node in nodes if node[1] == level] for level in levels}
    widest = max(map(len, rows.values()), default=1)
    width = SIDE + widest * (BOX + GAP_X)
    middle = SIDE + widest * (BOX + GAP_X) / 2
    height = 20 + (len(levels) + 1) * (HIGH + GAP_Y)
    label = str(table.attrs["class_name"])
    said = ", ".join(f"{short(s)} to {short(r)} {number(v)}" for s, r, v in edges) or "no edges"
    canvas = Canvas(width, height, f"What {label} is made of", f"Edges: {said}.")
    places: dict[str, tuple[float, float]] = {}
    for row, level in enumerate(levels):
        y = height - 30 - row * (HIGH + GAP_Y)
        for i, (name, _, _) in enumerate(rows[level]):
            places[name] = (middle + (i - (len(rows[level]) - 1) / 2) * (BOX + GAP_X), y)
    top = (middle, height - 30 - len(levels) * (HIGH + GAP_Y))
    last = levels[-1] if levels else 0
    lines = [(places[s], places[r], v, f"{short(s)} → {short(r)}") for s, r, v in edges if {s, r} <= {*places}]
    lines += [(places[n], top, v, f"{short(n)} → {label}") for n, level, v in nodes if level == last]
    largest = {side: max((abs(v) for _, b, v, _ in lines if (b == top) == side), default=0.0) for side in (True, False)}
    for (x1, y1), (x2, y2), value, hint in lines:
        share = abs(value) / (largest[(x2, y2) == top] or 1.0)
        start, end = y1 - HIGH / 2, y2 + HIGH / 2
        bend = (start - end) * 0.45
        path = f"M{x1:.1f} {start:.1f}C{x1:.1f} {start - bend:.1f} {x2:.1f} {end + bend:.1f} {x2:.1f} {end:.1f}"
        kind = "edge" + (" minus-line" if value < 0 else "")
        canvas.add("path", hint=f"{hint}: {number(value)} logits", d=path, class_=kind, stroke_width=1 + 6 * share)
    for name, level, value in nodes:
        x, y = places[name]
        shape = {"x": x - BOX / 2, "y": y - HIGH / 2, "width": BOX, "height": HIGH}
        canvas.add("rect", hint=f"{name}: {number(value)} logits", **shape, rx=8, class_="node role-none")
        channel = name[name.index("[") + 1 : -1] if "[" in name else short(name)
        canvas.text_at(x, y + 5, f"{channel}  {number(value)}", "node-name")
        if name == rows[level][0][0]:
            canvas.text_at(0, y + 5, name.partition("[")[0].removeprefix("module:"), "label", "start")
    canvas.add("rect", x=top[0] - BOX / 2, y=top[1] - HIGH / 2, width=BOX, height=HIGH, rx=15, class_="end")
    canvas.text_at(top[0], top[1] + 5, label, "node-name")
    note = (
        "Channels by layer, upwards, with the loss of the class's margin when each is held at its mean over other "
        "classes. The width of an edge is the loss when its sender is held so for that receiver alone; edges against "
        "the class are in the other colour, and those into the class have a scale of their own. Point at an edge for "
        "its number."
    )
    return Drawn(canvas.picture(), note)


def place_maps(table: xarray.Dataset) -> list[Drawn]:
    """What comes back by place, with all channels and with the best one; and where the images differ."""
    best = table["top"].to_numpy().tolist()[0]
    site = short(str(table.attrs.get("site", "")))
    maps = [
        (table["differs"], "share", "Where the images of a pair differ"),
        (table["place_effect"], "logits", f"What {site} brings back, place by place"),
        (table["channel_place_effect"].isel(top=0), "logits", f"What channel {best} of {site} brings back"),
    ]
    drawn = [
        Drawn(_map(values.to_numpy(), unit, title), f"{title}; mean over find pairs.") for values, unit, title in maps
    ]
    effect, low, high = (table[f"channel_effect{end}"].to_numpy() for end in ("", "_low", "_high"))
    n = table.sizes["example"]
    order = np.argsort(-effect, kind="stable")[:MOST_BARS]
    bars = [
        Bar(
            f"channel {i}",
            Estimate(
                value=float(effect[i]), low=float(min(low[i], effect[i])), high=float(max(high[i], effect[i])), n=n
            ),
            "found",
        )
        for i in order.tolist()
    ]
    title = f"What channels of {site} bring back at all places"
    return [*drawn, Drawn(intervals(bars, "logits", title), f"{title}, the most first.")]


def hierarchy_pictures(table: xarray.Dataset) -> list[Drawn]:
    """The share of each layer's units that detect something of each category; and the tested steps."""
    share = table["share"].to_numpy()
    rows = [short(str(s)) for s in table["site"].to_numpy()]
    columns = [str(c) for c in table["category"].to_numpy()]
    cells = [
        Cell(i, j, float(100 * share[i, j]), f"{rows[i]}, {columns[j]}: {100 * share[i, j]:.0f} %", True)
        for i in range(len(rows))
        for j in range(len(columns))
    ]
    title = "What units of each layer detect"
    said = "; ".join(f"{r}: " + ", ".join(f"{c} {100 * v:.0f} %" for c, v in zip(columns, line, strict=True))
                     for r, line in zip(rows, share, strict=True))  # fmt: skip
    note = "Share of a layer's units, in per cent, that detect a concept of each category; early layers at the bottom."
    drawn = [Drawn(heat_map(cells, rows, columns, "% of units", title, f"{title}: {said}."), note)]
    if "step_effect" in table:
        effect, low, high = (table[f"step_effect{end}"].to_numpy() for end in ("", "_low", "_high"))
        order = np.argsort(-effect, kind="stable")[:MOST_BARS].tolist()
        names = [str(s).replace("module:", "") for s in table["step"].to_numpy()]
        n = table["pairs"].to_numpy().tolist()
        bars = [
            Bar(names[i], Estimate(value=float(effect[i]), low=float(low[i]), high=float(high[i]), n=n[i]), "found")
            for i in order
        ]
        title = "What detectors of what contains a concept lose more"
        note = (
            "Without the detectors of a lower concept, the loss of later detectors of what contains it minus that of "
            "detectors of what does not, on find images, with 95 % intervals."
        )
        drawn.append(Drawn(intervals(bars, "standard deviations", title), note))
    return drawn


def union_pictures(table: xarray.Dataset) -> list[Drawn]:
    """The weight of the member that counts least, by unit and set; and what each member alone brings back."""
    least, q = table["least"].to_numpy(), table["q"].to_numpy()
    units, sets = (table[axis].to_numpy().tolist() for axis in ("unit", "set"))
    rows = np.argsort(-least.max(1), kind="stable")[:24].tolist()[::-1]
    cells = [
        Cell(i, j, float(least[u, j]), f"channel {units[u]} over {sets[j]}: {number(float(least[u, j]))}, q = "
             f"{q[u, j]:.2g}", bool(q[u, j] <= 0.05))
        for i, u in enumerate(rows)
        for j in range(len(sets))
    ]  # fmt: skip
    title = "The least weight over the members of each set"
    note = f"{title}; sure where random sets of as many channels seldom have one as large."
    labels = [f"channel {units[u]}" for u in rows]
    drawn = [Drawn(heat_map(cells, labels, [str(s) for s in sets], "weight", title, title + "."), note)]
    if "alone" in table:
        values = (table[name].to_numpy() for name in ("alone", "alone_low", "alone_high", "alone_images"))
        bars = [
            Bar(
                f"claim {i + 1}, member {j + 1}",
                Estimate(value=float(v), low=float(a), high=float(b), n=int(n)),
                "found",
            )
            for i, lines in enumerate(zip(*values, strict=True))
            for j, (v, a, b, n) in enumerate(zip(*lines, strict=True))
            if np.isfinite(v)
        ]
        title = "What each member alone brings back"
        drawn.append(Drawn(intervals(bars, "standard deviations", title), f"{title}, on held-out images."))
    return drawn


def shared_pictures(table: xarray.Dataset) -> list[Drawn]:
    """Weights of the readers of the shared units."""
    if "shared_unit" not in table:
        return []
    weight = table["weight"].to_numpy()
    readers, units = (table[axis].to_numpy().tolist() for axis in ("reader", "unit"))
    chosen = list(dict.fromkeys(int(u) for u in table["shared_unit"].to_numpy()))[:12]
    rows = list(dict.fromkeys(int(r) for r in table["shared_readers"].to_numpy().ravel()))[:16]
    cells = []
    for i, r in enumerate(rows):
        for j, u in enumerate(chosen):
            value = float(weight[readers.index(r), units.index(u)])
            cells.append(Cell(i, j, value, f"channel {u} into {r}: {number(value)}", True))
    title = "What detectors weigh shared units with"
    labels, columns = [f"channel {r}" for r in rows], [f"unit {u}" for u in chosen]
    return [Drawn(heat_map(cells, labels, columns, "weight", title, title + "."), f"{title}; both signs in a column.")]


def _map(values: np.ndarray, unit: str, title: str) -> Picture:
    height, width = values.shape
    largest = float(np.abs(values).max()) or 1.0
    side = max(6.0, min(26.0, 420 / max(height, width)))
    y, x = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    text = f"{title}: the largest is {number(float(values[y, x]))} {unit} at row {y}, column {x} of {height} x {width}."
    canvas = Canvas(max(side * width + 4, 420), side * height + 40, title, text)
    for i in range(height):
        for j in range(width):
            place: dict[str, Any] = {"x": 2 + side * j, "y": 2 + side * i, "width": side - 0.5, "height": side - 0.5}
            value = float(values[i, j])
            canvas.add("rect", **place, class_="cell")
            hint = f"row {i}, column {j}: {number(value)} {unit}"
            kind = "plus" if value >= 0 else "minus"
            canvas.add("rect", hint=hint, **place, class_=kind, fill_opacity=round(abs(value) / largest, 3))
    canvas.text_at(2, side * height + 24, f"full colour: {number(largest)} {unit}", "label", "start")
    return canvas.picture()
