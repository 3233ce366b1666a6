"""The contact sheet of the world: classes, what varies, masks, a clip.

python -m openwork.worlds.shapes.sheet docs/img/shapes.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from openwork.errors import BadInput
from openwork.worlds.shapes.corpus import Shapes
from openwork.worlds.shapes.names import CLASSES, CONCEPTS
from openwork.worlds.shapes.paint import masks, render
from openwork.worlds.shapes.scene import Scene

Array = np.ndarray
SIZE, COLUMNS, GAP = 64, 8, 2
LOOKED_AT = 400
"""Scenes of which the first of each class are shown."""
MASKED = 2
"""Scenes whose masks are shown."""


def sheet(corpus: Shapes) -> UInt8[Array, "y x channel"]:
    """A picture of a corpus: a row for each class, then scenes beside their masks, then a clip.

    Args:
        corpus: with scenes of all classes among its first ones.

    Raises:
        BadInput: if there are too few scenes of a class.
    """
    found: dict[str, list[Scene]] = {kind: [] for kind in CLASSES}
    for i in range(min(LOOKED_AT, len(corpus))):
        scene = corpus.scene(i)
        found[scene.kind].append(scene)
    if (least := min(map(len, found.values()))) < COLUMNS:
        raise BadInput(f"expected {COLUMNS} scenes of each class, found {least} of some; give a larger count")
    rows = [[render(scene, SIZE) for scene in found[kind][:COLUMNS]] for kind in CLASSES]
    shown = [corpus.scene(i) for i in range(MASKED)]
    rows += [[render(scene, SIZE), *_coloured_masks(scene)] for scene in shown]
    rows.append(list(corpus.clip(1).pixels(SIZE)))
    return np.concatenate([_row(tiles) for tiles in rows]).astype(np.uint8)


def _row(tiles: list[Array]) -> UInt8[Array, "y x channel"]:
    out = np.full((SIZE + GAP, COLUMNS * (SIZE + GAP), 3), 255, np.uint8)
    for k, tile in enumerate(tiles):
        left = k * (SIZE + GAP)
        out[:SIZE, left : left + SIZE] = tile.transpose(1, 2, 0)
    return out


def _coloured_masks(scene: Scene) -> list[Array]:
    """Each category's mask, every concept in a colour of its own, nothing in black."""
    out = []
    for category, mask in masks(scene, SIZE).items():
        turns = np.arange(len(CONCEPTS[category])) / len(CONCEPTS[category])
        waves = 0.5 + 0.5 * np.cos(2 * np.pi * (turns[:, None] + np.array([0, 1 / 3, 2 / 3])))
        palette = np.concatenate((np.zeros((1, 3)), 60 + 195 * waves)).astype(np.uint8)
        out.append(palette[mask].transpose(2, 0, 1))
    return out


def main() -> None:
    """Write the sheet of the train split, twice as large so that one sees the pixels."""
    if len(sys.argv) != 2:
        raise SystemExit("expected the file to write, such as docs/img/shapes.png")
    made = Image.fromarray(sheet(Shapes()))
    made.resize((2 * made.width, 2 * made.height), Image.Resampling.NEAREST).save(Path(sys.argv[1]), optimize=True)


if __name__ == "__main__":
    main()
