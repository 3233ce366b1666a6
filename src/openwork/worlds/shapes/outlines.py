"""What each class is built of: convex outlines within the square from -1 to 1, farthest first, y downwards.

Variations, from -1 to 1, change shapes within a class; nothing here depends on colour, texture or pose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Point = tuple[float, float]
BODY, LARGE, DETAIL = 0, 1, 2
"""Which of an object's surfaces."""


class Polygon(NamedTuple):
    """A convex polygon of a part."""

    part: str
    surface: int
    corners: tuple[Point, ...]


class Oval(NamedTuple):
    """An ellipse of a part, turned by whole degrees; of positive `width` only its border, so thick."""

    part: str
    surface: int
    middle: Point
    radii: Point
    angle: int = 0
    width: float = 0.0


Outline = Polygon | Oval
Variations = Sequence[float]


def _box(part: str, surface: int, left: float, top: float, right: float, bottom: float) -> Polygon:
    return Polygon(part, surface, ((left, top), (right, top), (right, bottom), (left, bottom)))


def _wheels(places: Sequence[float], y: float, radius: float) -> list[Outline]:
    tyres: list[Outline] = [Oval("wheel", LARGE, (x, y), (radius, radius)) for x in places]
    return tyres + [Oval("wheel", DETAIL, (x, y), (0.45 * radius, 0.45 * radius)) for x in places]


def _car(v: Variations) -> list[Outline]:
    top, back = -0.42 - 0.1 * v[0], -0.62 - 0.12 * v[1]
    return [
        Polygon("cab", BODY, ((back, 0.04), (back + 0.22, top), (0.28, top), (0.62, 0.04))),
        Polygon("window", DETAIL, ((back + 0.14, -0.02), (back + 0.29, top + 0.1), (-0.1, top + 0.1), (-0.1, -0.02))),
        Polygon("window", DETAIL, ((0.0, -0.02), (0.0, top + 0.1), (0.22, top + 0.1), (0.44, -0.02))),
        Polygon("body", BODY, ((-0.98, 0.06), (0.7, 0.0), (0.98, 0.14), (0.98, 0.46), (-0.98, 0.46))),
        _box("door", LARGE, -0.28, 0.08, 0.12, 0.4),
        Oval("light", DETAIL, (0.9, 0.22), (0.08, 0.08)),
        *_wheels((-0.56, 0.56), 0.46, 0.24 + 0.04 * v[2]),
    ]


def _truck(v: Variations) -> list[Outline]:
    top = -0.6 - 0.14 * v[0]
    return [
        _box("body", BODY, -1.0, top, 0.34 + 0.06 * v[1], 0.4),
        Polygon("cab", LARGE, ((0.44, -0.3), (0.76, -0.3), (1.0, 0.05), (1.0, 0.4), (0.44, 0.4))),
        Polygon("window", DETAIL, ((0.54, -0.2), (0.72, -0.2), (0.88, 0.05), (0.54, 0.05))),
        Oval("light", DETAIL, (0.93, 0.25), (0.06, 0.06)),
        *_wheels((-0.72, -0.24, 0.68), 0.44, 0.22 + 0.03 * v[2]),
    ]


def _house(v: Variations) -> list[Outline]:
    peak, wall = -0.82 - 0.12 * v[0], 0.7 + 0.08 * v[1]
    door = 0.25 * v[2]
    return [
        _box("chimney", DETAIL, 0.34, -0.8, 0.56, -0.2),
        _box("body", BODY, -wall, -0.15, wall, 0.88),
        Polygon("roof", LARGE, ((-wall - 0.2, -0.12), (0.0, peak), (wall + 0.2, -0.12))),
        _box("door", LARGE, door - 0.15, 0.36, door + 0.15, 0.88),
        _box("window", DETAIL, -0.54, 0.05, -0.2, 0.34),
        _box("window", DETAIL, 0.2, 0.05, 0.54, 0.34),
    ]


def _legs(places: Sequence[float], top: float, bottom: float, width: float, surface: int = BODY) -> list[Outline]:
    return [_box("leg", surface, x - width / 2, top, x + width / 2, bottom) for x in places]


def _cat(v: Variations) -> list[Outline]:
    tail, size = 0.14 * v[0], 0.33 + 0.03 * v[1]
    foot = 0.86 + 0.06 * v[2]
    return [
        Polygon("tail", LARGE, ((-0.62, 0.25), (-0.9 + tail, -0.62), (-0.74 + tail, -0.66), (-0.44, 0.18))),
        *_legs((-0.5, -0.26, 0.16, 0.38), 0.3, foot, 0.16),
        Oval("body", BODY, (-0.08, 0.26), (0.6, 0.32)),
        Polygon("ear", LARGE, ((0.22, -0.36), (0.22, -0.9), (0.54, -0.52))),
        Polygon("ear", LARGE, ((0.58, -0.52), (0.9, -0.9), (0.9, -0.36))),
        Oval("head", BODY, (0.56, -0.24), (size + 0.03, size - 0.02)),
        Oval("eye", DETAIL, (0.43, -0.28), (0.08, 0.09)),
        Oval("eye", DETAIL, (0.69, -0.28), (0.08, 0.09)),
        Polygon("nose", DETAIL, ((0.49, -0.11), (0.63, -0.11), (0.56, -0.03))),
    ]


def _dog(v: Variations) -> list[Outline]:
    foot, ear = 0.88 + 0.06 * v[2], 0.3 + 0.06 * v[0]
    snout = 0.24 + 0.04 * v[1]
    return [
        Polygon("tail", LARGE, ((-0.7, 0.06), (-1.0, -0.2), (-0.94, -0.34), (-0.58, -0.04))),
        *_legs((-0.6, -0.38, 0.2, 0.42), 0.2, foot, 0.15),
        _box("body", BODY, -0.72, -0.08, 0.5, 0.36),
        Oval("snout", LARGE, (0.78, -0.28), (snout, 0.14)),
        Oval("head", BODY, (0.5, -0.38), (0.28, 0.28)),
        Oval("ear", LARGE, (0.3, -0.34), (0.13, ear), 12),
        Oval("eye", DETAIL, (0.57, -0.46), (0.075, 0.075)),
        Oval("nose", DETAIL, (0.74 + snout, -0.3), (0.08, 0.08)),
    ]


def _bird(v: Variations) -> list[Outline]:
    wing, leg = 0.1 * v[0], 0.84 + 0.08 * v[2]
    return [
        Polygon("tail", LARGE, ((-0.4, 0.12), (-1.0, 0.1 + 0.15 * v[1]), (-0.94, 0.46 + 0.15 * v[1]), (-0.4, 0.36))),
        *_legs((-0.1, 0.14), 0.4, leg, 0.08, DETAIL),
        Polygon("beak", DETAIL, ((0.66, -0.56), (1.02, -0.38), (0.66, -0.26))),
        Oval("body", BODY, (-0.02, 0.16), (0.6, 0.38), -18),
        Oval("head", BODY, (0.48, -0.4), (0.28, 0.28)),
        Oval("wing", LARGE, (-0.14, 0.08), (0.42, 0.22 + wing / 3), 14),
        Oval("eye", DETAIL, (0.54, -0.46), (0.075, 0.075)),
    ]


def _fish(v: Variations) -> list[Outline]:
    fork, high = 0.44 + 0.1 * v[0], 0.42 + 0.07 * v[1]
    return [
        Polygon("tail", LARGE, ((-0.4, 0.0), (-1.0, -fork), (-0.8, 0.0))),
        Polygon("tail", LARGE, ((-0.4, 0.0), (-0.8, 0.0), (-1.0, fork))),
        Polygon("fin", LARGE, ((0.35, -0.3), (-0.1, -0.3), (-0.35 - 0.1 * v[2], -0.72), (-0.05, -0.66))),
        Polygon("fin", LARGE, ((0.2, 0.3), (-0.14, 0.3), (-0.3, 0.66))),
        Oval("body", BODY, (0.14, 0.0), (0.7, high)),
        Oval("fin", LARGE, (0.08, 0.1), (0.2, 0.11), -20),
        Oval("eye", DETAIL, (0.54, -0.1), (0.085, 0.085)),
    ]


def _plane(v: Variations) -> list[Outline]:
    sweep, up = 0.12 * v[0], -0.56 - 0.08 * v[1]
    windows = (-0.35, -0.1, 0.15, 0.4)
    return [
        Polygon("wing", LARGE, ((0.2, -0.1), (-0.1, -0.1), (-0.36 - sweep, -0.52), (-0.2 - sweep, -0.52))),
        Polygon("tail", LARGE, ((-0.56, -0.05), (-0.92, -0.05), (-1.0, up), (-0.82, up))),
        Oval("body", BODY, (0.0, 0.0), (0.96, 0.21 + 0.02 * v[2])),
        Polygon("tail", LARGE, ((-0.62, 0.02), (-0.86, 0.02), (-1.0, 0.2), (-0.9, 0.2))),
        *(Oval("window", DETAIL, (x, -0.06), (0.06, 0.06)) for x in windows),
        Polygon("cab", DETAIL, ((0.62, -0.14), (0.8, -0.1), (0.88, -0.02), (0.62, -0.02))),
        Polygon("wing", LARGE, ((0.28, 0.06), (-0.1, 0.06), (-0.5 - sweep, 0.72), (-0.26 - sweep, 0.72))),
    ]


def _boat(v: Variations) -> list[Outline]:
    deck, top = 0.34 + 0.06 * v[0], -0.92 + 0.08 * v[1]
    return [
        _box("mast", DETAIL, -0.05, top, 0.05, deck),
        Polygon("sail", LARGE, ((0.1, top + 0.04), (0.78, 0.18), (0.1, 0.18))),
        Polygon("sail", LARGE, ((-0.1, top + 0.22 + 0.1 * v[2]), (-0.1, 0.18), (-0.58, 0.18))),
        Polygon("body", BODY, ((-0.95, deck), (0.95, deck), (0.62, 0.86), (-0.62, 0.86))),
        *(Oval("window", DETAIL, (x, deck + 0.2), (0.075, 0.075)) for x in (-0.4, 0.0, 0.4)),
    ]


def _tree(v: Variations) -> list[Outline]:
    trunk = _box("stem", LARGE, -0.13 - 0.03 * v[1], 0.1, 0.13 + 0.03 * v[1], 0.95)
    if v[0] > 0.2:
        tiers = ((-0.95, -0.3, 0.42), (-0.6, 0.12, 0.56), (-0.22, 0.52, 0.7))
        tier = [
            Polygon("leaf", BODY, ((0.0, top), (wide + 0.06 * v[2], low), (-wide - 0.06 * v[2], low)))
            for top, low, wide in reversed(tiers)
        ]
        return [trunk, *tier]
    wide = 0.42 + 0.05 * v[2]
    crowns = ((-0.36, -0.02, 0.4), (0.36, -0.02, 0.4), (0.0, -0.44, wide))
    return [trunk, *(Oval("leaf", BODY, (x, y), (radius, 0.38)) for x, y, radius in crowns)]


PETALS = {5: ((0, -100), (95, -31), (59, 81), (-59, 81), (-95, -31)),
          6: ((0, -100), (87, -50), (87, 50), (0, 100), (-87, 50), (-87, -50))}  # fmt: skip
"""Number of petals -> where they are around the centre, in hundredths of their distance."""


def _flower(v: Variations) -> list[Outline]:
    radius, leaf = 0.25 + 0.03 * v[1], 0.58 + 0.1 * v[2]
    places = PETALS[6 if v[0] > 0 else 5]
    return [
        _box("stem", LARGE, -0.06, -0.2, 0.06, 0.96),
        Oval("leaf", LARGE, (-0.28, leaf), (0.26, 0.11), 28),
        Oval("leaf", LARGE, (0.28, leaf - 0.08), (0.26, 0.11), -28),
        *(Oval("petal", BODY, (0.0033 * x, -0.36 + 0.0033 * y), (radius, radius)) for x, y in places),
        Oval("centre", DETAIL, (0.0, -0.36), (0.2, 0.2)),
    ]


def _mug(v: Variations) -> list[Outline]:
    foot, top = 0.5 + 0.08 * v[0], -0.6 - 0.1 * v[1]
    return [
        Oval("handle", LARGE, (0.44, 0.04), (0.42 + 0.05 * v[2], 0.42), 0, 0.17),
        Polygon("body", BODY, ((-0.75, top), (0.45, top), (foot - 0.1, 0.8), (-foot - 0.2, 0.8))),
        Oval("rim", DETAIL, (-0.15, top), (0.6, 0.15)),
    ]


def _chair(v: Variations) -> list[Outline]:
    top, lean = -0.9 - 0.06 * v[0], 0.1 + 0.08 * v[1]
    seat = 0.12 + 0.08 * v[2]
    return [
        *_legs((-0.32, 0.36), seat, 0.74, 0.12, DETAIL),
        Polygon("back", LARGE, ((-0.62 - lean, top), (-0.34 - lean, top), (-0.3, seat + 0.05), (-0.58, seat + 0.05))),
        Polygon("seat", BODY, ((-0.6, seat - 0.06), (0.56, seat - 0.06), (0.68, seat + 0.22), (-0.6, seat + 0.22))),
        *_legs((-0.52, 0.58), seat + 0.22, 0.96, 0.15, DETAIL),
    ]


def _rocket(v: Variations) -> list[Outline]:
    wide, fin = 0.29 + 0.04 * v[0], 0.66 + 0.08 * v[1]
    return [
        Polygon("fin", LARGE, ((-wide + 0.04, 0.08), (-fin, 0.84), (-wide + 0.04, 0.62))),
        Polygon("fin", LARGE, ((wide - 0.04, 0.08), (fin, 0.84), (wide - 0.04, 0.62))),
        Polygon("tail", DETAIL, ((-0.16, 0.6), (0.16, 0.6), (0.22, 0.82), (-0.22, 0.82))),
        _box("body", BODY, -wide, -0.42, wide, 0.66),
        Polygon("nose", LARGE, ((-wide, -0.4), (0.0, -0.98), (wide, -0.4))),
        Oval("window", DETAIL, (0.0, -0.14), (0.15, 0.15)),
        Oval("window", DETAIL, (0.0, 0.26 + 0.05 * v[2]), (0.1, 0.1)),
    ]


OUTLINES: Mapping[str, Callable[[Variations], list[Outline]]] = {
    "car": _car,
    "truck": _truck,
    "house": _house,
    "cat": _cat,
    "dog": _dog,
    "bird": _bird,
    "fish": _fish,
    "plane": _plane,
    "boat": _boat,
    "tree": _tree,
    "flower": _flower,
    "mug": _mug,
    "chair": _chair,
    "rocket": _rocket,
}
"""Class -> the outlines of its parts, for its variations."""
