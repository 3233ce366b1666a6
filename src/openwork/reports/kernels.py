"""Kernels between channels drawn as they lie: excitation and inhibition, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from openwork.reports.estimates import short
from openwork.reports.labelled import Drawn
from openwork.reports.svg import Canvas
from openwork.reports.words import number

if TYPE_CHECKING:
    import xarray

TILE, GAP, LEFT, TOP, LINE = 76, 10, 170, 24, 18
MOST_ROWS, MOST_TILES, MOST_CELLS = 10, 7, 8000


def kernel_pictures(table: xarray.Dataset) -> list[Drawn]:
    """Every picture of this kind that a table has data for."""
    names = {*map(str, table.data_vars)}
    if "kernel" not in names:
        return []
    if {"family", "angle", "mirrored"} <= names:
        return family_tiles(table)
    if {"excitation", "inhibition", "strength"} <= names:
        return [weight_tiles(table)]
    return []


def weight_tiles(table: xarray.Dataset) -> Drawn:
    """For each of the strongest out units, the in units that it reads most."""
    kernel, strength = table["kernel"].to_numpy(), table["strength"].to_numpy()
    outs, ins = (table[axis].to_numpy().tolist() for axis in ("out_unit", "in_unit"))
    plus, minus = (table[name].to_numpy().tolist() for name in ("excitation", "inhibition"))
    rows = np.argsort(-strength.max(1), kind="stable")[: _rows(kernel)]
    tiles = []
    for o in rows.tolist():
        order = np.argsort(-strength[o], kind="stable")[:MOST_TILES]
        tiles.append([(kernel[o, i], f"{ins[i]}", _hint(outs[o], ins[i], plus[o][i], minus[o][i])) for i in order])
    sender, receiver = (short(str(table.attrs[key])) for key in ("sender", "receiver"))
    title = f"Kernels from {sender} to {receiver}"
    text = "; ".join(
        f"{outs[o]} reads {', '.join(one[1] for one in row[:3])} most" for o, row in zip(rows, tiles, strict=True)
    )
    note = (
        f"Each row is a channel of {receiver}, each tile the weights from a channel of {sender}, strongest first: in "
        "one colour where it excites, in the other where it inhibits; full colour is the row's largest weight. Point "
        "at a tile for its sums."
    )
    return Drawn(_drawn([f"channel {outs[o]}" for o in rows], tiles, title, f"{title}: {text}."), note)


def family_tiles(table: xarray.Dataset) -> list[Drawn]:
    """The members of each family, one below the other, by channel of what they read."""
    kernel, family = table["kernel"].to_numpy(), table["family"].to_numpy()
    units, ins = (table[axis].to_numpy().tolist() for axis in ("unit", "in_unit"))
    names = ["red", "green", "blue"] if len(ins) == 3 and str(table.attrs.get("sender", "")).endswith(".in") else ins
    drawn = []
    for which in range(min(3, int(family.max(initial=-1)) + 1)):
        members = np.flatnonzero(family == which)
        order = members[np.lexsort((table["angle"].to_numpy()[members], table["mirrored"].to_numpy()[members]))]
        labels, tiles = [], []
        for unit in order[: _rows(kernel)].tolist():
            mirrored = " mirrored" if bool(table["mirrored"].to_numpy()[unit]) else ""
            labels.append(f"{units[unit]}: {float(table['angle'].to_numpy()[unit]):g}°{mirrored}")
            size = np.linalg.norm(kernel[unit].reshape(len(ins), -1), axis=1)
            most = np.sort(np.argsort(-size, kind="stable")[:MOST_TILES])
            tiles.append([(kernel[unit, i], str(names[i]), f"channel {units[unit]}, {names[i]}") for i in most])
        title = f"Family {which + 1} of {short(str(table.attrs['site']))}"
        note = (
            "Kernels of its members, turned by the angle that is said, counter-clockwise, against the first: in "
            "one colour where a channel of what they read excites, in the other where it inhibits."
        )
        drawn.append(Drawn(_drawn(labels, tiles, title, f"{title}: channels {', '.join(labels)}."), note))
    return drawn


Tile = tuple[Float[np.ndarray, "dy dx"], str, str]
"""Weights, what stands below them, and what a pointer shows."""


def _rows(kernel: np.ndarray) -> int:
    cells = max(1, min(MOST_TILES, kernel.shape[1]) * kernel.shape[2] * kernel.shape[3])
    return max(1, min(MOST_ROWS, MOST_CELLS // cells))


def _hint(out: int, source: int, plus: float, minus: float) -> str:
    return f"{source} into {out}: excitation {number(float(plus))}, inhibition {number(float(minus))}"


def _drawn(labels: Sequence[str], tiles: Sequence[Sequence[Tile]], title: str, text: str):
    widest = max(map(len, tiles))
    height = TILE + LINE + GAP
    canvas = Canvas(LEFT + widest * (TILE + GAP), TOP + height * len(tiles), title, text)
    for row, (label, some) in enumerate(zip(labels, tiles, strict=True)):
        y = TOP + row * height
        canvas.text_at(LEFT - 12, y + TILE / 2 + 4, label, "label", "end")
        largest = max(float(np.abs(weights).max()) for weights, _, _ in some) or 1.0
        for column, (weights, below, hint) in enumerate(some):
            x = LEFT + column * (TILE + GAP)
            canvas.add("rect", hint=hint, x=x, y=y, width=TILE, height=TILE, class_="cell")
            side = TILE / max(weights.shape)
            dy, dx = ((TILE - side * n) / 2 for n in weights.shape)
            for i, j in np.argwhere(np.abs(weights) > 0.02 * largest).tolist():
                value = float(weights[i, j])
                canvas.add(
                    "rect", x=round(x + dx + side * j, 2), y=round(y + dy + side * i, 2), width=round(side, 2),
                    height=round(side, 2), class_="plus" if value > 0 else "minus",
                    fill_opacity=round(abs(value) / largest, 2), pointer_events="none",
                )  # fmt: skip
            canvas.text_at(x + TILE / 2, y + TILE + 13, below, "label")
    return canvas.picture()
