"""Pictures of dataset examples: the crops that a unit sees, in intervals of its activation, and what they predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

from openwork.reports.curves import Curve, curves
from openwork.reports.dissection import png
from openwork.reports.labelled import Drawn
from openwork.reports.svg import Canvas
from openwork.reports.words import number

if TYPE_CHECKING:
    import xarray

LEFT, TILE, GAP, LINE, MOST_UNITS = 190, 76, 6, 18, 12
RIM = (255, 214, 10)
SHADE = 0.35


def exemplar_pictures(table: xarray.Dataset) -> tuple[list[Drawn], xarray.Dataset]:
    """Every picture of this kind that a table has data for, and the table without what they show."""
    drawn: list[Drawn] = []
    names = {*map(str, table.data_vars)}
    if {"activation_map", "picture", "box", "pixels"} <= names:
        drawn += [unit_sheet(table, place) for place in range(min(MOST_UNITS, table.sizes["unit"]))]
    if {"accuracy", "other_accuracy", "gap"} <= {*names, *map(str, table.coords)}:
        drawn.append(accuracy_curves(table))
        table = table.drop_vars(["accuracy_low", "accuracy_high"])
    return drawn, table


def unit_sheet(table: xarray.Dataset, place: int) -> Drawn:
    """The examples of one unit, a row for the strongest, each interval and the weakest, with the share of each."""
    unit = table.isel(unit=place)
    name = str(unit["unit"].item())
    shown = unit["shown"].to_numpy().tolist()
    counts, edges = unit["count"].to_numpy(), unit["edge"].to_numpy()
    pixels, rows = table["pixels"].to_numpy().transpose(0, 2, 3, 1), list(dict.fromkeys(shown))
    columns = max(shown.count(row) for row in rows)
    width = LEFT + columns * (TILE + GAP) + GAP
    canvas = Canvas(max(width, 640), len(rows) * (TILE + GAP) + GAP, f"Examples of {name}", _in_words(unit, name))
    for line, row in enumerate(rows):
        top = GAP + line * (TILE + GAP)
        canvas.text_at(8, top + LINE, row, "value sure", "start")
        if row.startswith("interval"):
            k = int(row.split()[1]) - 1
            share = counts[k] / max(1, counts.sum())
            canvas.text_at(8, top + 2 * LINE, f"{number(edges[k])} to {number(edges[k + 1])}", "label", "start")
            canvas.text_at(8, top + 3 * LINE, f"{int(counts[k])} images, {100 * share:.3g} %", "label", "start")
        for column, example in enumerate(i for i, one in enumerate(shown) if one == row):
            index = int(unit["picture"][example])
            if index < 0:
                continue
            image, hint = _framed(pixels[index], unit["box"].to_numpy()[example]), _hint(unit, table, example, index)
            canvas.add(
                "image", hint=hint, href=png(image), x=LEFT + column * (TILE + GAP), y=top, width=TILE, height=TILE,
                image_rendering="pixelated", preserveAspectRatio="xMidYMid",
            )  # fmt: skip
    images = int(table.attrs.get("images", counts.sum()))
    note = (
        f"Examples of {name} among {images} images: the strongest, some at random from each even interval of "
        "its activation, and the weakest. Bright, with a yellow rim: what the strongest place can see. Point at an "
        "image for its activation."
    )
    return Drawn(canvas.picture(), note)


def accuracy_curves(table: xarray.Dataset) -> Drawn:
    """How often the examples predict which of two images activates a unit more, by how far apart the two lie."""
    gap, accuracy = table["gap"].to_numpy(), table["accuracy"].to_numpy()
    low, high = (table[f"accuracy_{end}"].to_numpy() for end in ("low", "high"))
    order = np.argsort(gap)
    x = [100 * float(gap[k]) for k in order]
    units = table["unit"].to_numpy().tolist()
    found = [
        Curve(units[i], x, *([100 * float(part[i, k]) for k in order] for part in (accuracy, low, high)))
        for i in range(min(4, len(units)))
        if np.isfinite(accuracy[i]).any()
    ]
    for name, label in (("other_accuracy", "references of other units"), ("random_accuracy", "random references")):
        values = table[name].to_numpy()
        known = np.isfinite(values)
        mean = np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
        if known.any():
            found.append(Curve(label, x, [100 * float(mean[k]) for k in order]))
    title = "How often the references predict which of two held-out images activates the unit more"
    judge = str(table.attrs.get("judge", ""))
    note = f"{title}; bands are 95 % intervals, chance is 50 %. The judge: {judge}."
    across = "how far apart the two images lie in the order of activations (%)"
    return Drawn(curves(found, across, "right (%)", title), note)


def _framed(image: UInt8[np.ndarray, "y x colour"], box: Int[np.ndarray, " 4"]) -> UInt8[np.ndarray, "y x colour"]:
    """An image, dimmed beyond a box with a rim; as it is where the box is all of it."""
    colour = np.repeat(image, 3, 2) if image.shape[2] == 1 else image
    top, left, bottom, right = (int(v) for v in box)
    if (top, left) == (0, 0) and (bottom, right) == colour.shape[:2]:
        return colour
    out = (colour * SHADE).astype(np.uint8)
    out[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = RIM
    out[top:bottom, left:right] = colour[top:bottom, left:right]
    return out


def _hint(unit: xarray.Dataset, table: xarray.Dataset, example: int, index: int) -> str:
    said = f"image {int(unit['row'][example])}: {number(float(unit['activation'][example]))}"
    if "picture_class" in table:
        said += f", a picture of {table['picture_class'].to_numpy()[index]}"
    return said


def _in_words(unit: xarray.Dataset, name: str) -> str:
    values: Float[np.ndarray, " example"] = unit["activation"].to_numpy()
    shares, quantiles = unit["share"].to_numpy(), unit["quantile"].to_numpy()
    middle = quantiles[int(np.abs(shares - 0.5).argmin())]
    known = values[np.isfinite(values)]
    return (
        f"{name}: from {number(float(known.min()))} to {number(float(known.max()))}, "
        f"half of the images below {number(float(middle))}"
    )
