"""Effects as heat maps: the residual stream by layer and position, components by layer and head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from openwork.reports.svg import Canvas, Number, Picture
from openwork.reports.words import between, component, number
from openwork.studies.schema import Effect, Effects, PositionEffect

CELL_HEIGHT, LEFT, TOP, LEGEND, LEGEND_WIDTH = 34, 64, 8, 46, 330
SLANTED, UPRIGHT = 22, 26
"""How far apart the names of columns must stand, slanted by 35 degrees and not."""


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map.

    Args:
        row: counted from the bottom.
        column: counted from the left.
        value: what colours it.
        hint: what a pointer resting on it shows.
        sure: whether it differs significantly from its control.
        marked: whether it gets a frame.
    """

    row: int
    column: int
    value: Number
    hint: str
    sure: bool
    marked: bool = False


def residual_map(effects: Effects, method: str, unit: str) -> Picture:
    """The effect of the residual stream before each block at each position; the last row is after the last block."""
    chosen = [e for e in effects.residual if e.method == method]
    last = max(effects.layers)
    cells = [
        Cell(e.layer, effects.positions.index(e.position), e.effect.value, _hint(e, unit), e.significant)
        for e in chosen
    ]
    rows = [f"layer {layer}" if layer < last else "end" for layer in effects.layers]
    best = max(chosen, key=lambda e: abs(e.effect.value))
    text = (
        f"Effect of the residual stream by {method}, {len(rows)} layers by {len(effects.positions)} positions. "
        f"The largest is {number(best.effect.value)} {unit} at {best.position}, layer {best.layer}."
    )
    return heat_map(cells, rows, effects.positions, unit, f"Effect by layer and position: {method}", text)


def component_map(effects: Effects, method: str, circuit: Sequence[str], unit: str) -> Picture:
    """The effect of every head and MLP under one method; members of the circuit have a frame."""
    chosen = [e for e in effects.components if e.method == method]
    heads = max((e.index + 1 for e in chosen if e.index is not None), default=0)
    layers = max(e.layer for e in chosen) + 1
    cells = [
        Cell(e.layer, heads if e.index is None else e.index, e.effect.value, _hint(e, unit), e.significant,
             e.site in circuit)
        for e in chosen
    ]  # fmt: skip
    columns = [f"head {h}" for h in range(heads)] + (["MLP"] if any(e.kind == "mlp" for e in chosen) else [])
    best = max(chosen, key=lambda e: abs(e.effect.value))
    text = (
        f"Effect of each component by {method}, {layers} layers by {len(columns)} components. "
        f"The largest is {number(best.effect.value)} {unit} at {component(best.site)}."
    )
    return heat_map(
        cells, [f"layer {b}" for b in range(layers)], columns, unit, f"Effect of each component: {method}", text
    )


def heat_map(
    cells: Sequence[Cell],
    rows: Sequence[str],
    columns: Sequence[str],
    unit: str,
    title: str,
    text: str,
    largest: Number | None = None,
) -> Picture:
    """Draw cells, the first row at the bottom, with the value in each where there is room.

    Args:
        cells: what to draw.
        rows: names of the rows, bottom first.
        columns: names of the columns.
        unit: of the values.
        title: what it shows.
        text: the same in words.
        largest: the value of full colour, for maps that are to be compared; the largest of this one unless given.
    """
    width = min(96.0, max(8.0, 760 / max(1, len(columns))))
    longest = max((len(name) for name in columns), default=0)
    slanted = longest * 6.5 > max(width, UPRIGHT)
    every = math.ceil((SLANTED if slanted else UPRIGHT) / width)
    bottom = TOP + CELL_HEIGHT * len(rows)
    foot = (14 + 4.2 * longest) if slanted else 22
    # a slanted name ends below its column and begins far to the left of it
    left = max(LEFT, 14 + 6.6 * max(map(len, rows), default=0), (6.2 * longest - width / 2) if slanted else 0)
    canvas = Canvas(left + max(width * len(columns), LEGEND_WIDTH) + 60, bottom + foot + LEGEND, title, text)
    largest = largest or max((abs(cell.value) for cell in cells), default=0.0) or 1.0
    for cell in cells:
        x, y = left + width * cell.column, bottom - CELL_HEIGHT * (cell.row + 1)
        share = abs(cell.value) / largest
        place = {"x": x + 1, "y": y + 1, "width": width - (2 if width > 16 else 1), "height": CELL_HEIGHT - 2, "rx": 3}
        canvas.add("rect", **place, class_="cell")
        sign = "plus" if cell.value >= 0 else "minus"
        frame = " marked" if cell.marked else ""
        canvas.add("rect", hint=cell.hint, **place, class_=f"{sign}{frame}", fill_opacity=round(share, 3))
        if width >= 38:
            kind = "value" + (" strong" if share > 0.55 else "") + (" sure" if cell.sure else " unsure")
            canvas.text_at(x + width / 2, y + CELL_HEIGHT / 2 + 4, number(round(cell.value, 2)), kind)
    for row, name in enumerate(rows):
        canvas.text_at(left - 8, bottom - CELL_HEIGHT * (row + 0.5) + 4, name, "label", "end")
    for column, name in enumerate(columns):
        if column % every:
            continue
        x, y = left + width * (column + 0.5), bottom + 16
        if slanted:
            canvas.add("text", name, class_="label", text_anchor="end", transform=f"translate({x:.1f},{y}) rotate(-35)")
        else:
            canvas.text_at(x, y, name, "label")
    _legend(canvas, left, bottom + foot + 14, largest, unit)
    return canvas.picture()


def _legend(canvas: Canvas, left: Number, y: Number, largest: Number, unit: str) -> None:
    steps, width = 12, 14
    for step in range(-steps, steps + 1):
        x = left + width * (step + steps) * 0.7
        share = round(abs(step) / steps, 3)
        canvas.add("rect", x=x, y=y, width=width * 0.7, height=10, class_="cell")
        canvas.add("rect", x=x, y=y, width=width * 0.7, height=10, class_="plus" if step >= 0 else "minus",
                   fill_opacity=share)  # fmt: skip
    end = left + width * 0.7 * (2 * steps + 1)
    canvas.text_at(left - 8, y + 9, number(-largest), "label", "end")
    canvas.text_at(end + 8, y + 9, f"{number(largest)} {unit}", "label", "start")


def _hint(effect: Effect | PositionEffect, unit: str) -> str:
    where = component(effect.site) if isinstance(effect, Effect) else f"layer {effect.layer}, {effect.position}"
    lines = [
        f"{where}: {number(effect.effect.value)} {unit} ({between(effect.effect)}), q = {effect.q_value:.2g}",
        *(f"{c.name}: {number(c.value)} ({between(c)})" for c in effect.controls),
    ]
    return "\n".join(lines)
