"""Pictures of vision transformers: how far heads look, what they follow, registers, the class token, traits, drops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from openwork.reports.curves import Curve, curves
from openwork.reports.dissection import glow, tiles
from openwork.reports.heatmap import Cell, heat_map
from openwork.reports.labelled import Drawn
from openwork.reports.words import number

if TYPE_CHECKING:
    import xarray

MOST_HEADS, MOST_FOLLOWED = 12, 10


def patch_pictures(table: xarray.Dataset) -> list[Drawn]:
    """Every picture of this kind that a table has data for; empty for tables of other methods."""
    names = {*map(str, table.data_vars)}
    if {"distance", "to_prefix", "lift", "foreign_lift"} <= names:
        return [distance_curves(table), followed(table)]
    if {"outliers", "likeness", "share"} <= names:
        return [outlier_curves(table), *([outlier_map(table)] if bool((table["outliers"] > 0).any()) else [])]
    if {"early", "cut", "cut_from"} <= names:
        return class_token_curves(table)
    if {"attention", "left", "trait", "picture"} <= names:
        return [trait_tiles(table)]
    if {"score", "depth", "accuracy", "picture"} <= names:
        return [drop_tiles(table), drop_curves(table)]
    return []


def distance_curves(table: xarray.Dataset) -> Drawn:
    """How far the heads of each block look, sorted within the block, as in the papers."""
    values = np.sort(table["distance"].to_numpy(), 1)
    blocks = [float(b) for b in range(len(values))]
    even = float(table.attrs["uniform_distance"])
    ranks = np.linspace(0, values.shape[1] - 1, min(MOST_HEADS, values.shape[1])).round().astype(int)
    lines = [Curve(f"head of rank {r + 1} by distance", blocks, values[:, r].tolist()) for r in ranks[:5]]
    lines.append(Curve("equal attention", blocks, [even] * len(blocks)))
    note = (
        f"The mean distance of attention between patches, in pixels. Equal attention everywhere has {number(even)}; "
        f"heads below it look nearby. {table.attrs['n']} held-out images."
    )
    return Drawn(curves(lines, "block", "pixels", "How far heads look"), note)


def followed(table: xarray.Dataset) -> Drawn:
    """The concepts that heads follow most, beside what other images' masks give."""
    excess = (table["lift"] - table["foreign_lift"]).to_numpy()
    strongest = np.nanmax(np.where(np.isnan(excess), -np.inf, excess), axis=(2,))
    order = np.argsort(-np.nanmax(strongest, axis=(0, 1)))[:MOST_FOLLOWED]
    concepts = table["concept"].to_numpy()[order].tolist()
    blocks, heads = excess.shape[:2]
    rows = [f"block {b}, head {h}" for b in reversed(range(blocks)) for h in reversed(range(heads))]
    cells = []
    for r, (b, h) in enumerate((b, h) for b in reversed(range(blocks)) for h in reversed(range(heads))):
        for c, k in enumerate(order):
            value = float(strongest[b, h, k])
            if np.isfinite(value):
                hint = f"{rows[r]}, {concepts[c]}: {number(value)} more than with other images' masks"
                cells.append(Cell(r, c, value, hint, value > 1))
    note = (
        "Attention within a concept over its share of the patches, less the same with masks of other images: from the "
        "class token or from patches of the concept itself, whichever is more. 0 is what place alone explains."
    )
    title = f"Which heads follow which {table.attrs['concept']}"
    return Drawn(heat_map(cells, rows, concepts, "lift", title, note), note)


def outlier_curves(table: xarray.Dataset) -> Drawn:
    """What share of patches stands out behind each block, and how redundant these patches are."""
    blocks = [float(b) for b in range(table.sizes["block"])]
    lines = [
        Curve("share of patches that stand out", blocks, table["share"].to_numpy().tolist()),
        Curve("their likeness to neighbours", blocks, table["likeness"].to_numpy().tolist()),
        Curve("likeness of the others", blocks, table["ordinary_likeness"].to_numpy().tolist()),
    ]
    note = (
        "Tokens whose norm stands out, by block. Registers lie on patches that are like their neighbours, where the "
        f"image says little. {table.attrs['n']} held-out images."
    )
    return Drawn(curves(lines, "block", "share, cosine", "Tokens of outlying norm"), note)


def outlier_map(table: xarray.Dataset) -> Drawn:
    """Where in the image tokens stand out most often, in the block where most do; the top of the image is on top."""
    values = table["outliers"].to_numpy()
    block = int(values.mean((1, 2)).argmax())
    rows, columns = ([str(i) for i in range(n)] for n in values.shape[1:])
    rows.reverse()
    cells = [
        Cell(len(rows) - 1 - y, x, float(v), f"row {y}, column {x}: in {100 * v:.0f} % of images", bool(v > 0))
        for (y, x), v in np.ndenumerate(values[block])
    ]
    note = f"In what share of images each place stands out behind block {block}."
    return Drawn(heat_map(cells, rows, columns, "share of images", "Where tokens stand out", note, 1.0), note)


def class_token_curves(table: xarray.Dataset) -> list[Drawn]:
    """What the class token knows behind each block, and what its looks are worth."""
    blocks = [float(b) for b in range(table.sizes["block"])]
    early, low, high = (table[n].to_numpy().tolist() for n in ("early", "early_low", "early_high"))
    known = curves([Curve("accuracy", blocks, early, low, high)], "block", "accuracy", "What the class token knows")
    lost = [
        Curve("cut in this block", blocks, table["cut"].to_numpy().tolist()),
        Curve("cut from this block on", blocks, table["cut_from"].to_numpy().tolist()),
    ]
    worth = curves(lost, "block", "nats", "What its looks at patches are worth")
    return [
        Drawn(known, "The accuracy of the network if the class token stays as it was behind a block."),
        Drawn(worth, "Log-probability of the true class that is lost without these looks."),
    ]


def trait_tiles(table: xarray.Dataset) -> Drawn:
    """Images, and where each head of the true class's prompt looks; the trait first."""
    rows = []
    for place, image in enumerate(table["shown"].to_numpy().tolist()):
        left = table["left"].to_numpy()[image]
        order = np.argsort(-left)[:MOST_HEADS]
        picture = table["picture"].to_numpy()[place]
        maps = table["attention"].to_numpy()[image]
        label = str(table["label"].to_numpy()[image])
        words = [label, f"heads {', '.join(map(str, order[:4]))}", "left last first"]
        rows.append(
            (words, [picture, *(glow(picture, maps[h].astype(float), float(maps[h].max())) for h in order)], label)
        )
    title = "Where each class's prompt looks"
    said = "; ".join(", ".join(words) for words, _, _ in rows)
    note = f"{title}: an image, then its heads, the one that is blurred last before the others; dark is unseen."
    return Drawn(tiles(rows, title, said).picture(), note)


def drop_tiles(table: xarray.Dataset) -> Drawn:
    """Images, the first judge's scores, and what is left behind the last."""
    rows = []
    groups = len(table.attrs["groups"])
    for place, image in enumerate(table["shown"].to_numpy().tolist()):
        picture = table["picture"].to_numpy()[place]
        score, depth = table["score"].to_numpy()[image], table["depth"].to_numpy()[image]
        kept = [glow(picture, (depth >= g + 1).astype(float), 1.0) for g in range(groups)]
        words = [f"image {table['image'].to_numpy()[image]}", f"{100 * (depth >= groups).mean():.0f} % stays"]
        rows.append((words, [picture, glow(picture, score.astype(float), 1.0), *kept], words[0]))
    title = "Which patches stay"
    note = f"{title}: an image, its scores before the first judged block, and what each group of blocks still sees."
    said = "; ".join(", ".join(words) for words, _, _ in rows)
    return Drawn(tiles(rows, title, said).picture(), note)


def drop_curves(table: xarray.Dataset) -> Drawn:
    """Accuracy against the share that stays, by what decides."""
    shares = [float(s) for s in table["share"].to_numpy()]
    lines = []
    for order in table["order"].to_numpy().tolist():
        ends = (table[n].sel(order=order).to_numpy().tolist() for n in ("accuracy", "accuracy_low", "accuracy_high"))
        value, low, high = ends
        lines.append(Curve(str(order), shares, value, low, high))
    note = (
        f"Accuracy if only a share of the patches stays, by the judges' scores, by the first token's attention, or at "
        f"random; with all patches {table.attrs['whole_accuracy']:.1%}."
    )
    return Drawn(curves(lines, "share that stays", "accuracy", "Accuracy with fewer patches"), note)
