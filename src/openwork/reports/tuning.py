"""Pictures of tuning curves: round where the feature is an angle, lines where it is not, and gains beside controls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from openwork.reports.curves import Curve, curves
from openwork.reports.evidence import Bar, intervals
from openwork.reports.labelled import Drawn
from openwork.reports.svg import Canvas
from openwork.reports.words import number
from openwork.studies.schema import Control, Estimate

if TYPE_CHECKING:
    import xarray

PANEL, RADIUS, COLUMNS, MOST, ROOM = 190, 66, 4, 24, 66
HUE_STEPS = 72
FAINT = 0.2
"""Of a unit's response to noise: curves that rise by less are drawn as small as they are."""


def tuning_pictures(table: xarray.Dataset) -> tuple[list[Drawn], xarray.Dataset]:
    """Every picture of this kind that a table has data for, and the table without what they show."""
    if not {"response", "response_band", "untrained_gain"} <= {*map(str, table.data_vars)}:
        return [], table
    drawn = [radial(table) if table.attrs["period"] else lines(table), gain_bars(table)]
    return drawn, table.drop_vars([f"{name}_{end}" for name in ("preference", "half_width") for end in ("low", "high")])


def radial(table: xarray.Dataset) -> Drawn:
    """Responses around a circle, one circle a unit, from its least response in the middle to its largest.

    A feature that is the same after half a turn, such as the orientation of a line, is drawn on both sides.
    """
    units, order = table["unit"].to_numpy().tolist(), _order(table)
    period, feature = float(table.attrs["period"]), str(table.attrs["feature"])
    rows = -(-len(order) // COLUMNS)
    title = f"Responses by {feature} of {table.attrs['shape']}s"
    said = "; ".join(_said(table.isel(unit=i), units[i]) for i in order)
    canvas = Canvas(COLUMNS * PANEL, rows * (PANEL + ROOM), title, said)
    for number_, i in enumerate(order):
        row, column = divmod(number_, COLUMNS)
        middle = (column * PANEL + PANEL / 2, row * (PANEL + ROOM) + PANEL / 2 + 8)
        _circle(canvas, table.isel(unit=i), units[i], middle, period, feature == "hue")
    note = (
        f"{title}, held-out trials, each from the unit's least response at the centre to its largest at the rim; the "
        "band is the 95 % interval over trials. Angles are counter-clockwise from the right, as in the image. The line "
        "points to the preference."
    )
    if len(order) < len(units):
        note += f" Shown are the {len(order)} of {len(units)} units with the largest gains."
    return Drawn(canvas.picture(), note)


def lines(table: xarray.Dataset) -> Drawn:
    """Responses over a feature that is not circular, as shares of each unit's largest."""
    units, order = table["unit"].to_numpy().tolist(), _order(table)[:6]
    x = table["stimulus"].to_numpy().astype(float)
    across = f"{table.attrs['feature']} ({table.attrs['unit']})"
    # frequencies and curvatures are small fractions: ticks stand at whole numbers
    factor = 10.0 ** max(0, math.ceil(-math.log10(max(float(np.abs(x).max()), 1e-12))) + 1) if x.max() < 5 else 1.0
    found = []
    for i in order:
        parts = (table["response"][i], *(table["response_band"][i, end] for end in (0, 1)))
        mean, low, high = (part.to_numpy().astype(float) for part in parts)
        floor, span = mean.min(), max(mean.max() - mean.min(), FAINT * float(table["noise"][i]), 1e-12)
        found.append(
            Curve(units[i], (factor * x).tolist(), *(((y - floor) / span).tolist() for y in (mean, low, high)))
        )
    title = f"Responses by {table.attrs['feature']} of {table.attrs['shape']}s"
    if factor != 1:
        across += f" × {factor:g}"
    note = (
        f"{title}, held-out trials, from the least of each unit (0) to its largest (1); bands are 95 % intervals over "
        "trials."
    )
    return Drawn(curves(found, across, "response", title), note)


def gain_bars(table: xarray.Dataset) -> Drawn:
    """The gain of each unit at its preference beside that of channels that have learned nothing."""
    units, bars = table["unit"].to_numpy().tolist(), []
    for i in _order(table)[:12]:
        gain = table["gain"][i].to_numpy().astype(float)
        mean, error = float(gain.mean()), 1.96 * float(gain.std(ddof=1)) / math.sqrt(len(gain))
        bars.append(Bar(units[i], Estimate(value=mean, low=mean - error, high=mean + error, n=len(gain)), "found"))
        control = table["untrained_gain"][i].to_numpy().astype(float)
        low, high = np.quantile(control, (0.025, 0.975)).tolist()
        stated = Control(name="controls", value=float(control.mean()), low=low, high=high, n=len(control))
        bars.append(Bar("random weights", stated, "control"))
    title = "Gain at the preference"
    note = (
        "How far held-out responses rise at the value that find trials prefer, in standard deviations of the unit's "
        "responses to noise; in grey the same, preference and all, of channels whose weights are in random order, and "
        "where 95 % of these lie."
    )
    return Drawn(intervals(bars, "SD of responses to noise", title), note)


def _order(table: xarray.Dataset) -> list[int]:
    gains = table["gain"].to_numpy().mean(1)
    return np.argsort(-gains, kind="stable")[:MOST].tolist()


def _circle(
    canvas: Canvas, unit: xarray.Dataset, name: str, middle: tuple[float, float], period: float, hues: bool
) -> None:
    x, y = middle
    values = unit["stimulus"].to_numpy().astype(float)
    mean = unit["response"].to_numpy().astype(float)
    low, high = (unit["response_band"].to_numpy()[end].astype(float) for end in (0, 1))
    floor, top = float(min(mean.min(), low.min())), float(max(mean.max(), high.max()))
    span = max(top - floor, FAINT * float(unit["noise"]), 1e-12)
    if hues:
        _hue_ring(canvas, x, y)
    for share in (0.5, 1.0):
        canvas.add("circle", cx=x, cy=y, r=RADIUS * share, class_="axis", fill="none")
    turns = [0.0] if period == 360 else [0.0, 180.0]
    angles = [value + turn for turn in turns for value in values]

    def around(responses: np.ndarray) -> list[tuple[float, float]]:
        out = []
        for angle, value in zip(angles, np.tile(responses, len(turns)), strict=True):
            reach = RADIUS * (float(value) - floor) / span
            out.append((x + reach * math.cos(math.radians(angle)), y - reach * math.sin(math.radians(angle))))
        return [*out, out[0]]

    canvas.add("polygon", points=_joined([*around(high), *reversed(around(low))]), class_="curve0 curve-band")
    canvas.add("polyline", points=_joined(around(mean)), class_="curve0 curve")
    for (px, py), angle, value in zip(around(mean), angles, np.tile(mean, len(turns)), strict=False):
        canvas.add("circle", hint=f"{angle:g}°: {number(float(value))}", cx=px, cy=py, r=3, class_="curve0 curve-dot")
    preference = float(unit["preference"])
    if math.isfinite(preference):
        for turn in turns:
            angle = math.radians(preference + turn)
            canvas.line(x, y, x + RADIUS * math.cos(angle), y - RADIUS * math.sin(angle), "zero")
    short = name.removeprefix("module:")
    canvas.text_at(x, y + RADIUS + 24, short if len(short) < 28 else f"…{short[-26:]}", "value sure")
    canvas.text_at(x, y + RADIUS + 42, _numbers(unit), "label")
    canvas.text_at(x, y + RADIUS + 60, f"selectivity {number(float(unit['selectivity']))}", "label")


def _hue_ring(canvas: Canvas, x: float, y: float) -> None:
    """The hues themselves, around the circle that responses to them are drawn in."""
    red, green = np.array([2.0, -1.0, -1.0]) / 6**0.5, np.array([0.0, 1.0, -1.0]) / 2**0.5
    for step in range(HUE_STEPS):
        ends = [math.radians(360 * (step + part) / HUE_STEPS) for part in (0.0, 1.05)]
        centre = sum(ends) / 2
        colour = np.clip(0.5 + 0.6 * (math.cos(centre) * red + math.sin(centre) * green), 0, 1) * 255
        points = [
            (x + reach * math.cos(angle), y - reach * math.sin(angle))
            for reach, angles in ((RADIUS + 3, ends), (RADIUS + 11, ends[::-1]))
            for angle in angles
        ]
        fill = "#" + "".join(f"{round(float(part)):02x}" for part in colour)
        canvas.add("polygon", points=_joined(points), fill=fill)


def _numbers(unit: xarray.Dataset) -> str:
    preference, width = float(unit["preference"]), float(unit["half_width"])
    if not math.isfinite(preference):
        return "no preference"
    return f"{number(preference)}°" + (f" ± {number(width)}°" if math.isfinite(width) else "")


def _said(unit: xarray.Dataset, name: str) -> str:
    return f"{name}: {_numbers(unit)}, selectivity {number(float(unit['selectivity']))}"


def _joined(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
