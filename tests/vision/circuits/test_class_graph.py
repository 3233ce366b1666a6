"""The graph of a class: a chain put in by hand is found exactly, and edges are what they are by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, TaskFailed, UnknownName
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.circuits.class_graph import Tracing, _Work, circuit_of, class_graph
from openwork.vision.corpora import Split
from openwork.worlds.picture_array import PictureArray

from .chain_network import CHAIN, EDGES, SITES, images, opened

FEW = Tracing(images=24)


@pytest.fixture(scope="module")
def found() -> Result:
    return class_graph(opened(), images(180), "red", SITES, FEW)


def test_exactly_the_chain_is_found(found: Result) -> None:
    circuit = circuit_of(found)
    assert {(str(e.sender), str(e.receiver)) for e in circuit.edges} == EDGES
    assert {str(node) for node in circuit.nodes} == {f"{s}[{c}]" for s, c in zip(SITES, CHAIN, strict=True)}


def test_its_edges_are_supported_on_held_out_images_against_random_ones(found: Result) -> None:
    assert len(found.findings) == 2
    for finding in found.findings:
        assert finding.verdict == "supported", finding.reasons
        assert finding.control is not None
        assert finding.control.mean < 0.05 * finding.estimate
        assert "speaks for red" in finding.claim


def test_every_edge_is_that_of_a_forward_pass_written_out() -> None:
    net, pictures = opened(), images(60)
    split = Split.of(pictures, None, 0)
    work = _Work(net, list(SITES), 0, split, FEW)
    inputs = work.find.clean.values["x"]  # pyright: ignore[reportAttributeAccessIssue]
    module: Any = net.module

    def margin(x: torch.Tensor) -> torch.Tensor:
        logits = module.head(x.mean((2, 3)))
        return logits[:, 0] - logits[:, 1:].mean(1)

    with torch.no_grad():
        first = module.acts[0](module.layers[0](inputs))
        second = module.acts[1](module.layers[1](first))
        third = module.acts[2](module.layers[2](second))
        for s, r in ((2, 5), (0, 3), (4, 1)):
            without = first.clone()
            without[:, s] = work.means[SITES[0]][s]
            changed = second.clone()
            changed[:, r] = module.acts[1](module.layers[1](without))[:, r]
            expected = margin(third) - margin(module.acts[2](module.layers[2](changed)))
            pair = Site(SITES[0], (s,)), Site(SITES[1], (r,))
            np.testing.assert_allclose(work.edges(work.find, [pair])[pair], expected.numpy(), atol=1e-4)


def test_an_edge_that_carries_nothing_is_zero_without_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    work = _Work(opened(), list(SITES), 0, Split.of(images(60), None, 0), FEW)
    monkeypatch.setattr("openwork.vision.circuits.class_graph.measure", None)
    pair = Site(SITES[0], (0,)), Site(SITES[1], (5,))
    assert not work.edges(work.find, [pair])[pair].any()


def test_a_result_goes_to_disk_and_back(found: Result, tmp_path: Any) -> None:
    again = Result.load(found.save(tmp_path / "out"))
    assert circuit_of(again).edges == circuit_of(found).edges


def test_a_class_that_the_network_never_says_is_refused() -> None:
    net = opened()
    with torch.no_grad():
        net.module.head.bias[0] = -100.0  # pyright: ignore
    with pytest.raises(TaskFailed, match="red"):
        class_graph(net, images(60), "red", SITES, FEW)


@pytest.mark.parametrize(
    ("of", "sites", "pictures", "error", "match"),
    [
        ("rde", SITES, None, UnknownName, "red"),
        (7, SITES, None, BadInput, "from 0 to 2"),
        ("red", ["logits"], None, BadInput, "axes"),
        ("red", [], None, BadInput, "sites"),
        ("red", SITES, PictureArray(images(8).values), BadInput, "classes"),
        ("red", SITES, images(4), BadInput, "two find"),
        ("red", ["module:acts.7.out"], None, UnknownName, "acts"),
    ],
)
def test_what_does_not_fit_is_refused(of: Any, sites: Any, pictures: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        class_graph(opened(), pictures or images(30), of, sites, FEW)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="width"):
        Tracing(width=0)
