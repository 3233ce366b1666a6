"""Kernels and what interventions do: exact in a linear network, better than shuffled kernels in one with rectifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from openwork import network
from openwork.errors import BadInput
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.circuits.expanded import Expanding, correlations, dealt, expanded_weights
from openwork.worlds.picture_array import PictureArray

FIRST, LAST = "module:0.out", "module:4.out"
FEW = Expanding(images=24, entries=16)


def opened(linear: bool = False) -> Network:
    """Three convolutions with a pooling between, with rectifiers or without."""
    torch.manual_seed(0)
    act = nn.Identity if linear else nn.ReLU
    pool = nn.AvgPool2d(2) if linear else nn.MaxPool2d(2)
    layers = [nn.Conv2d(3, 6, 3, padding=1), act(), pool, nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)]
    module = nn.Sequential(*layers, act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    return network.open(module.eval(), example={"input": torch.zeros(2, 3, 20, 20)}, images=ImageFormat())


def images(count: int = 60) -> PictureArray:
    generator = torch.Generator().manual_seed(1)
    return PictureArray(torch.randint(0, 256, (count, 3, 20, 20), generator=generator, dtype=torch.uint8), "noise")


@pytest.fixture(scope="module")
def found() -> Result:
    return expanded_weights(opened(), images(), FIRST, LAST, FEW)


def test_in_a_linear_network_every_intervention_is_foretold_exactly() -> None:
    table = expanded_weights(opened(linear=True), images(), FIRST, LAST, FEW).table
    np.testing.assert_allclose(table["observed"], table["foretold"], atol=1e-5)
    np.testing.assert_allclose(table["agreement"], 1.0, atol=1e-5)


def test_with_rectifiers_kernels_foretell_better_than_those_of_other_pairs(found: Result) -> None:
    (finding,) = found.findings
    assert finding.verdict == "supported", finding.reasons
    assert finding.control is not None
    assert finding.estimate > 0.5 > 0.3 > finding.control.mean
    assert finding.split == "held-out"


def test_the_two_signs_add_up_to_the_kernel(found: Result) -> None:
    table = found.table
    total = table["kernel"].sum(("dy", "dx"))
    np.testing.assert_allclose(table["excitation"] - table["inhibition"], total, atol=1e-5)
    np.testing.assert_allclose(table["strength"], np.sqrt((table["kernel"] ** 2).sum(("dy", "dx"))), rtol=1e-5)


def test_kernels_to_a_logit_are_tested_too() -> None:
    result = expanded_weights(opened(linear=True), images(), LAST, "logits", FEW)
    np.testing.assert_allclose(result.table["agreement"], 1.0, atol=1e-4)


def test_correlation_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    observed, foretold = random.normal(size=(3, 4, 2)), random.normal(size=(4, 2))
    expected = [np.corrcoef(one.ravel(), foretold.ravel())[0, 1] for one in observed]
    np.testing.assert_allclose(correlations(observed, foretold), expected)
    assert correlations(np.zeros((1, 4, 2)), foretold)[0] == 0


def test_dealt_kernels_are_the_same_ones_in_another_order() -> None:
    values = torch.arange(54.0).reshape(2, 3, 3, 3)
    other = dealt(values, np.random.default_rng(0))
    assert sorted(map(tuple, other.flatten(2).flatten(0, 1).tolist())) == [
        tuple(row) for row in values.flatten(2).flatten(0, 1).tolist()
    ]
    assert not torch.equal(other, values)


def test_a_result_goes_to_disk_and_back(found: Result, tmp_path: Any) -> None:
    again = Result.load(found.save(tmp_path / "out"))
    np.testing.assert_array_equal(again.table["kernel"], found.table["kernel"])


@pytest.mark.parametrize("settings", [{"slopes": "steep"}, {"images": 1}, {"entries": 1}, {"push": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings: Any) -> None:
    with pytest.raises(BadInput, match="expected"):
        Expanding(**settings)


def test_a_network_that_says_nothing_of_pixels_is_refused() -> None:
    net = network.open(
        nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 1)).eval(), example={"input": torch.zeros(2, 3, 8, 8)}
    )
    pictures = PictureArray(torch.zeros(8, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(BadInput, match="images="):
        expanded_weights(net, pictures, "module:0.out", "module:1.out", FEW)
