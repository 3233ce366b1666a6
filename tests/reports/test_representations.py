"""Pictures of representations: which a table gets, what they hold, and that text in them is escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import xarray

from openwork.reports.representations import representations
from openwork.reports.scatter import scatter
from openwork.reports.svg import Picture

SITES = [f"blocks.{i}.resid_post" for i in range(4)]


def layers() -> xarray.Dataset:
    d = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    pair = ("site", "other_site")
    values: dict[str, Any] = {"distance": (pair, d), "distance_low": (pair, d - 0.1), "distance_high": (pair, d + 0.1)}
    values |= {"phase": ("site", [0, 0, 1, 1]), "stability": ("site", [1.0, 0.9, 0.8, 1.0])}
    return xarray.Dataset(values, {"site": SITES, "other_site": SITES}, {"network": "n"})


def test_phases_have_one_frame_each_and_say_how_stable_they_are() -> None:
    (drawn,), rest = representations(layers())
    assert drawn.picture.svg.count('class="marked"') == 2
    assert "L2 resid_post 80%" in drawn.note
    assert "distance" not in rest
    assert "distance_low" not in rest


def test_phases_that_return_have_a_frame_for_each_run() -> None:
    (drawn,), _ = representations(layers().assign(phase=("site", [0, 1, 0, 0])))
    assert drawn.picture.svg.count('class="marked"') == 5


def test_only_universal_matches_have_frames() -> None:
    names = ["blocks.0.attn.z[0]", "blocks.0.attn.z[1]"]
    table = xarray.Dataset(
        {
            "alike": (("feature", "other_feature"), [[0.9, 0.1], [0.2, 0.3]]),
            "counterpart": ("feature", names),
            "universal": ("feature", [True, False]),
        },
        {"feature": names, "other_feature": names},
    )
    (drawn,), _ = representations(table)
    assert drawn.picture.svg.count('class="marked"') == 1


def many(sites: int, each: int = 40) -> xarray.Dataset:
    names = [f"blocks.{site}.resid_post[{unit}]" for site in range(sites) for unit in range(each)]
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {f"likeness{end}": ("feature", rng.random(len(names))) for end in ("", "_low", "_high")}
    values |= {"control_likeness": ("feature", rng.random(len(names)) / 2)}
    values |= {"universal": ("feature", values["likeness"][1] > 0.5)}
    return xarray.Dataset(values, {"feature": names}, {"network": "a", "other": "b", "threshold": 0.5})


def heights(picture: Picture, kind: str) -> np.ndarray:
    drawn = [e for e in ET.fromstring(picture.svg).iter() if e.get("class") == f"{kind} curve"]
    return np.array([float(point.split(",")[1]) for point in (drawn[0].get("points") or "").split()])


def test_many_features_fall_from_the_most_alike_one_line_a_site() -> None:
    table = many(2)
    table["likeness"][3] = np.nan
    (drawn,), rest = representations(table)
    legend = "L0 resid_post", "L1 resid_post", "best of the copies with shuffled weights", "universal above this"
    assert all(name in drawn.picture.svg for name in legend)
    assert [len(heights(drawn.picture, f"curve{i}")) for i in range(4)] == [39, 40, 80, 2]
    for i in range(3):
        assert (np.diff(heights(drawn.picture, f"curve{i}")) >= 0).all()
    above = (heights(drawn.picture, "curve1") < heights(drawn.picture, "curve3")[0]).sum()
    assert above == int(table["universal"][40:].sum())
    assert set(rest.data_vars) == {"control_likeness", "universal"}


def test_of_many_sites_all_features_share_a_line() -> None:
    (drawn,), _ = representations(many(7))
    assert len(heights(drawn.picture, "curve0")) == 280


def test_few_features_keep_their_intervals() -> None:
    drawn, rest = representations(many(1, each=20))
    assert not drawn
    assert "likeness_low" in rest


def test_drift_is_drawn_over_steps_where_names_tell_them() -> None:
    names = ["m@step-0", "m@step-100", "m@step-900"]
    values = {f"cka_{to}{end}": (("stage", "site"), np.ones((3, 1))) for to in ("first", "previous", "last")
              for end in ("", "_low", "_high")}  # fmt: skip
    values |= {name: ("stage", [np.nan, 3.0, 4.0]) for name in ("kept", "moved", "vanished", "appeared")}
    values["own"] = (("stage", "part"), np.ones((3, 2)))
    table = xarray.Dataset(values, {"stage": names, "site": SITES[:1], "part": ["blocks.0.attn.z[0]", "x"]})
    drawn, rest = representations(table)
    assert len(drawn) == 5
    assert "step" in drawn[0].picture.svg
    assert not [name for name in rest.data_vars if str(name).startswith("cka_")]


def test_a_dot_for_every_sample_with_rare_labels_together() -> None:
    labels = [f"<{i % 9}>" for i in range(90)]
    held = np.arange(90) % 2 == 0
    picture = scatter(np.random.default_rng(0).normal(size=(90, 2)), labels, held, "places", ("a", "b"))
    # the legend has a dot for each of five colours
    assert picture.svg.count("<circle") == 95
    assert "<0>" not in picture.svg
    assert "other: 50" in picture.text


def test_other_tables_are_left_alone() -> None:
    table = xarray.Dataset({"effect": ("site", np.ones(4))}, {"site": SITES})
    drawn, rest = representations(table)
    assert (drawn, rest.identical(table)) == ([], True)
