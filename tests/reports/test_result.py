"""Results of causal methods as pictures and pages, from tables that were invented and from one that was measured."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from openwork.errors import BadInput, CorruptFile
from openwork.evidence import judge
from openwork.finding import Finding, Provenance
from openwork.reports import Picture, render, result_page, result_pictures, sweep_map
from openwork.reports.labelled import MOST_COLUMNS, MOST_PANELS, rows_of
from openwork.reports.pathways import path_graph
from openwork.reports.result import claims_pictures
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.store import write_json

NS = {"s": "http://www.w3.org/2000/svg"}
LAYERS = ["blocks.0.resid_pre", "blocks.1.resid_pre"]


def shapes(picture: Picture, kind: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(picture.svg).iter() if kind in e.get("class", "").split()]


def hints(picture: Picture) -> list[str]:
    root = ET.fromstring(picture.svg)
    return [t for e in root for t in [e.findtext("s:title", namespaces=NS)] if t]


def texts(picture: Picture) -> list[str]:
    return [e.text or "" for e in ET.fromstring(picture.svg).iter(f"{{{NS['s']}}}text")]


def around(axes: tuple[str, ...], values: Any, name: str = "effect", ends: tuple[str, str] = ("low", "high")) -> Any:
    values = np.asarray(values, dtype=float)
    return {name: (axes, values), ends[0]: (axes, values - 0.5), ends[1]: (axes, values + 0.5)}


def finding(effect: float, claim: str = "a claim", controls: float = 0.0, n: int = 30) -> Finding:
    rng = np.random.default_rng(0)
    found = judge(
        effect + 0.1 * rng.standard_normal(n), Standard().criteria(1.0, "nats"), "held-out",
        controls + 0.05 * rng.standard_normal(100), "random things", seed=0,
    )  # fmt: skip
    provenance = Provenance(
        model="a net", model_hash="m" * 8, data_hash="d" * 8, code_hash="c" * 8, openwork="0", python="3", torch="2",
        device="cpu", dtype="float32", threads=1, command="openwork trace a-net",
    )  # fmt: skip
    return found.finding(claim, 0, provenance, {})


def result(*findings: Finding, table: xarray.Dataset | None = None, remarks: tuple[str, ...] = ()) -> Result:
    empty = xarray.Dataset(around(("site", "group"), [[1.0, 0.0], [0.25, 2.0]]), {"site": LAYERS, "group": ["a", "b"]})
    settings = {"task": "a task", "standard": {"alpha": 0.05}}
    return Result("a method", findings, empty if table is None else table, settings, remarks)


# -- pictures --


def test_a_cell_tells_its_value_interval_and_p() -> None:
    variables = around(("site", "group"), [[1.0, 0.0], [0.25, 2.0]])
    variables["p"] = (("site", "group"), np.array([[0.01, 1.0], [0.5, 0.03]]))
    variables["recovery"] = (("site", "group"), np.array([[0.4, 0.0], [0.1, 0.8]]))
    table = xarray.Dataset(variables, {"site": LAYERS, "group": ["a", "b"]}, {"unit": "nats"})
    (drawn,) = result_pictures(result(table=table))
    assert sorted(hints(drawn.picture)) == [
        "L0 resid_pre, a: 1.00 nats (0.50 to 1.50), p = 0.01\nrecovery 0.40",
        "L0 resid_pre, b: 0.00 nats (−0.50 to 0.50), p = 1\nrecovery 0.00",
        "L1 resid_pre, a: 0.25 nats (−0.25 to 0.75), p = 0.5\nrecovery 0.10",
        "L1 resid_pre, b: 2.00 nats (1.50 to 2.50), p = 0.03\nrecovery 0.80",
    ]
    assert sorted(e.text or "" for e in shapes(drawn.picture, "sure")) == ["1.00", "2.00"]


def test_later_layers_are_higher() -> None:
    (drawn,) = result_pictures(result())
    place = {e.findtext("s:title", namespaces=NS): float(e.get("y", 0)) for e in shapes(drawn.picture, "plus")}
    y = {str(hint)[:2]: y for hint, y in place.items() if hint}
    assert y["L1"] < y["L0"]


def test_adjusted_p_values_are_preferred() -> None:
    cells = ("site", "group")
    variables = around(cells, [[1.0], [1.0]]) | {"p": (cells, [[0.01], [0.01]]), "q": (cells, [[0.2], [0.04]])}
    table = xarray.Dataset(variables, {"site": LAYERS, "group": ["a"]})
    (drawn,) = result_pictures(result(table=table))
    assert len(shapes(drawn.picture, "sure")) == 1
    assert "after correction" in drawn.note


def test_cells_without_value_are_left_out() -> None:
    table = xarray.Dataset(around(("site", "group"), [[1.0, np.nan], [2.0, np.nan]]), {"site": LAYERS})
    (drawn,) = result_pictures(result(table=table))
    assert len(hints(drawn.picture)) == 2


def test_a_table_of_nothing_but_nan_has_no_picture() -> None:
    table = xarray.Dataset(around(("site",), [np.nan, np.nan]), {"site": LAYERS})
    assert result_pictures(result(table=table)) == []
    assert "Nothing is claimed" in result_page(result(table=table))


def test_three_axes_make_maps_of_one_scale() -> None:
    values = np.arange(12.0).reshape(2, 2, 3)
    coordinates = {"kind": ["resid_post", "mlp.out"], "layer": [0, 1], "place": ["x", "y", "z"]}
    table = xarray.Dataset(around(("kind", "layer", "place"), values, "indirect"), coordinates, {"unit": "nats"})
    drawn = result_pictures(result(table=table))
    assert [d.picture.title for d in drawn] == [
        "Indirect effect by layer and place: resid_post", "Indirect effect by layer and place: mlp.out",
    ]  # fmt: skip
    assert all("11.0 nats" in texts(d.picture) for d in drawn)


def test_of_many_maps_the_largest_are_shown() -> None:
    values = np.ones((2, 20, 12)) * np.arange(12)
    table = xarray.Dataset(around(("site", "position", "head"), values), {"site": LAYERS, "head": np.arange(12)})
    drawn = result_pictures(result(table=table))
    assert [d.picture.title.rpartition(": ")[2] for d in drawn] == [f"head {h}" for h in range(4, 12)]
    assert f"the {MOST_PANELS} maps with the largest values of 12" in drawn[-1].note


def test_of_many_columns_the_largest_are_shown() -> None:
    values = np.arange(200.0)[None]
    table = xarray.Dataset(around(("site", "unit"), values), {"site": LAYERS[:1], "unit": np.arange(200)})
    (drawn,) = result_pictures(result(table=table))
    assert len(hints(drawn.picture)) == MOST_COLUMNS
    assert not any("unit 79:" in hint for hint in hints(drawn.picture))
    assert f"{MOST_COLUMNS} of 200" in drawn.note


def test_slanted_names_of_columns_stand_apart() -> None:
    names = [f"blocks.0.resid_post[{i}]" for i in range(100)]
    table = xarray.Dataset(around(("site", "unit"), np.ones((1, 100))), {"site": LAYERS[:1], "unit": names})
    (drawn,) = result_pictures(result(table=table))
    places = [float(x) for x in re.findall(r"translate\(([\d.]+),[\d.]+\) rotate\(-35\)", drawn.picture.svg)]
    assert len(places) > 10
    assert np.diff(places).min() * np.sin(np.radians(35)) > 11  # the size of the letters


@pytest.mark.parametrize(("centres", "kind"), [(5, "curve-band"), (3, "cell")])
def test_windows_over_many_layers_are_lines(centres: int, kind: str) -> None:
    table = xarray.Dataset(
        around(("pair", "centre"), np.ones((2, centres))),
        {"pair": ["a reads b", "a reads c"], "centre": range(centres)},
    )
    (drawn,) = result_pictures(result(table=table))
    assert shapes(drawn.picture, kind)
    assert len(shapes(drawn.picture, "curve-band")) == (2 if kind == "curve-band" else 0)
    assert {"a reads b", "a reads c"} <= set(texts(drawn.picture))


def components(index: list[int]) -> xarray.Dataset:
    names = [f"blocks.{i // 2}.attn.z[{i % 2}]" for i in range(4)]
    coordinates = {
        "component": names, "layer": ("component", [0, 0, 1, 1]), "kind": ("component", ["attn.z"] * 4),
        "index": ("component", index),
    }  # fmt: skip
    return xarray.Dataset(around(("component",), [1.0, 2.0, 3.0, 4.0]), coordinates)


def test_heads_lie_by_layer_and_number() -> None:
    (drawn,) = result_pictures(result(table=components([0, 1, 0, 1])))
    assert {hint.partition(":")[0] for hint in hints(drawn.picture)} == {
        "layer 0, head 0", "layer 0, head 1", "layer 1, head 0", "layer 1, head 1",
    }  # fmt: skip


def test_components_that_share_a_place_lie_in_a_row() -> None:
    (drawn,) = result_pictures(result(table=components([0, 0, 0, 1])))
    assert {hint.partition(":")[0] for hint in hints(drawn.picture)} == {"L0 H0", "L0 H1", "L1 H0", "L1 H1"}


def test_parts_of_a_direction_are_bars() -> None:
    ends = ("recovery_low", "recovery_high")
    table = xarray.Dataset(
        around(("part", "split"), [[0.9, 0.8], [0.1, 0.2]], "recovery", ends),
        {"part": ["full", "row space"], "split": ["find", "held-out"]},
    )
    (drawn,) = result_pictures(result(table=table))
    assert "recovery: full, held-out: 0.80 (0.30 to 1.30), n = 1" in hints(drawn.picture)
    assert len(shapes(drawn.picture, "dot")) == 4


def test_controls_stand_beside_the_cells_that_they_match() -> None:
    axes = ("circuit", "task")
    variables = around(axes, [[1.0, 0.0], [0.0, 1.0]])
    variables["control_effect"] = ((*axes, "control"), np.full((2, 2, 50), 0.25))
    table = xarray.Dataset(variables, {"circuit": ["c", "d"], "task": ["s", "t"]})
    (drawn,) = result_pictures(result(table=table))
    assert "controls of d, t: 0.25 (0.25 to 0.25), n = 50" in hints(drawn.picture)
    assert "grey" in drawn.note


def test_losses_are_curves_by_training() -> None:
    table = xarray.Dataset({"loss": (("training", "step"), [[2.0, 1.0, 0.5], [2.0, 2.0, 1.9]])})
    (drawn,) = result_pictures(result(table=table))
    assert {"loss", "shuffled pairs 1"} <= set(texts(drawn.picture))


# -- edges --


def edges(keys: int = 2) -> xarray.Dataset:
    senders = ["blocks.0.attn.z[0]", "blocks.0.attn.z[1]", "blocks.1.attn.z[0]", "blocks.1.attn.z[1]"]
    receivers = [f"blocks.1.attn.k[{i}]" for i in range(keys)] + ["blocks.1.attn.q[0]", "blocks.1.attn.q[1]", "logits"]
    effect = np.full((4, len(receivers)), np.nan)
    effect[:2] = 0.0
    effect[2:, -1] = 0.0
    effect[1, 0], effect[1, keys], effect[2, -1] = 3.0, 1.0, 2.0
    p = np.where(np.isnan(effect), np.nan, np.where(effect > 0, 1e-6, 0.9))
    both = ("sender", "receiver")
    variables = around(both, effect) | {"p": (both, p), "total": (("sender", "example"), np.ones((4, 6)))}
    return xarray.Dataset(variables, {"sender": senders, "receiver": receivers}, {"unit": "nats"})


def test_edges_that_differ_from_nothing_are_a_graph() -> None:
    picture = path_graph(edges())
    assert picture is not None
    assert len(shapes(picture, "edge")) == 2
    assert any("L0 H1 → L1 H0 (key): 3.00 nats" in hint for hint in hints(picture))
    assert "logits" in texts(picture)


def test_keys_of_several_heads_are_left_to_the_table() -> None:
    picture = path_graph(edges(keys=1))
    assert picture is not None
    assert any("L0 H1 → L1 H0 (query): 1.00 nats" in hint for hint in hints(picture))
    assert not any("(key)" in hint for hint in hints(picture))


def test_without_a_sure_edge_there_is_no_graph() -> None:
    table = edges()
    table["p"] = xarray.full_like(table["p"], 0.5)
    assert path_graph(table) is None
    (drawn,) = result_pictures(result(table=table))
    assert drawn.picture.title == "Effect by sender and receiver"


# -- sweeps --


def swept(axes: tuple[str, ...], values: np.ndarray, **coordinates: Any) -> xarray.DataArray:
    cells = around(axes, values)
    each = np.repeat(values[..., None], 3, axis=-1)
    return xarray.DataArray(each, {**coordinates, **cells}, (*axes, "example"), name="logit difference",
                            attrs={"unit": "nats"})  # fmt: skip


def test_a_sweep_is_a_map_of_its_effects() -> None:
    table = swept(("site", "position"), np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), site=LAYERS, position=range(3))
    picture = sweep_map(table)
    assert "L1 resid_pre, 2: 5.00 nats (4.50 to 5.50)" in hints(picture)
    assert len(hints(picture)) == 6


def test_a_third_axis_stands_beside_the_second() -> None:
    values = np.arange(12.0).reshape(2, 2, 3)
    picture = sweep_map(swept(("site", "head", "position"), values, site=LAYERS, head=[0, 1], position=range(3)))
    assert "L1 resid_pre, head 1, 2: 11.0 nats (10.5 to 11.5)" in hints(picture)
    assert len(hints(picture)) == 12


def test_a_sweep_over_sites_alone_is_a_row() -> None:
    assert len(hints(sweep_map(swept(("site",), np.array([1.0, 2.0]), site=LAYERS)))) == 2


def test_an_array_without_effects_is_no_sweep() -> None:
    with pytest.raises(BadInput, match="coordinates effect, low and high"):
        sweep_map(xarray.DataArray(np.ones((2, 2)), dims=("site", "example")))


# -- pages --


def test_the_page_says_the_verdict_of_every_claim() -> None:
    page = result_page(result(finding(1.0, "it works"), finding(0.0, "it does not")))
    assert '<div class="verdict supported">' in page
    assert "Supported in part</strong>" in page
    assert "1 of 2 claims is supported on held-out examples" in page
    assert re.search(r"✓ Supported</span> it works", page)
    assert re.search(r"✕ Rejected</span> it does not", page)
    assert page.count("100 random things: mean") == 2


@pytest.mark.parametrize(
    ("effect", "controls", "status"), [(1.0, 0.0, "supported"), (0.0, 0.0, "rejected"), (1.0, 1.0, "rejected")]
)
def test_the_verdict_is_that_of_the_findings(effect: float, controls: float, status: str) -> None:
    one = finding(effect, controls=controls)
    assert one.verdict == status
    assert f'<div class="verdict {status}">' in result_page(result(one))


def test_a_warning_stands_before_the_claims() -> None:
    page = result_page(result(finding(1.0), remarks=("illusion check: WARNING, flagged", "read this too")))
    assert page.index('role="alert"') < page.index('id="claims"')
    assert page.index("WARNING, flagged") < page.index('id="remarks"') < page.index("read this too")
    assert 'role="alert"' not in result_page(result(finding(1.0), remarks=("read this too",)))


def test_pictures_stand_before_claims() -> None:
    page = result_page(result(finding(1.0)))
    assert (
        page.index('id="verdict"') < page.index('id="pictures"') < page.index('id="claims"') < page.index('id="repeat"')
    )


def test_claims_beyond_the_third_are_folded() -> None:
    claims = [f"claim {number}" for number in range(5)]
    page = result_page(result(*(finding(1.0, claim) for claim in claims)))
    opened = re.findall(r"<li><details( open)?><summary>.*?</span> (claim \d)</summary>", page)
    assert opened == [(" open" if claim in claims[:3] else "", claim) for claim in claims]


def test_the_page_tells_how_to_repeat_it() -> None:
    page = result_page(result(finding(1.0)))
    assert "openwork trace a-net" in page
    assert "standard.alpha" in page
    assert "m" * 8 in page


def test_everything_is_escaped_and_nothing_is_loaded() -> None:
    bad = "<script>alert(1)</script>"
    table = xarray.Dataset(
        around(("site", "group"), [[1.0], [2.0]]), {"site": LAYERS, "group": [bad]}, {"unit": bad, "network": bad}
    )
    hostile = Result(bad, (finding(1.0, bad),), table, {"task": bad, bad: bad}, (bad, f"WARNING {bad}"))
    page = result_page(hostile)
    assert bad not in page
    assert page.count("<script>") == 1
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(target.startswith("#") for target in loaded)
    assert "default-src &#39;none&#39;" in page


def test_all_numbers_are_there_as_a_table() -> None:
    rows = rows_of(result().table)
    assert rows[0][:4] == ("effect", "L1 resid_pre, b", "2.00 ", "1.50 to 2.50")
    assert len(rows) == 4


def test_a_saved_result_gives_the_same_page(tmp_path: Path) -> None:
    one = result(finding(1.0), remarks=("note",))
    one.save(tmp_path)
    assert result_page(tmp_path) == result_page(one)
    assert render(tmp_path).read_text(encoding="utf-8") == result_page(one)


def test_a_folder_of_neither_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"study\.json or a result\.json"):
        render(tmp_path)


def test_a_result_of_another_version_is_refused(tmp_path: Path) -> None:
    result().save(tmp_path)
    write_json(tmp_path / "result.json", {"schema": "openwork/result", "schema_version": 99})
    with pytest.raises(CorruptFile, match="version 1"):
        render(tmp_path)


def test_claims_are_drawn_unit_by_unit_with_the_line_that_all_of_them_had_to_reach() -> None:
    nats, share = finding(0.9, "first"), finding(0.5, "second").model_copy(update={"unit": "share"})
    assert nats.criteria is not None
    stricter = nats.model_copy(update={"criteria": replace(nats.criteria, min_effect=0.4)})
    drawn = claims_pictures([nats, share, stricter])
    assert [any("claim 2" in text for text in texts(one.picture)) for one in drawn] == [False, True]
    assert [sum(text.startswith("claim") for text in texts(one.picture)) for one in drawn] == [2, 1]
    assert ["dashed" in one.note for one in drawn] == [False, True]
