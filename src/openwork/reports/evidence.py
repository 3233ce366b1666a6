"""Evidence drawn: the circuit among random ones, and estimates with their intervals beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openwork.reports.svg import Canvas, Number, Picture, Scale
from openwork.reports.words import between, number
from openwork.studies.schema import Control, Estimate

WIDTH = 760


@dataclass(frozen=True)
class Bar:
    """One line of an interval plot.

    Args:
        name: what it is.
        estimate: its value and interval.
        kind: ``found`` is emphasised, ``control`` is grey, ``plain`` is neither.
    """

    name: str
    estimate: Estimate | Control
    kind: str = "plain"


def random_circuits(values: np.ndarray, found: Estimate, control: Control) -> Picture:
    """How faithful random circuits are, and where the found one stands among them.

    Args:
        values: faithfulness of each random circuit, shape (circuit,).
        found: that of the found one.
        control: the record of the same comparison.
    """
    values = np.asarray(values, dtype=float)
    scale = Scale.around([*values.tolist(), found.low, found.high, 1.0], 20, WIDTH - 20)
    counts, ends = np.histogram(values, bins=min(48, max(8, round(len(values) ** 0.5))))
    height, floor = 190, 180
    at_least = int((values >= found.value).sum())
    text = (
        f"Faithfulness of {len(values)} random circuits: mean {number(float(values.mean()))}, largest "
        f"{number(float(values.max()))}. The found circuit reaches {number(found.value)} ({between(found)}); "
        f"{at_least} random circuits reach as much."
    )
    canvas = Canvas(WIDTH, height + 56, "Faithfulness of random circuits and of the found one", text)
    for count, low, high in zip(counts, ends, ends[1:], strict=False):
        if count:
            top = floor - 130 * count / counts.max()
            hint = f"{count} circuits between {number(low)} and {number(high)}"
            width = max(1.0, scale(high) - scale(low) - 1)
            canvas.add("rect", hint=hint, x=scale(low) + 0.5, y=top, width=width, height=floor - top, class_="bin")
    _axis(canvas, scale, floor, "faithfulness (1 = the whole network)")
    canvas.add("rect", x=scale(found.low), y=34, width=max(2.0, scale(found.high) - scale(found.low)),
               height=floor - 34, class_="band")  # fmt: skip
    canvas.line(scale(found.value), 34, scale(found.value), floor, "found-line")
    anchor = "end" if scale(found.value) > WIDTH * 0.6 else "start"
    canvas.text_at(scale(found.value), 22, f"found circuit {number(found.value)}", "value sure", anchor)
    middle = min(max(scale(control.value), 80), WIDTH - 80)
    canvas.text_at(middle, 44, f"{len(values)} random circuits", "label")
    return canvas.picture()


def intervals(bars: Sequence[Bar], axis: str, title: str, limit: tuple[str, Number] | None = None) -> Picture:
    """Estimates with their intervals, one line each.

    Args:
        bars: the lines, top first.
        axis: what the values are.
        title: what it shows.
        limit: a value to compare with, and its name.
    """
    left, row = min(340, 24 + 7.6 * max(len(bar.name) for bar in bars)), 30
    ends = [value for bar in bars for value in (bar.estimate.low, bar.estimate.high)] + ([limit[1]] if limit else [])
    scale = Scale.around(ends, left, WIDTH - 165)
    floor = row * len(bars) + 8
    text = "; ".join(f"{bar.name}: {number(bar.estimate.value)} ({between(bar.estimate)})" for bar in bars)
    canvas = Canvas(WIDTH, floor + 50, title, text)
    canvas.line(scale(0), 4, scale(0), floor, "zero")
    if limit:
        canvas.line(scale(limit[1]), 4, scale(limit[1]), floor, "limit")
        right = scale(limit[1]) > WIDTH - 235
        canvas.text_at(scale(limit[1]) + (-5 if right else 5), 12, limit[0], "label", "end" if right else "start")
    for index, bar in enumerate(bars):
        y = row * index + 20
        e = bar.estimate
        canvas.text_at(left - 12, y + 4, bar.name, f"label {bar.kind}-text", "end")
        canvas.line(scale(e.low), y, scale(e.high), y, f"whisker {bar.kind}")
        canvas.add("circle", hint=f"{bar.name}: {number(e.value)} ({between(e)}), n = {e.n}", cx=scale(e.value), cy=y,
                   r=5 if bar.kind == "found" else 4, class_=f"dot {bar.kind}")  # fmt: skip
        canvas.text_at(WIDTH - 155, y + 4, f"{number(e.value)} ({between(e)})", "label", "start")
    _axis(canvas, scale, floor, axis)
    return canvas.picture()


def _axis(canvas: Canvas, scale: Scale, y: Number, name: str) -> None:
    canvas.line(scale.start, y, scale.end, y)
    for tick in scale.ticks():
        canvas.line(scale(tick), y, scale(tick), y + 5)
        canvas.text_at(scale(tick), y + 20, f"{tick:g}".replace("-", "−"), "label")
    canvas.text_at((scale.start + scale.end) / 2, y + 40, name, "label")
