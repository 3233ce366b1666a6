"""From a scene to pixels, and to what every pixel shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from openwork.errors import BadInput
from openwork.worlds.shapes.fields import COS, SIN, Frame, Shape, place, texture
from openwork.worlds.shapes.names import CLASSES, COLOURS, CONCEPTS, PARTS, TEXTURES
from openwork.worlds.shapes.outlines import OUTLINES, Outline, Oval, Polygon
from openwork.worlds.shapes.scene import SIDE, Background, Blob, Scene, Surface, Thing

Array = np.ndarray
SMALLEST, LARGEST = 32, 256
SECOND_TONE = 0.58
"""Brightness of a surface's second tone; of black, which cannot be darker, see `_tones`."""
VISIBLE = 24
"""A border is an edge where the colours of its sides differ by so many of 255 in some channel."""
NEAR = 1.0
"""Pixels from a border within which a pixel belongs to it."""
STEP = 1 / 64
BINS = len(CONCEPTS["edge"])
_COLOUR_IDS = {name: k for k, name in enumerate(COLOURS, 1)}
_TEXTURE_IDS = {name: k for k, name in enumerate(TEXTURES, 1)}
_PART_IDS = {name: k for k, name in enumerate(PARTS, 1)}
_CLASS_IDS = {name: k for k, name in enumerate(CLASSES, 1)}
_BLOBS: Mapping[str, Outline] = {
    "box": Polygon("", 0, ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))),
    "oval": Oval("", 0, (0.0, 0.0), (1.0, 1.0)),
    "triangle": Polygon("", 0, ((0.0, -1.0), (1.0, 1.0), (-1.0, 1.0))),
}


class Layer(NamedTuple):
    """One outline in front of those before it.

    Attributes:
        shape: where.
        surface: with what.
        anchor: what its texture moves with, in pixels.
        thing: id of the class, 0 for none.
        part: id of the part, 0 for none.
        index: of the object in the scene, -1 for none.
    """

    shape: Shape
    surface: Surface
    anchor: tuple[float, float]
    thing: int = 0
    part: int = 0
    index: int = -1


def render(scene: Scene, size: int) -> UInt8[Array, "channel y x"]:
    """The picture of a scene: borders cover pixels in part, so that they look smooth.

    Args:
        scene: what to draw.
        size: of the picture's side in pixels.

    Returns:
        RGB bytes, the same on every machine.

    Raises:
        BadInput: if no picture has that size.
    """
    xs = _middles(size)
    out = _backdrop(scene.background, size, xs)
    for layer in layers(scene, size):
        left, top, right, bottom = layer.shape.box
        x, y = xs[left:right], xs[top:bottom]
        cover = np.minimum(np.maximum(0.5 - layer.shape.field(x, y), 0.0), 1.0)
        there = out[:, top:bottom, left:right]
        there += cover * (_coloured(layer.surface, layer.anchor, size, x, y) - there)
    return np.floor(out * (scene.light / SIDE) + 0.5).astype(np.uint8)


def masks(scene: Scene, size: int) -> dict[str, UInt8[Array, "y x"]]:
    """What each pixel of a picture shows: what lies nearest at the pixel's middle.

    A pixel is on an edge if it is within a pixel of a border, of an outline or within a texture, whose sides look
    different there; the orientation is that of the border. Noise has no borders that are known, a gradient no texture.

    Args:
        scene: what is drawn.
        size: of the picture's side in pixels.

    Returns:
        for each category of `CONCEPTS`, k for the k-th concept from 1, 0 where nothing is known.

    Raises:
        BadInput: if no picture has that size.
    """
    xs = _middles(size)
    out = {category: np.zeros((size, size), np.uint8) for category in CONCEPTS}
    back, middle = scene.background, (size / 2, size / 2)
    # the picture without smoothing
    flat = np.empty((3, size, size))
    out["colour"][:] = _COLOUR_IDS[back.surface.colour]
    if back.kind == "gradient":
        flat[:] = _backdrop(back, size, xs)
    else:
        out["texture"][:] = _TEXTURE_IDS[back.surface.texture]
        flat[:], out["edge"][:] = _within(back.surface, middle, size, xs, xs)
    for layer in layers(scene, size):
        left, top, right, bottom = layer.shape.box
        x, y, there = xs[left:right], xs[top:bottom], np.s_[top:bottom, left:right]
        distance = layer.shape.field(x, y)
        inside = distance < 0
        colours, borders = _within(layer.surface, layer.anchor, size, x, y)
        flat[:, *there] = np.where(inside, colours, flat[:, *there])
        out["object"][there][inside] = layer.thing
        out["part"][there][inside] = layer.part
        out["texture"][there][inside] = _TEXTURE_IDS[layer.surface.texture]
        out["colour"][there][inside] = _COLOUR_IDS[layer.surface.colour]
        edge = out["edge"][there]
        edge[inside] = borders[inside]
        near = np.abs(distance) < NEAR
        edge[near] = _orientation(layer.shape.field, x, y)[near]
    out["edge"][~_differs(flat)] = 0
    return out


def visible(scene: Scene, size: int) -> Int[Array, "y x"]:
    """Which object each pixel shows: its index in `scene.things`, or -1.

    Args:
        scene: what is drawn.
        size: of the picture's side in pixels.
    """
    xs = _middles(size)
    out = np.full((size, size), -1)
    for layer in layers(scene, size):
        left, top, right, bottom = layer.shape.box
        out[top:bottom, left:right][layer.shape.field(xs[left:right], xs[top:bottom]) < 0] = layer.index
    return out


def layers(scene: Scene, size: int) -> Iterator[Layer]:
    """Everything in front of the background, farthest first."""
    for blob in scene.background.blobs:
        yield from _blob(blob, size)
    for index, thing in enumerate(scene.things):
        yield from _thing(thing, index, size)
    for blob in scene.occluders:
        yield from _blob(blob, size)


def _thing(thing: Thing, index: int, size: int) -> Iterator[Layer]:
    half = thing.scale * size / (2 * SIDE)
    wide, high = half * (1 + thing.stretch / (2 * SIDE)), half * (1 - thing.stretch / (2 * SIDE))
    anchor = (thing.x * size / SIDE, thing.y * size / SIDE)
    frame = Frame.of(*anchor, wide, high, thing.angle, thing.mirrored)
    variations = [(2 * v - (SIDE - 1)) / (SIDE - 1) for v in thing.variation]
    kind = _CLASS_IDS[thing.kind]
    for outline in OUTLINES[thing.kind](variations):
        shape = place(outline, frame, size)
        if shape is not None:
            yield Layer(shape, thing.surfaces[outline.surface], anchor, kind, _PART_IDS[outline.part], index)


def _blob(blob: Blob, size: int) -> Iterator[Layer]:
    anchor = (blob.x * size / SIDE, blob.y * size / SIDE)
    frame = Frame.of(*anchor, blob.width * size / (2 * SIDE), blob.height * size / (2 * SIDE), blob.angle)
    shape = place(_BLOBS[blob.shape], frame, size)
    if shape is not None:
        yield Layer(shape, blob.surface, anchor)


def _middles(size: int) -> Float[Array, " x"]:
    if not SMALLEST <= size <= LARGEST:
        raise BadInput(f"expected a size from {SMALLEST} to {LARGEST} pixels; got {size!r}")
    return np.arange(size) + 0.5


def _tones(surface: Surface) -> tuple[Float[Array, "channel 1 1"], Float[Array, "channel 1 1"]]:
    first = [min(255, max(0, value + surface.shade)) for value in COLOURS[surface.colour]]
    second = [90.0, 90.0, 94.0] if surface.colour == "black" else [SECOND_TONE * value for value in first]
    return np.array(first, dtype=float)[:, None, None], np.array(second)[:, None, None]


def _coloured(surface: Surface, anchor: tuple[float, float], size: int, xs: Array, ys: Array) -> Array:
    first, second = _tones(surface)
    distance = texture(surface, anchor, size, xs, ys)
    if distance is None:
        return first
    return first + np.minimum(np.maximum(0.5 - distance, 0.0), 1.0) * (second - first)


def _backdrop(background: Background, size: int, xs: Array) -> Float[Array, "channel y x"]:
    surface, middle = background.surface, (size / 2, size / 2)
    if background.kind == "gradient":
        first, second = _tones(surface)
        c, s = COS[surface.angle % 360], SIN[surface.angle % 360]
        along = (c * (xs - middle[0]) + (s * (xs - middle[1]))[:, None]) / size + 0.5
        return first + np.minimum(np.maximum(along, 0.0), 1.0) * (second - first)
    return np.broadcast_to(_coloured(surface, middle, size, xs, xs), (3, size, size)).copy()


def _within(
    surface: Surface, anchor: tuple[float, float], size: int, xs: Array, ys: Array
) -> tuple[Float[Array, "channel y x"], UInt8[Array, "y x"]]:
    """Colours without smoothing, and the borders of the texture, of one surface."""
    first, second = _tones(surface)
    distance = texture(surface, anchor, size, xs, ys)
    if distance is None:
        return np.broadcast_to(first, (3, len(ys), len(xs))), np.zeros((len(ys), len(xs)), np.uint8)
    borders = _orientation(partial(texture, surface, anchor, size), xs, ys)
    borders[np.abs(distance) >= NEAR] = 0
    return np.where(distance < 0, second, first), borders


def _orientation(field: Callable[[Array, Array], Any], xs: Array, ys: Array) -> UInt8[Array, "y x"]:
    """The concept of the direction along which a field does not change."""
    across = field(xs + STEP, ys) - field(xs - STEP, ys)
    down = field(xs, ys + STEP) - field(xs, ys - STEP)
    turns = np.arctan2(-across, -down) / np.pi * BINS
    # rounded, because the arc tangent differs in its last bits between machines
    return (np.floor(np.round(turns, 6) + 0.5).astype(np.int64) % BINS + 1).astype(np.uint8)


def _differs(flat: Float[Array, "channel y x"]) -> Array:
    """Which pixels look different from one of their four neighbours."""
    out = np.zeros(flat.shape[1:], bool)
    down = np.abs(flat[:, 1:] - flat[:, :-1]).max(axis=0) >= VISIBLE
    right = np.abs(flat[:, :, 1:] - flat[:, :, :-1]).max(axis=0) >= VISIBLE
    out[1:] |= down
    out[:-1] |= down
    out[:, 1:] |= right
    out[:, :-1] |= right
    return out
