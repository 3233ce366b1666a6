"""Pictures of dissections, removals, descriptions and concepts: units with their images, and counts beside controls."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8

from openwork.reports.curves import Curve, curves
from openwork.reports.evidence import Bar, intervals
from openwork.reports.labelled import Drawn
from openwork.reports.svg import Canvas
from openwork.reports.words import number
from openwork.studies.schema import Control, Estimate

if TYPE_CHECKING:
    import xarray

Image = UInt8[np.ndarray, "y x colour"]
TILE, GAP, LEFT, WIDTH, LINE = 92, 6, 250, 760, 20
MOST_ROWS, MOST_PANELS, MOST_BARS = 24, 6, 20
DARK, RIM = 0.3, (255, 214, 10)


def dissection_pictures(table: xarray.Dataset) -> list[Drawn]:
    """Every picture of this kind that a table has data for; empty for tables of other methods."""
    names = {*map(str, table.data_vars)}
    drawn: list[Drawn] = []
    if {"threshold", "iou", "find_iou", "unique_detectors"} <= names:
        drawn += [*detector_bars(table), *([unit_tiles(table)] if "picture" in names else []), overlap_bars(table)]
    if {"removed", "random_removed", "kept"} <= names:
        drawn += removal_curves(table)
    if {"word", "correlation", "shuffled_correlation"} <= names:
        drawn.append(word_bars(table))
    if {"importance", "crop", "heat"} <= names:
        drawn += [concept_bars(table), crop_tiles(table)]
    if {"assignment", "weight", "image"} <= names:
        drawn.append(assignment_tiles(table))
    if {"random_accuracy", "random_score"} <= names:
        drawn.append(sparsity_curve(table))
    return drawn


# -- images --


def png(image: Image) -> str:
    """An image as a data URI of its own pixels."""
    from PIL import Image as Pillow

    kept = io.BytesIO()
    flat = image[..., 0] if image.shape[2] == 1 else image
    Pillow.fromarray(np.ascontiguousarray(flat)).save(kept, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode()


def lit(image: Image, where: Bool[np.ndarray, "y x"]) -> Image:
    """An image, dark where a mask is not, with the mask's rim."""
    colour = np.repeat(image, 3, 2) if image.shape[2] == 1 else image
    out = np.where(where[..., None], colour, (colour * DARK)).astype(np.uint8)
    inner = where.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(where, step, axis)
    out[where & ~inner] = RIM
    return out


def tiles(rows: Sequence[tuple[Sequence[str], Sequence[Image], str]], title: str, text: str) -> Canvas:
    """Rows of images with words at their left; pixels are shown as they are, enlarged without smoothing.

    Args:
        rows: lines of words, images, and what a pointer resting on the images shows.
        title: of the picture.
        text: the same in words.
    """
    most = max(len(images) for _, images, _ in rows)
    canvas = Canvas(max(WIDTH, LEFT + most * (TILE + GAP)), len(rows) * (TILE + GAP) + GAP, title, text)
    for place, (words, images, hint) in enumerate(rows):
        top = GAP + place * (TILE + GAP)
        for line, word in enumerate(words):
            kind = "value sure" if not line else "label"
            canvas.text_at(8, top + 18 + line * LINE, word if len(word) < 36 else f"{word[:34]}…", kind, "start")
        for column, image in enumerate(images):
            canvas.add(
                "image", hint=hint, href=png(image), x=LEFT + column * (TILE + GAP), y=top, width=TILE, height=TILE,
                image_rendering="pixelated", preserveAspectRatio="xMidYMid",
            )  # fmt: skip
    return canvas


def unit_tiles(table: xarray.Dataset) -> Drawn:
    """The best units with the held-out images that they prefer, cut at their thresholds."""
    names = table["unit"].to_numpy().tolist()
    rows = []
    for place, shown in enumerate(table["shown"].to_numpy().tolist()[:MOST_ROWS]):
        unit = table.isel(unit=names.index(shown))
        iou, low, high = (float(unit[name]) for name in ("iou", "iou_low", "iou_high"))
        words = [shown.removeprefix("module:"), str(unit["best_concept"].item()),
                 f"IoU {number(iou)} ({number(low)} to {number(high)})",
                 f"p {number(float(unit['p']))} of rotated units"]  # fmt: skip
        images = [
            lit(image, where)
            for image, where in zip(table["picture"].to_numpy()[place], table["lit"].to_numpy()[place], strict=True)
        ]
        rows.append((words, images, f"{shown}: bright where it lies above {number(float(unit['threshold']))}"))
    title = "Units and the held-out images that they prefer"
    said = "; ".join(f"{words[0]}: {words[1]}, {words[2]}" for words, _, _ in rows)
    share = float(table.attrs.get("share", np.nan))
    note = (
        f"{title}. Bright, with a yellow rim: where the unit lies above the threshold that {100 * share:g} % of all "
        "places of find images exceed. The concept was chosen on find images, the overlap measured on held-out ones."
    )
    return Drawn(tiles(rows, title, said).picture(), note)


def crop_tiles(table: xarray.Dataset) -> Drawn:
    """Each concept's crops, then where it is in images of the class; the most important first."""
    order = np.argsort(-table["importance"].to_numpy())[:MOST_ROWS]
    images, rows = table["image"].to_numpy(), []
    for k in order:
        value, drop = float(table["importance"][k]), float(table["drop"][k])
        words = [
            str(table["concept"].to_numpy()[k]),
            f"importance {number(value)}",
            f"class logit falls {number(drop)}",
        ]
        heat = table["heat"].to_numpy()[k]
        shown = [glow(image, one, float(heat.max())) for image, one in zip(images, heat, strict=True)]
        rows.append((words, [*table["crop"].to_numpy()[k][:4], *shown[:3]], words[0]))
    title = "Concepts: the crops that have most of each, and where it is"
    said = "; ".join(", ".join(words) for words, _, _ in rows)
    return Drawn(tiles(rows, title, said).picture(), f"{title} in images of the class; dark where it is not.")


def assignment_tiles(table: xarray.Dataset) -> Drawn:
    """Images, and where each of the commonest concepts is in them."""
    images, assigned = table["image"].to_numpy(), table["assignment"].to_numpy()
    order = np.argsort(-table["share"].to_numpy())[:MOST_PANELS]
    rows = []
    for place, image in enumerate(images):
        shares = assigned[place].mean((1, 2))
        words = [f"image {place}", *(f"concept {k}: {100 * shares[k]:.0f} %" for k in np.argsort(-shares)[:3])]
        rows.append((words, [image, *(glow(image, assigned[place, k], 1.0) for k in order)], words[0]))
    said = "; ".join(", ".join(words) for words, _, _ in rows)
    title = "Patch concepts"
    note = (
        f"{title}: an image, then where the concepts {', '.join(map(str, order))} are, the commonest first. "
        f"Explanation and network name the same class in {100 * table.attrs['agreement']:.0f} % of held-out images."
    )
    return Drawn(tiles(rows, title, said).picture(), note)


def glow(image: Image, heat: Float[np.ndarray, "row column"], most: float) -> Image:
    """An image, dark where a coarse map is low; each place of the map is a block."""
    height, width = image.shape[:2]
    rows = np.minimum(np.arange(height) * heat.shape[0] // height, heat.shape[0] - 1)
    columns = np.minimum(np.arange(width) * heat.shape[1] // width, heat.shape[1] - 1)
    strength = np.clip(heat[rows][:, columns] / max(most, 1e-12), 0, 1)[..., None]
    return (image * (0.15 + 0.85 * strength)).astype(np.uint8)


# -- counts and curves --


def detector_bars(table: xarray.Dataset) -> list[Drawn]:
    """Of each site, how many concepts its detectors detect between them, beside the same units in rotated bases."""
    if "rotated_unique" not in table:
        return []
    drawn = []
    for place, site in enumerate(table["site"].to_numpy().tolist()):
        bars: list[Bar] = []
        for column, category in enumerate(table["category"].to_numpy().tolist()):
            value = float(table["unique_detectors"][place, column])
            rotated = table["rotated_unique"].to_numpy()[place, :, column]
            low, high = (float(v) for v in np.percentile(rotated, (2.5, 97.5)))
            bars.append(Bar(category, Estimate(value=value, low=value, high=value, n=len(table["unit"])), "found"))
            given = Control(name="rotated", value=float(rotated.mean()), low=low, high=high, n=len(rotated))
            bars.append(Bar("in rotated bases", given, "control"))
        title = f"Unique detectors of {site} by category"
        note = (
            f"{title}: concepts that at least one unit overlaps by more than {table.attrs['least']:g} on held-out "
            "images. In grey the same units in randomly rotated bases: mean, and where 95 % of the bases lie."
        )
        drawn.append(Drawn(intervals(bars, "concepts detected", title), note))
    return drawn


def overlap_bars(table: xarray.Dataset) -> Drawn:
    """The units with the largest overlap on held-out images, with its interval."""
    order = np.argsort(-table["iou"].to_numpy())[:MOST_BARS]
    bars = []
    for k in order:
        unit = table.isel(unit=int(k))
        value, low, high = (float(unit[name]) for name in ("iou", "iou_low", "iou_high"))
        name = f"{str(unit['unit'].item()).removeprefix('module:')}: {unit['best_concept'].item()}"
        n = int(table.attrs["n_held_out"])
        bars.append(Bar(name[:44], Estimate(value=value, low=min(low, value), high=max(high, value), n=n), "plain"))
    title = "Overlap of the best units with their concepts on held-out images"
    least = float(table.attrs["least"])
    return Drawn(
        intervals(bars, "intersection over union", title, ("detector", least)),
        f"{title}, with 95 % intervals over images. Dashed: above it a unit counts as a detector.",
    )


def removal_curves(table: xarray.Dataset) -> list[Drawn]:
    """Balanced accuracy of each class by how many of its best units are removed, or kept alone, beside random sets."""
    sizes = [float(s) for s in table["size"].to_numpy()]
    lost = (table["accuracy"] - table["removed"].isel(size=-1)).to_numpy()
    drawn = []
    for k in np.argsort(-lost)[:MOST_PANELS]:
        name = str(table["class"].to_numpy()[k])
        lines = []
        for kind, said in (("removed", "removed"), ("kept", "kept alone")):
            chance = table[f"random_{kind}"].to_numpy()[k]
            low, high = np.percentile(chance, (2.5, 97.5), axis=1)
            lines.append(Curve(f"the best units {said}", sizes, table[kind].to_numpy()[k].tolist()))
            lines.append(Curve(f"random units {said}", sizes, chance.mean(1).tolist(), low.tolist(), high.tolist()))
        title = f"{name}: balanced accuracy without its best units, and with these alone"
        note = f"{title}, on held-out images; ranked on find images. Bands: 95 % of random sets of equal size."
        drawn.append(Drawn(curves(lines, "units", "balanced accuracy", title), note))
    return drawn


def word_bars(table: xarray.Dataset) -> Drawn:
    """The units that words describe best, beside words of shuffled images."""
    bars: list[Bar] = []
    for k in np.argsort(-table["correlation"].to_numpy())[:MOST_BARS]:
        unit = table.isel(unit=int(k))
        value, low, high = (float(unit[name]) for name in ("correlation", "correlation_low", "correlation_high"))
        name = f"{str(unit['unit'].item()).removeprefix('module:')}: {unit['best_word'].item()}"
        bars.append(Bar(name[:44], Estimate(value=value, low=low, high=high, n=1), "found"))
    chance = table["shuffled_correlation"].to_numpy()
    low, high = (float(v) for v in np.percentile(chance, (2.5, 97.5)))
    grey = Control(name="shuffled", value=float(chance.mean()), low=low, high=high, n=chance.size)
    title = "Units and words: correlation on held-out images"
    note = (
        f"{title}, with 95 % intervals. Last: the same with the images shuffled. Held-out images alone choose the same "
        f"word for {100 * table.attrs['agreement']:.0f} % of the units, shuffled ones for "
        f"{100 * table.attrs['shuffled_agreement']:.0f} %."
    )
    return Drawn(intervals([*bars, Bar("shuffled images", grey, "control")], "correlation", title), note)


def concept_bars(table: xarray.Dataset) -> Drawn:
    """How much of the class's variance involves each concept."""
    bars = []
    for k in np.argsort(-table["importance"].to_numpy())[:MOST_BARS]:
        value, low, high = (float(table[n][k]) for n in ("importance", "importance_low", "importance_high"))
        name = str(table["concept"].to_numpy()[k])
        bars.append(Bar(name, Estimate(value=value, low=min(low, value), high=max(high, value), n=1), "found"))
    title = "Importance of concepts: total Sobol indices of the class's logit"
    return Drawn(intervals(bars, "share of variance", title), f"{title}, with 95 % intervals over find images.")


def sparsity_curve(table: xarray.Dataset) -> Drawn:
    """Accuracy by the share of scores that is dropped, beside random vectors."""
    x = [100 * float(s) for s in table["drop"].to_numpy()]
    chance = table["random_accuracy"].to_numpy()
    low, high = np.percentile(chance, (2.5, 97.5), axis=0)
    lines = [
        Curve("concept vectors", x, table["accuracy"].to_numpy().tolist()),
        Curve("random vectors", x, chance.mean(0).tolist(), low.tolist(), high.tolist()),
        Curve("a head on the features", [x[0], x[-1]], [float(table.attrs["original"])] * 2),
    ]
    title = "Held-out accuracy with the weakest scores of each image dropped"
    return Drawn(curves(lines, "% dropped", "accuracy", title), f"{title}. Band: 95 % of random vectors.")
