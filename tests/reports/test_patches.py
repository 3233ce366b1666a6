"""Pictures of vision transformers: what lies where in the image, and lines for what was measured alone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import xarray

from openwork.reports.patches import patch_pictures
from openwork.reports.svg import Picture

BLOCKS, HEIGHT, WIDTH = 3, 2, 4


def registers(where: tuple[int, int, int] | None) -> xarray.Dataset:
    outliers = np.zeros((BLOCKS, HEIGHT, WIDTH))
    likeness = np.full(BLOCKS, np.nan)
    if where is not None:
        outliers[where], likeness[where[0]] = 0.75, 0.9
    return xarray.Dataset(
        {
            "outliers": (("block", "y", "x"), outliers), "share": ("block", outliers.mean((1, 2))),
            "likeness": ("block", likeness), "ordinary_likeness": ("block", np.full(BLOCKS, 0.5)),
        },
        attrs={"n": 40},
    )  # fmt: skip


def cells(picture: Picture) -> dict[str, tuple[float, float]]:
    """Hint -> where the cell lies, from the left and from above."""
    found = {}
    for one in ET.fromstring(picture.svg).iter():
        if one.tag.endswith("rect") and len(one):
            found[one[0].text] = (float(one.get("x", 0)), float(one.get("y", 0)))
    return found


@pytest.mark.parametrize("y", [0, 1])
def test_places_lie_as_in_the_image(y: int) -> None:
    curves, places = patch_pictures(registers((1, y, 3)))
    assert "behind block 1" in places.note
    where = cells(places.picture)
    assert f"row {y}, column 3: in 75 % of images" in where
    by_row = {r: {v[1] for k, v in where.items() if k.startswith(f"row {r},")} for r in range(HEIGHT)}
    assert max(by_row[0]) < min(by_row[1])
    assert max(x for x, _ in where.values()) == where[f"row {y}, column 3: in 75 % of images"][0]
    assert "their likeness to neighbours" in curves.picture.svg


def test_without_outliers_there_is_no_map_and_no_line_of_their_likeness() -> None:
    (curves,) = patch_pictures(registers(None))
    legend = re.findall(r">([^<>]+)</text>", curves.picture.svg)
    assert "likeness of the others" in legend
    assert "their likeness to neighbours" not in legend


def test_heads_follow_concepts_beyond_what_place_explains() -> None:
    axes = ("block", "head", "from", "concept")
    lift = np.ones((2, 2, 1, 3))
    lift[1, 0, 0, 2] = 5.0
    table = xarray.Dataset(
        {
            "distance": (("block", "head"), [[8.0, 16.0], [12.0, 20.0]]),
            "to_prefix": (("block", "head"), np.zeros((2, 2))),
            "lift": (axes, lift), "foreign_lift": (axes, np.full((2, 2, 1, 3), 0.5)),
        },
        {"concept": ["wheel", "sail", "wing"]}, {"uniform_distance": 25.0, "n": 12},
    )  # fmt: skip
    distances, followed = patch_pictures(table.assign_attrs(concept="part"))
    assert "12 held-out images" in distances.note
    assert any(hint.startswith("block 1, head 0, wing: 4.50 more") for hint in cells(followed.picture))
