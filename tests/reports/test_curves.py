"""Lines: what their axes say, and which are left out."""

from __future__ import annotations

import re

import numpy as np

from openwork.reports.curves import Curve, curves


def written(*found: Curve) -> list[str]:
    return re.findall(r">([^<>]+)</text>", curves(found, "x", "y", "lines").svg)


def test_an_axis_of_whole_numbers_names_no_others() -> None:
    assert "0.5" not in written(Curve("a", [0, 1, 2, 3], [10, 20, 30, 40]))
    assert {"0", "1", "2", "3"} <= set(written(Curve("a", [0, 1, 2, 3], [10, 20, 30, 40])))


def test_an_axis_of_shares_has_names() -> None:
    said = written(Curve("a", [0.25, 0.5, 0.75], [10, 20, 30]))
    assert {"0.3", "0.5", "0.7"} <= set(said) or {"0.4", "0.6"} <= set(said)


def test_a_line_of_nothing_but_nan_is_left_out() -> None:
    said = written(Curve("a", [0, 1], [10, 20]), Curve("nothing", [0, 1], [np.nan, np.nan]))
    assert "a" in said
    assert "nothing" not in said
