"""Masks of shapes against a slow reading of the geometry: one pixel at a time, with nothing of the code under test."""

from __future__ import annotations

from math import atan2, cos, degrees, hypot, radians, sin

import numpy as np
import pytest

from openwork.worlds.shapes import (
    CLASSES,
    COLOURS,
    CONCEPTS,
    ORIENTATIONS,
    PARTS,
    TEXTURES,
    Background,
    Blob,
    Scene,
    Shapes,
    Surface,
    Thing,
    masks,
    render,
    visible,
)
from openwork.worlds.shapes.outlines import OUTLINES, Oval, Polygon

SIZE = 48
BLOBS = {
    "box": Polygon("", 0, ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))),
    "oval": Oval("", 0, (0.0, 0.0), (1.0, 1.0)),
    "triangle": Polygon("", 0, ((0.0, -1.0), (1.0, 1.0), (-1.0, 1.0))),
}


def local(x, y, thing_x, thing_y, wide, high, angle, mirrored):
    """A point of the picture in the square of an object."""
    dx, dy = x - thing_x, y - thing_y
    turned = (
        dx * cos(radians(angle)) + dy * sin(radians(angle)),
        -dx * sin(radians(angle)) + dy * cos(radians(angle)),
    )
    return (-1 if mirrored else 1) * turned[0] / wide, turned[1] / high


def inside(outline, u, v):
    """How far inside an outline a point is: positive within."""
    if isinstance(outline, Polygon):
        corners = outline.corners
        signs = []
        for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            signs.append(((x1 - x0) * (v - y0) - (y1 - y0) * (u - x0)) / hypot(x1 - x0, y1 - y0))
        return max(min(signs), min(-s for s in signs))

    def within(wide, high):
        du, dv, a = u - outline.middle[0], v - outline.middle[1], radians(outline.angle)
        return 1 - hypot((du * cos(a) + dv * sin(a)) / wide, (-du * sin(a) + dv * cos(a)) / high)

    whole = within(*outline.radii)
    if not outline.width:
        return whole
    return min(whole, -within(outline.radii[0] - outline.width, outline.radii[1] - outline.width))


def pieces(scene):
    """Every outline with what it shows, farthest first."""
    for blob in scene.background.blobs:
        yield BLOBS[blob.shape], blob, (blob.width / 2, blob.height / 2), False, ("", "", blob.surface)
    for thing in scene.things:
        sides = thing.scale / 2 * (1 + thing.stretch / 2000), thing.scale / 2 * (1 - thing.stretch / 2000)
        for outline in OUTLINES[thing.kind]([(2 * v - 999) / 999 for v in thing.variation]):
            shown = (thing.kind, outline.part, thing.surfaces[outline.surface])
            yield outline, thing, sides, thing.mirrored, shown
    for blob in scene.occluders:
        yield BLOBS[blob.shape], blob, (blob.width / 2, blob.height / 2), False, ("", "", blob.surface)


def slow(scene):
    """Category -> mask, and which pixels lie so near a border that rounding decides."""
    out = {category: np.zeros((SIZE, SIZE), int) for category in ("object", "part", "texture", "colour")}
    doubtful = np.zeros((SIZE, SIZE), bool)
    layers = list(pieces(scene))
    for row in range(SIZE):
        for column in range(SIZE):
            x, y = ((place + 0.5) * 1000 / SIZE for place in (column, row))
            back = scene.background
            shown = ("", "", back.surface)
            on = None
            for outline, owner, sides, mirrored, what in layers:
                depth = inside(outline, *local(x, y, owner.x, owner.y, *sides, owner.angle, mirrored))
                doubtful[row, column] |= abs(depth) * max(sides) * SIZE / 1000 < 0.06
                if depth > 0:
                    shown, on = what, outline
            kind, part, surface = shown
            gradient = on is None and back.kind == "gradient"
            out["object"][row, column] = CLASSES.index(kind) + 1 if kind else 0
            out["part"][row, column] = PARTS.index(part) + 1 if part else 0
            out["texture"][row, column] = 0 if gradient else TEXTURES.index(surface.texture) + 1
            out["colour"][row, column] = list(COLOURS).index(surface.colour) + 1
    return out, doubtful


@pytest.mark.parametrize("i", range(6))
def test_masks_say_what_lies_nearest_at_the_middle_of_each_pixel(i):
    scene = Shapes(seed=7, split="find").scene(i)
    wanted, doubtful = slow(scene)
    found = masks(scene, SIZE)
    assert doubtful.mean() < 0.1
    for category, mask in wanted.items():
        assert (found[category] == mask)[~doubtful].all(), category


def test_every_object_has_parts_everywhere_and_nothing_else_has():
    for i in range(30):
        found = masks(Shapes().scene(i), SIZE)
        assert ((found["object"] > 0) == (found["part"] > 0)).all()
        assert (found["colour"] > 0).all()


def test_visible_is_the_object_mask_by_index():
    for i in range(20):
        scene = Shapes().scene(i)
        kinds = np.array([0, *(CLASSES.index(thing.kind) + 1 for thing in scene.things)])
        assert (kinds[visible(scene, SIZE) + 1] == masks(scene, SIZE)["object"]).all()


def test_a_plain_surface_away_from_borders_has_its_very_colour():
    surfaces = (Surface("red"), Surface("blue"), Surface("white"))
    scene = Scene(Background("plain", Surface("green")), (Thing("mug", 500, 500, 800, surfaces),))
    pixels, colours = render(scene, 64), masks(scene, 64)["colour"]
    exact = [(pixels == np.array(rgb)[:, None, None]).all(0) for rgb in COLOURS.values()]
    for k, name in enumerate(COLOURS, 1):
        if name in ("red", "blue", "white", "green"):
            assert exact[k - 1][colours == k].mean() > 0.5
        assert not exact[k - 1][colours != k].any()


def orientation(angle):
    """The concept of a line `angle` degrees above the horizontal."""
    return int(angle / 22.5 + 0.5) % 8 + 1


def on(blob):
    """A blob far in front of a tiny object in a corner."""
    corner = Thing("car", -900, -900, 50, (Surface("red"), Surface("blue"), Surface("white")))
    return Scene(Background("plain", Surface("green")), (corner,), occluders=(blob,))


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 110, 137, 165])
def test_edges_of_a_bar_have_its_orientation(angle):
    # clockwise turns are negative angles above the horizontal
    edge = masks(on(Blob("box", 500, 500, 3000, 250, angle, Surface("white"))), 64)["edge"]
    assert set(np.unique(edge)) == {0, orientation(-angle % 180)}
    assert (edge > 0).sum() > 150


def test_edges_of_a_disc_are_its_tangents():
    edge = masks(on(Blob("oval", 500, 500, 700, 700, 0, Surface("white"))), 64)["edge"]
    found = 0
    for row, column in zip(*np.nonzero(edge), strict=True):
        dx, dy = column + 0.5 - 32, row + 0.5 - 32
        assert abs(hypot(dx, dy) - 22.4) < 1.05
        tangent = (degrees(atan2(-dy, dx)) + 90) % 180
        if abs((tangent / 22.5) % 1 - 0.5) > 0.02:  # not where rounding decides
            assert edge[row, column] == orientation(tangent)
            found += 1
    assert found > 100
    assert set(np.unique(edge)) == set(range(9))


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
def test_stripes_have_edges_along_them(angle):
    scene = on(Blob("box", 500, 500, 10, 10, 0, Surface("red")))
    background = Background("textured", Surface("white", "stripes", angle=angle, period=150))
    edge = masks(Scene(background, scene.things), 64)["edge"]
    assert set(np.unique(edge)) == {0, orientation((90 - angle) % 180)}
    assert 0.15 < (edge > 0).mean() < 0.6


def test_there_is_no_edge_where_both_sides_look_alike():
    assert not masks(on(Blob("box", 500, 500, 400, 400, 20, Surface("green"))), 64)["edge"].any()


def test_edges_lie_where_the_picture_changes():
    for i in range(10):
        scene = Shapes(seed=2).scene(i)
        edge = masks(scene, 64)["edge"] > 0
        pixels = render(scene, 64).astype(float)
        slope = np.hypot(*np.gradient(pixels, axis=(1, 2))).max(0)
        assert slope[edge].mean() > 4 * slope[~edge].mean()


def test_names_of_orientations_go_around_half_a_turn():
    assert len(ORIENTATIONS) == 8 == len(set(ORIENTATIONS))
    assert CONCEPTS["edge"] == ORIENTATIONS
