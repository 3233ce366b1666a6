"""Distances in the plane: of outlines once they are placed, and of the borders within a texture.

A field is negative inside and counts pixels from the border. Everything here adds, multiplies, divides, rounds and
takes square roots, all of which are the same to the last bit on every machine; sines come from a rounded table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import ceil, cos, floor, radians, sin, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from openwork.worlds.shapes.outlines import Outline, Polygon
from openwork.worlds.shapes.scene import SIDE, Surface

Array = np.ndarray
COS = tuple(round(cos(radians(angle)), 6) for angle in range(360))
SIN = tuple(round(sin(radians(angle)), 6) for angle in range(360))
MARGIN = 2
"""Pixels around an outline in which its border may be seen."""
FAR = 1e6


class Frame(NamedTuple):
    """Where the square from -1 to 1 lies in a picture: its middle and half its sides as columns, in pixels."""

    x: float
    y: float
    xx: float
    xy: float
    yx: float
    yy: float

    @classmethod
    def of(cls, x: float, y: float, wide: float, high: float, angle: int, mirrored: bool = False) -> Frame:
        """Half as wide and as high as given, turned clockwise as one sees it."""
        c, s = COS[angle % 360], SIN[angle % 360]
        flip = -1.0 if mirrored else 1.0
        return cls(x, y, flip * wide * c, -high * s, flip * wide * s, high * c)

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """Where a point of the square lies, to the 64th of a pixel."""
        u, v = point
        x, y = self.x + self.xx * u + self.xy * v, self.y + self.yx * u + self.yy * v
        return floor(64 * x + 0.5) / 64, floor(64 * y + 0.5) / 64


class Shape(ABC):
    """An outline in a picture.

    Args:
        box: the pixels around it: left, top, right, bottom, the last two exclusive.
    """

    def __init__(self, box: tuple[int, int, int, int]):
        self.box = box

    @abstractmethod
    def field(self, xs: Float[Array, " x"], ys: Float[Array, " y"]) -> Float[Array, "y x"]:
        """Its distance at columns and rows."""


class Convex(Shape):
    """A convex polygon: the greatest signed distance from the lines through its sides.

    Args:
        box: the pixels around it.
        lines: for each side a, b, c of the distance a x + b y + c.
    """

    def __init__(self, box: tuple[int, int, int, int], lines: Float[Array, "side 3"]):
        super().__init__(box)
        self._a, self._b, self._c = lines[:, :1], lines[:, 1:2], lines[:, 2:]

    def field(self, xs: Float[Array, " x"], ys: Float[Array, " y"]) -> Float[Array, "y x"]:
        """Its distance at columns and rows."""
        return ((self._a * xs)[:, None, :] + (self._b * ys + self._c)[:, :, None]).max(axis=0)


class Ellipse(Shape):
    """An ellipse by its first-order distance: exact at the border, where alone it is used to the pixel.

    Args:
        box: the pixels around it.
        middle: in pixels.
        axes: the matrix that makes the unit circle the ellipse, row by row.
    """

    def __init__(
        self, box: tuple[int, int, int, int], middle: tuple[float, float], axes: tuple[float, float, float, float]
    ):
        super().__init__(box)
        a, b, c, d = axes
        det = a * d - b * c
        self._middle, self._inverse = middle, (d / det, -b / det, -c / det, a / det)

    def field(self, xs: Float[Array, " x"], ys: Float[Array, " y"]) -> Float[Array, "y x"]:
        """Its distance at columns and rows."""
        a, b, c, d = self._inverse
        x, y = xs - self._middle[0], (ys - self._middle[1])[:, None]
        u, v = a * x + b * y, c * x + d * y
        gx, gy = a * u + c * v, b * u + d * v
        return (u * u + v * v - 1.0) / (2.0 * np.sqrt(gx * gx + gy * gy) + 1e-9)


class Ring(Shape):
    """What is within one ellipse and without another."""

    def __init__(self, whole: Ellipse, hole: Ellipse):
        super().__init__(whole.box)
        self._whole, self._hole = whole, hole

    def field(self, xs: Float[Array, " x"], ys: Float[Array, " y"]) -> Float[Array, "y x"]:
        """Its distance at columns and rows."""
        return np.maximum(self._whole.field(xs, ys), -self._hole.field(xs, ys))


def place(outline: Outline, frame: Frame, size: int) -> Shape | None:
    """An outline in a picture, or None if nothing of it is within.

    Args:
        outline: a part of an object.
        frame: where the object's square lies.
        size: of the picture's side.
    """
    if isinstance(outline, Polygon):
        return _polygon([frame.at(corner) for corner in outline.corners], size)
    middle, (wide, high) = frame.at(outline.middle), outline.radii
    outer = _stretched(frame, wide, high, outline.angle)
    reach_x, reach_y = sqrt(outer[0] ** 2 + outer[1] ** 2), sqrt(outer[2] ** 2 + outer[3] ** 2)
    box = _box(middle[0] - reach_x, middle[1] - reach_y, middle[0] + reach_x, middle[1] + reach_y, size)
    if box is None:
        return None
    whole = Ellipse(box, middle, outer)
    if not outline.width:
        return whole
    inner = _stretched(frame, wide - outline.width, high - outline.width, outline.angle)
    return Ring(whole, Ellipse(box, middle, inner))


def _stretched(frame: Frame, wide: float, high: float, angle: int) -> tuple[float, float, float, float]:
    """The matrix that makes the unit circle an ellipse of these radii, turned, in the frame."""
    c, s = COS[angle % 360], SIN[angle % 360]
    a, b, d, e = wide * c, -high * s, wide * s, high * c
    return (
        frame.xx * a + frame.xy * d,
        frame.xx * b + frame.xy * e,
        frame.yx * a + frame.yy * d,
        frame.yx * b + frame.yy * e,
    )


def _box(left: float, top: float, right: float, bottom: float, size: int) -> tuple[int, int, int, int] | None:
    x0, y0 = max(0, floor(left) - MARGIN), max(0, floor(top) - MARGIN)
    x1, y1 = min(size, ceil(right) + MARGIN), min(size, ceil(bottom) + MARGIN)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _polygon(corners: list[tuple[float, float]], size: int) -> Shape | None:
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    box = _box(min(xs), min(ys), max(xs), max(ys), size)
    if box is None:
        return None
    following = [*corners[1:], corners[0]]
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, following, strict=True))
    sign = 1.0 if area > 0 else -1.0
    lines = []
    for (x0, y0), (x1, y1) in zip(corners, following, strict=True):
        length = sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2)
        if length > 0:
            a, b = sign * (y1 - y0) / length, -sign * (x1 - x0) / length
            lines.append((a, b, -a * x0 - b * y0))
    return Convex(box, np.array(lines))


def texture(
    surface: Surface, anchor: tuple[float, float], size: int, xs: Float[Array, " x"], ys: Float[Array, " y"]
) -> Float[Array, "y x"] | None:
    """Distance from the border of the two tones of a surface, negative in the second; None if it has one tone.

    Args:
        surface: its texture is not plain.
        anchor: a point that the texture moves with, in pixels.
        size: of the picture's side.
        xs: middles of the columns.
        ys: middles of the rows.
    """
    if surface.texture == "plain":
        return None
    c, s = COS[surface.angle % 360], SIN[surface.angle % 360]
    period = surface.period * size / SIDE
    x, y = xs - anchor[0], (ys - anchor[1])[:, None]
    start = surface.phase / SIDE
    u, v = (c * x + s * y) / period + start, (c * y - s * x) / period + start
    return period * _PATTERNS[surface.texture](u, v)


def _across(u: Array) -> Array:
    """Distance from the border of equally wide bands, in periods."""
    return 0.25 - np.abs(u - np.floor(u) - 0.5)


def _checks(u: Array, v: Array) -> Array:
    a, b = _across(u), _across(v)
    return np.where((a > 0) == (b > 0), 1.0, -1.0) * np.minimum(np.abs(a), np.abs(b))


def _dots(u: Array, v: Array) -> Array:
    a, b = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    return np.sqrt(a * a + b * b) - 0.3


def _waves(u: Array, v: Array) -> Array:
    part = v / 1.8 - np.floor(v / 1.8)
    # two parabolas, for a sine would differ between machines
    swing = np.where(part < 0.5, part * (0.5 - part), (part - 0.5) * (part - 1.0))
    return 0.8 * _across(u + 4.0 * swing)


def _grid(u: Array, v: Array) -> Array:
    a, b = np.abs(u - np.floor(u) - 0.5), np.abs(v - np.floor(v) - 0.5)
    return np.minimum(a, b) - 0.14


def _noise(u: Array, v: Array) -> Array:
    """Cells of a third of the period, each of either tone, without a pattern."""
    a, b = (np.floor(3.0 * w).astype(np.int64).astype(np.uint32) for w in (u, v))
    mixed = a * np.uint32(0x9E3779B1) ^ b * np.uint32(0x85EBCA77)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> np.uint32(12))) * np.uint32(0x297A2D39)
    return np.where((mixed >> np.uint32(16)) & np.uint32(1), FAR, -FAR)


_PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "stripes": lambda u, v: _across(u),
    "checks": _checks,
    "dots": _dots,
    "waves": _waves,
    "grid": _grid,
    "noise": _noise,
}
