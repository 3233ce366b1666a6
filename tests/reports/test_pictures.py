from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from openwork.reports import Bar, Picture, component_map, intervals, pictures, random_circuits, residual_map
from openwork.reports.graph import circuit_graph, role_colours
from openwork.reports.svg import Canvas, Scale
from openwork.studies.schema import Control, Estimate, Study

NS = {"s": "http://www.w3.org/2000/svg"}


def shapes(picture: Picture, kind: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(picture.svg).iter() if kind in e.get("class", "").split()]


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=10)


def test_heat_map_shades_by_size_and_colours_by_sign(study: Study) -> None:
    assert study.effects is not None
    picture = residual_map(study.effects, "denoising", "nats")
    values = {(e.layer, e.position): e.effect.value for e in study.effects.residual}
    drawn = [e for e in shapes(picture, "plus") + shapes(picture, "minus") if e.find("s:title", NS) is not None]
    assert len(drawn) == len(values) == 20
    largest = max(values.values(), key=abs)
    full = [e for e in drawn if float(e.get("fill-opacity", "0")) == 1]
    assert len(full) == 1
    assert f"{largest:.2f}" in str(full[0].findtext("s:title", namespaces=NS))
    hints = {str(e.findtext("s:title", namespaces=NS)) for e in shapes(picture, "minus")}
    assert sum(": −" in hint for hint in hints) == sum(value < 0 for value in values.values())


def test_members_of_the_circuit_are_framed(study: Study) -> None:
    assert study.effects is not None
    picture = component_map(study.effects, "denoising", ["blocks.2.attn.z[3]", "blocks.0.mlp.out"], "nats")
    framed = [str(e.findtext("s:title", namespaces=NS)) for e in shapes(picture, "marked")]
    assert [hint.split(":")[0] for hint in sorted(framed)] == ["L0 MLP", "L2 H3"]


def test_graph_stacks_layers_and_widens_strong_edges(study: Study) -> None:
    assert study.candidates is not None
    nodes, edges = study.candidates.candidates[0].nodes, study.candidates.edges
    picture = circuit_graph(nodes, edges, "nats")
    height = {str(e.findtext("s:title", namespaces=NS)).split(":")[0]: float(e.get("y", "0"))
              for e in shapes(picture, "node")}  # fmt: skip
    assert set(height) == {node.site for node in nodes}
    assert height["blocks.0.attn.z[2]"] > height["blocks.0.mlp.out"] > height["blocks.2.attn.z[3]"]
    assert height["blocks.2.attn.z[3]"] == height["blocks.2.attn.z[5]"]
    widths = [float(e.get("stroke-width", "0")) for e in shapes(picture, "edge")]
    assert len(widths) == len(edges)
    assert max(widths) == 8
    assert len(shapes(picture, "faint")) == sum(not edge.significant for edge in edges) == 1


def test_edges_that_are_not_significant_give_way_where_there_are_many(study: Study) -> None:
    assert study.candidates is not None
    nodes, edges = study.candidates.candidates[0].nodes, study.candidates.edges * 4
    drawn = shapes(circuit_graph(nodes, edges, "nats"), "edge")
    assert len(drawn) == sum(edge.significant for edge in edges) == 24


def test_roles_share_a_colour_and_differ_from_others(study: Study) -> None:
    assert study.candidates is not None
    nodes = study.candidates.candidates[0].nodes
    assert role_colours(nodes) == {"previous token": 0, "induction": 1}
    picture = circuit_graph(nodes, [], "nats")
    assert len(shapes(picture, "role1")) == 2


def test_a_circuit_of_one_node_can_be_drawn(study: Study) -> None:
    assert study.candidates is not None
    picture = circuit_graph(study.candidates.candidates[0].nodes[:1], [], "nats")
    assert len(shapes(picture, "node")) == 1


def test_histogram_counts_every_circuit_and_says_how_many_reach_the_found_one() -> None:
    values = np.array([0.0] * 40 + [0.5] * 9 + [0.95])
    control = Control(name="random", value=0.1, low=0, high=0.5, n=50, p_value=0.04)
    picture = random_circuits(values, estimate(0.9), control)
    counts = [int(str(e.findtext("s:title", namespaces=NS)).split()[0]) for e in shapes(picture, "bin")]
    assert sum(counts) == 50
    assert "1 random circuits reach as much" in picture.text


def test_intervals_lie_where_their_values_are() -> None:
    picture = intervals([Bar("a", estimate(0.2)), Bar("b", estimate(0.8), "found")], "x", "t", limit=("needed", 0.5))
    first, second = [float(e.get("cx", "0")) for e in shapes(picture, "dot")]
    (limit,) = shapes(picture, "limit")
    assert first < float(limit.get("x1", "0")) < second
    assert float(limit.get("x1", "0")) == pytest.approx((first + second) / 2, abs=0.01)


def test_scale_holds_zero_and_all_values() -> None:
    scale = Scale.around([2.0, 5.0], 0, 100)
    assert scale(0) == 0
    assert scale(5) < 100
    assert scale.ticks()[0] == 0
    assert Scale.around([-3.0, -1.0], 0, 100)(0) <= 100
    assert Scale.around([], 0, 1).ticks()


def test_a_picture_stands_alone_in_a_notebook_and_in_a_file(tmp_path: Path) -> None:
    canvas = Canvas(10, 10, "<t>", "a & b")
    canvas.text_at(1, 1, "<script>")
    picture = canvas.picture()
    assert picture._repr_svg_() == picture.save(tmp_path / "p.svg").read_text(encoding="utf-8")
    root = ET.fromstring(picture.standalone())
    assert root.findtext("s:title", namespaces=NS) == "<t>"
    assert "--ink" in str(root.findtext("s:style", namespaces=NS))
    assert root.find(".//s:script", NS) is None


def test_every_picture_of_a_study_is_well_formed(study: Study, arrays: dict[str, np.ndarray]) -> None:
    drawn = pictures(study, arrays)
    assert set(drawn) == {"gate", "circuit", "components", "residual", "random", "rivals", "elsewhere"}
    assert [method for method, _ in drawn["components"]] == ["mean ablation", "denoising"]
    for picture in [p for p in drawn.values() if isinstance(p, Picture)]:
        ET.fromstring(picture.svg)
