"""Pictures of units as a page shows them: alone as a grid, or beside the images that activate the unit and the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from openwork.reports.curves import Curve, curves
from openwork.reports.dissection import png
from openwork.reports.labelled import Drawn
from openwork.reports.svg import Canvas, Number
from openwork.reports.words import number

if TYPE_CHECKING:
    import xarray

KIND = "pictures"
TILE, GAP, COLUMNS, TEXT = 116, 10, 6, 34
WIDE, SMALL, LEFT, ROW = 868, 56, 136, 138
STRONG, WEAK, MOST, COURSES = 8, 4, 64, 12


def seen_pictures(table: xarray.Dataset) -> list[Drawn]:
    """The pictures of a visualisation, and how they came about; empty for tables of other methods."""
    if table.attrs.get("kind") != KIND or "pixels" not in table:
        return []
    shown = beside(table) if "example_picture" in table else grid(table)
    return [shown, *([faded(table)] if "alpha" in table else []), course(table)]


def as_bytes(pixels: Float[np.ndarray, "channel y x"]) -> np.ndarray:
    """(y, x, channel) bytes of pixels in [0, 1]."""
    return (np.moveaxis(pixels, 0, -1).clip(0, 1) * 255).round().astype(np.uint8)


def grid(table: xarray.Dataset) -> Drawn:
    """Every unit's picture with its name and what it reached."""
    images = [as_bytes(p) for p in table["pixels"].to_numpy()[:MOST]]
    note = "Each picture was made to activate its unit. " + _said_of_test(table)
    return Drawn(_grid(table, images, "Pictures of units", note).picture(), note)


def faded(table: xarray.Dataset) -> Drawn:
    """The pictures with what is transparent shown as white."""
    alpha = table["alpha"].to_numpy()[:MOST, None]
    images = [as_bytes(p) for p in table["pixels"].to_numpy()[:MOST] * alpha + 1 - alpha]
    note = "The same pictures, white where the unit does not mind what it sees."
    return Drawn(_grid(table, images, "What matters in the pictures", note).picture(), note)


def _grid(table: xarray.Dataset, images: list[np.ndarray], title: str, text: str) -> Canvas:
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    canvas = Canvas(GAP + max(3, columns) * (TILE + GAP), GAP + rows * (TILE + TEXT + GAP), title, text)
    for place, (name, image) in enumerate(zip(_names(table), images, strict=False)):
        row, column = divmod(place, COLUMNS)
        left, top = GAP + column * (TILE + GAP), GAP + row * (TILE + TEXT + GAP)
        _image(canvas, image, left, top, TILE, name)
        for line, word in enumerate(_words(table, place)):
            kind = "label" if line else "value"
            canvas.text_at(left, top + TILE + 14 + 15 * line, _fitting(word, 19), kind, "start")
    return canvas


def beside(table: xarray.Dataset) -> Drawn:
    """Each unit's picture, its strongest and weakest images, and how well either predicts other images."""
    units = min(table.sizes["unit"], MOST)
    canvas = Canvas(WIDE, 28 + units * ROW, "Pictures, images and their test", "")
    for x, text in ((GAP, "picture"), (LEFT, "images that activate the unit most"),
                    (LEFT + STRONG * (SMALL + 4) + 12, "least")):  # fmt: skip
        canvas.text_at(x, 16, text, "label", "start")
    kinds = table["example_shown"].to_numpy()
    pool, which = table["example_pixels"].to_numpy(), table["example_picture"].to_numpy()
    for place in range(units):
        top = 28 + place * ROW
        name = str(table["unit"].to_numpy()[place])
        _image(canvas, as_bytes(table["pixels"].to_numpy()[place]), GAP, top, TILE, name)
        sides = ((LEFT, "strongest", STRONG), (LEFT + STRONG * (SMALL + 4) + 12, "weakest", WEAK))
        for start, kind, most in sides:
            chosen = [j for j in np.flatnonzero(kinds == kind) if which[place, j] >= 0][:most]
            for column, j in enumerate(chosen):
                image = np.moveaxis(pool[which[place, j]], 0, -1)
                value = float(table["example_activation"].to_numpy()[place, j])
                _image(canvas, image, start + column * (SMALL + 4), top, SMALL, f"activates it by {number(value)}")
        canvas.text_at(LEFT, top + SMALL + 20, _fitting(name.removeprefix("module:"), 60), "value sure", "start")
        for line, word in enumerate([*_words(table, place)[1:], *_tests(table, place)]):
            canvas.text_at(LEFT, top + SMALL + 37 + 15 * line, word, "label", "start")
    note = (
        "Left: the picture that was made for the unit. Beside it real images that activate it most and least. "
        + _said_of_test(table)
        + " The exemplar test asks which of two held-out images activates the unit more, from the images or from the "
        "picture alone; half is chance."
    )
    picture = canvas.picture()
    return Drawn(type(picture)(picture.svg, picture.title, note), note)


def course(table: xarray.Dataset) -> Drawn:
    """The activation over the steps, in shares of what was reached."""
    values, steps = table["course"].to_numpy()[:COURSES], table["step"].to_numpy()
    spans = np.maximum(np.ptp(values, axis=1), 1e-12)
    lines = [
        Curve(_fitting(name, 30), [float(s) for s in steps], list(map(float, (v - v.min()) / span)))
        for name, v, span in zip(_names(table), values, spans, strict=False)
    ]
    note = "What each picture reached at each step, from its least (0) to its most (1), in the views of that step."
    return Drawn(curves(lines, "step", "share of the range", "The course of the optimisation"), note)


def _image(canvas: Canvas, image: np.ndarray, x: Number, y: Number, side: Number, hint: str) -> None:
    canvas.add(
        "image", hint=hint, href=png(image), x=x, y=y, width=side, height=side, preserveAspectRatio="xMidYMid",
        image_rendering="pixelated" if image.shape[0] < side else "auto",
    )  # fmt: skip


def _names(table: xarray.Dataset) -> list[str]:
    return [str(name).removeprefix("module:") for name in table["unit"].to_numpy()]


def _words(table: xarray.Dataset, place: int) -> list[str]:
    """The unit's name and what its picture reached."""
    name, reached = _names(table)[place], float(table["activation"].to_numpy()[place])
    if not bool(table["alive"].to_numpy()[place]):
        return [name, "no gradient"]
    others = table["others"].to_numpy()[place] if "others" in table else np.array([np.nan])
    if not np.isfinite(others).any():
        return [name, f"reaches {number(reached)}"]
    most = float(np.nanmax(others))
    return [name, f"{number(reached)}; others {number(most)}"]


def _tests(table: xarray.Dataset, place: int) -> list[str]:
    found = []
    for prefix, what in (("examples_", "images"), ("picture_", "picture")):
        if f"{prefix}accuracy" in table:
            value = float(table[f"{prefix}accuracy"].to_numpy()[place, 0])
            other = float(table[f"{prefix}other_accuracy"].to_numpy()[place, 0])
            found.append(f"{what} {number(value)} right (other units' {number(other)})")
    return ["test: " + ", ".join(found)] if found else []


def _said_of_test(table: xarray.Dataset) -> str:
    if "others" not in table:
        return "Below its name: the activation that it reached."
    return (
        "Below its name: the activation that it reached, and the largest that a picture of another unit, or one with "
        "random phases, reaches in the test's views."
    )


def _fitting(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[-most + 1 :]}"
