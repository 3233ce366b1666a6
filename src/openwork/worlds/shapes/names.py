"""The names of the world: what there is to see in it."""

from __future__ import annotations

from collections.abc import Mapping

CLASSES = (
    "car",
    "truck",
    "house",
    "cat",
    "dog",
    "bird",
    "fish",
    "plane",
    "boat",
    "tree",
    "flower",
    "mug",
    "chair",
    "rocket",
)
PARTS = (
    "body",
    "cab",
    "wheel",
    "window",
    "door",
    "light",
    "roof",
    "chimney",
    "head",
    "ear",
    "eye",
    "snout",
    "beak",
    "leg",
    "tail",
    "wing",
    "fin",
    "mast",
    "sail",
    "stem",
    "leaf",
    "petal",
    "centre",
    "handle",
    "rim",
    "seat",
    "back",
    "nose",
)
TEXTURES = ("plain", "stripes", "checks", "dots", "waves", "grid", "noise")
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 60),
    "green": (60, 160, 70),
    "cyan": (70, 200, 210),
    "blue": (50, 80, 205),
    "purple": (130, 60, 170),
    "pink": (245, 145, 190),
    "white": (240, 240, 240),
    "black": (28, 28, 32),
}
"""Name -> RGB bytes of its first tone; the second tone of a texture is of the same name."""
ORIENTATIONS = tuple(f"{angle:g}°" for angle in (0, 22.5, 45, 67.5, 90, 112.5, 135, 157.5))
"""Of edges: the angle of the line above the horizontal, counted counter-clockwise as one sees it."""
CONCEPTS: Mapping[str, tuple[str, ...]] = {
    "object": CLASSES,
    "part": PARTS,
    "texture": TEXTURES,
    "colour": tuple(COLOURS),
    "edge": ORIENTATIONS,
}
BACKGROUNDS = ("plain", "gradient", "textured", "cluttered")
BLOBS = ("box", "oval", "triangle")
