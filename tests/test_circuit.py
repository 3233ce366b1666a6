"""Circuits: what is saved is what is loaded, and damaged files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.circuit import Circuit, Node
from openwork.errors import BadInput, CorruptFile
from openwork.site import Edge, Site, Where

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # type checks draw what they look at
sites = st.builds(
    Site, st.sampled_from(["embed", "blocks.1.attn.z", "blocks.0.mlp.out"]), st.sampled_from([(), (3,), (1, 2)])
)
wheres = st.sampled_from([Where(), Where(positions=(0, -1)), Where(group="name")])
nodes = st.builds(Node, sites, wheres)
scores = st.floats(-100, 100)
circuits = st.builds(
    Circuit,
    nodes=st.dictionaries(nodes, scores, max_size=5),
    edges=st.dictionaries(st.builds(Edge, sites, sites), scores, max_size=4),
    found_by=st.text(max_size=10),
)


@settings(max_examples=50)
@given(circuits)
def test_a_circuit_comes_back_equal_from_json(circuit: Circuit) -> None:
    assert Circuit.from_json(json.loads(json.dumps(circuit.to_json()))) == circuit


def small() -> Circuit:
    head, mlp = Node(Site("blocks.1.attn.z", (3,)), Where(group="name")), Node(Site("blocks.0.mlp.out"))
    return Circuit({head: 0.5, mlp: -0.25}, {Edge(mlp.site, head.site): 0.1}, "by hand", {head: "induction"})


def test_a_file_keeps_roles_and_scores(tmp_path: Path) -> None:
    path = small().save(tmp_path / "circuit.json")
    assert Circuit.load(path) == small()
    assert Circuit.load(path).roles == small().roles
    assert [p.name for p in tmp_path.iterdir()] == ["circuit.json"]


def test_what_it_holds() -> None:
    circuit = small()
    assert len(circuit) == 2
    assert circuit.sites == (Site("blocks.0.mlp.out"), Site("blocks.1.attn.z", (3,)))
    assert Node(Site("blocks.0.mlp.out")) in circuit
    assert Node(Site("blocks.2.mlp.out")) not in circuit
    assert {str(node) for node in circuit.nodes} == {"blocks.1.attn.z[3]@name", "blocks.0.mlp.out"}


@pytest.mark.parametrize("text", ['{"schema": 1, "nodes": [', "", '{"schema": 1}', '{"schema": 1, "nodes": [{}]}'])
def test_a_damaged_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "circuit.json").write_text(text)
    with pytest.raises(CorruptFile, match=r"circuit\.json"):
        Circuit.load(tmp_path / "circuit.json")


@pytest.mark.parametrize("record", [{"schema": 99}, {}, [], 3])
def test_a_record_of_another_schema(record: Any) -> None:
    with pytest.raises(BadInput, match="schema 1"):
        Circuit.from_json(record)
