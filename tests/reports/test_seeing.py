"""Pictures of circuits in vision, drawn from tables as the methods make them."""

from __future__ import annotations

import numpy as np
import xarray

from openwork.reports.kernels import MOST_TILES, kernel_pictures
from openwork.reports.seeing import circuit_pictures


def weights() -> xarray.Dataset:
    kernel = np.zeros((2, 9, 3, 3))
    kernel[0, 4, 1, 1], kernel[0, 4, 0, 0], kernel[1, 2, 2, 2] = 2.0, -1.0, 0.5
    pairs = ("out_unit", "in_unit")
    return xarray.Dataset(
        {
            "kernel": ((*pairs, "dy", "dx"), kernel),
            "excitation": (pairs, np.maximum(kernel, 0).sum((2, 3))),
            "inhibition": (pairs, np.maximum(-kernel, 0).sum((2, 3))),
            "strength": (pairs, np.sqrt((kernel**2).sum((2, 3)))),
        },
        {"out_unit": [7, 8], "in_unit": range(9), "dy": [-1, 0, 1], "dx": [-1, 0, 1]},
        {"sender": "module:a.out", "receiver": "module:b.out"},
    )


def graph() -> xarray.Dataset:
    return xarray.Dataset(
        {"node_effect": ("node", [2.0, 1.0, 0.0]), "edge_effect": ("edge", [1.5, -0.5])},
        {
            "node": ["module:b.out[1]", "module:a.out[4]", "module:b.out[2]"],
            "node_level": ("node", [1, 0, 1]), "node_kept": ("node", [True, True, False]),
            "sender": ("edge", ["module:a.out[4]", "module:a.out[4]"]),
            "receiver": ("edge", ["module:b.out[1]", "module:b.out[2]"]), "kept": ("edge", [True, False]),
        },
        {"class_name": "car"},
    )  # fmt: skip


def test_the_strongest_kernel_of_each_unit_comes_first_with_both_signs() -> None:
    (drawn,) = kernel_pictures(weights())
    svg = drawn.picture.svg
    assert svg.index(">4<") < svg.index(">2<")
    assert svg.count('class="plus"') == 2
    assert svg.count('class="minus"') == 1
    assert svg.count('class="cell"') == 2 * MOST_TILES


def test_a_class_stands_above_the_channels_that_are_kept() -> None:
    (drawn,) = circuit_pictures(graph())
    assert drawn.picture.title == "What car is made of"
    assert drawn.picture.svg.count('class="edge"') == 2  # one between channels, one into the class
    assert "[2]" not in drawn.picture.text


def test_tables_of_other_methods_have_no_such_picture() -> None:
    assert circuit_pictures(xarray.Dataset({"effect": ("x", [1.0])})) == []


def test_a_family_is_drawn_with_its_angles() -> None:
    table = xarray.Dataset(
        {
            "kernel": (("unit", "in_unit", "dy", "dx"), np.ones((3, 3, 3, 3))),
            "family": ("unit", [0, -1, 0]), "angle": ("unit", [0.0, np.nan, 90.0]), "mirrored": ("unit", [False] * 3),
        },
        {"unit": [5, 6, 7], "in_unit": [0, 1, 2]},
        {"site": "module:a.out", "sender": "module:conv.in"},
    )  # fmt: skip
    (drawn,) = circuit_pictures(table)
    assert "7: 90°" in drawn.picture.svg
    assert ">red<" in drawn.picture.svg
    assert "6:" not in drawn.picture.text


def test_maps_of_places_say_where_the_largest_is() -> None:
    place = np.zeros((3, 4))
    place[1, 2] = 5.0
    both = place[None]
    channel = np.array([1.0, 2.0])
    ends = {"": 0.0, "_low": -0.1, "_high": 0.1}
    variables = {f"place_effect{e}": (("y", "x"), place + d) for e, d in ends.items()}
    variables |= {f"channel_effect{e}": (("channel",), channel + d) for e, d in ends.items()}
    variables |= {f"channel_place_effect{e}": (("top", "y", "x"), both + d) for e, d in ends.items()}
    variables |= {"differs": (("y", "x"), place / 5), "gap": (("example",), np.ones(4))}
    table = xarray.Dataset(variables, {"top": [1]}, {"site": "module:a.out"})
    drawn = circuit_pictures(table)
    assert len(drawn) == 4
    assert "row 1, column 2" in drawn[1].picture.text
