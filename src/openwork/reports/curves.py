"""Lines with bands: what a number does over layers or steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openwork.reports.svg import Canvas, Number, Picture, Scale
from openwork.reports.words import number

WIDTH, HEIGHT, LEFT, COLOURS = 760, 230, 64, 6


@dataclass(frozen=True)
class Curve:
    """One line.

    Args:
        name: what it is.
        x: where its points lie.
        y: their values; what is not finite is left out.
        low: lower ends of their intervals, if they have any.
        high: upper ends.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def curves(found: Sequence[Curve], across: str, up: str, title: str) -> Picture:
    """Draw lines, each named in a legend below.

    Args:
        found: at least one line with at least one finite point; lines without any are left out.
        across: what x is.
        up: what y is.
        title: what it shows.
    """
    found = [curve for curve in found if np.isfinite(curve.y).any()]
    points = [value for curve in found for value in (*curve.y, *curve.low, *curve.high) if np.isfinite(value)]
    xs = [value for curve in found for value in curve.x]
    low, high = min(xs), max(xs)
    x = Scale(low, high if high > low else low + 1, LEFT, WIDTH - 24)
    y = Scale.around(points, HEIGHT - 34, 24)
    canvas = Canvas(WIDTH, HEIGHT + 12 + 20 * len(found), title, _in_words(found))
    for tick in y.ticks(5):
        canvas.line(LEFT, y(tick), WIDTH - 24, y(tick), "zero")
        canvas.text_at(LEFT - 8, y(tick) + 4, f"{tick:g}".replace("-", "−"), "label", "end")
    canvas.text_at(LEFT - 8, 12, up, "label", "start")
    whole = all(value == int(value) for value in xs)
    for tick in x.ticks(8):
        if low <= tick <= high and (tick == int(tick) or not whole):
            canvas.text_at(x(tick), HEIGHT - 16, f"{tick:g}", "label")
    canvas.text_at((LEFT + WIDTH) / 2, HEIGHT + 2, across, "label")
    for place, curve in enumerate(found):
        kind = f"curve{place % COLOURS}"
        here = [i for i, value in enumerate(curve.y) if np.isfinite(value)]
        if curve.low:
            top = [(x(curve.x[i]), y(curve.high[i])) for i in here]
            floor = [(x(curve.x[i]), y(curve.low[i])) for i in reversed(here)]
            canvas.add("polygon", points=_joined([*top, *floor]), class_=f"{kind} curve-band")
        canvas.add("polyline", points=_joined([(x(curve.x[i]), y(curve.y[i])) for i in here]), class_=f"{kind} curve")
        for i in here if curve.low else ():
            hint = f"{curve.name}, {across} {curve.x[i]:g}: {number(curve.y[i])}"
            hint += f" ({number(curve.low[i])} to {number(curve.high[i])})"
            canvas.add("circle", hint=hint, cx=x(curve.x[i]), cy=y(curve.y[i]), r=4, class_=f"{kind} curve-dot")
        line = HEIGHT + 22 + 20 * place
        canvas.add("polyline", points=_joined([(LEFT, line - 4), (LEFT + 28, line - 4)]), class_=f"{kind} curve")
        canvas.text_at(LEFT + 38, line, curve.name, "label", "start")
    return canvas.picture()


def _joined(points: Sequence[tuple[Number, Number]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _in_words(found: Sequence[Curve]) -> str:
    def one(curve: Curve) -> str:
        y = np.asarray(curve.y, dtype=float)
        best = int(np.nanargmax(np.abs(y)))
        return f"{curve.name}: from {number(float(y[0]))} to {number(float(y[-1]))}, farthest from 0 at " + (
            f"{curve.x[best]:g} with {number(float(y[best]))}"
        )

    return "; ".join(map(one, found))
