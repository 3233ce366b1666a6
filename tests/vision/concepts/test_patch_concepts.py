from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import multivariate_normal
from torch import nn

import openwork as ow
from openwork.errors import BadInput
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.concepts.patch_concepts import PatchConcepts, densities, patch_concepts, regressed
from openwork.worlds.picture_array import PictureArray


def pictures(n: int, seed: int) -> PictureArray:
    """Patches of three colours in noise; an image has most of one."""
    rng = np.random.default_rng(seed)
    kinds = np.stack([rng.choice(3, (4, 4), p=np.roll([0.7, 0.2, 0.1], i % 3)) for i in range(n)])
    pixels = np.eye(3)[kinds.repeat(2, 1).repeat(2, 2)].transpose(0, 3, 1, 2) * 150
    return PictureArray(torch.tensor(pixels + rng.integers(0, 40, pixels.shape), dtype=torch.uint8), f"patches {seed}")


def network() -> Network:
    """Says which colour is commonest."""
    conv, head = nn.Conv2d(3, 5, 2, stride=2), nn.Linear(5, 3)
    torch.manual_seed(1)
    conv.weight.data = 0.02 * torch.randn(5, 3, 2, 2)
    for colour in range(3):
        conv.weight.data[colour, colour] += 0.5
    head.weight.data = torch.cat((6 * torch.eye(3), torch.zeros(3, 2)), 1)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    return ow.open(net, example={"input": torch.rand(2, 3, 8, 8)}, images=ImageFormat(), name="commonest")


@pytest.fixture(scope="module")
def result() -> Result:
    method = PatchConcepts(concepts=3, dims=3, epochs=2)
    return patch_concepts(network(), "module:0.out", pictures(150, 0), method, held_out=pictures(60, 1))


def test_concepts_are_the_kinds_of_patches(result: Result):
    assigned = result.table.assignment.values.argmax(1)
    kinds = (result.table.image.values.reshape(8, 4, 2, 4, 2, 3).mean((2, 4))).argmax(-1)
    pairs = {(int(a), int(k)) for a, k in zip(assigned.ravel(), kinds.ravel(), strict=True)}
    assert len(pairs) == 3


def test_explanations_tell_what_the_network_says(result: Result):
    assert result.table.attrs["agreement"] > 0.9
    told = next(f for f in result.findings if "tell what" in f.claim)
    assert told.evidence.value == "observed"
    assert told.control is not None
    assert told.control.p_value <= 0.01
    assert told.estimate > 0


def test_places_of_the_concept_that_speaks_for_a_class_carry_it(result: Result):
    carried = next(f for f in result.findings if "carry it" in f.claim)
    assert str(carried.verdict) == "supported"
    assert carried.control is not None
    assert carried.estimate > carried.control.high


def test_mixtures_are_stable_under_a_shift_by_a_patch(result: Result):
    assert result.table.attrs["stability"] > 0.99


def test_densities_are_those_of_gaussians():
    rng = np.random.default_rng(0)
    x, means = rng.normal(size=(3, 4, 2)), rng.normal(size=(2, 2))
    factors = rng.normal(size=(2, 2, 2))
    covariances = factors @ factors.transpose(0, 2, 1) + np.eye(2)
    found = densities(x, means, covariances)
    for concept in range(2):
        expected = multivariate_normal(means[concept], covariances[concept]).logpdf(x) + np.log(2 * np.pi)
        assert np.allclose(found[..., concept], expected)


def test_regression_finds_the_weights_that_made_the_output():
    rng = np.random.default_rng(0)
    x, weights = rng.dirichlet(np.ones(4), 600), rng.normal(size=(3, 4)) * 3
    found, bias = regressed(x, softmax(x @ weights.T, axis=1), penalty=1e-7)
    assert np.allclose(softmax(x @ found.T + bias, axis=1), softmax(x @ weights.T, axis=1), atol=1e-2)


def test_a_site_without_maps_is_an_error():
    with pytest.raises(BadInput, match="site of maps"):
        patch_concepts(network(), "logits", pictures(20, 0))


def test_too_few_places_are_an_error():
    with pytest.raises(BadInput, match="places or more"):
        patch_concepts(network(), "module:0.out", pictures(4, 0), PatchConcepts(concepts=20))
    with pytest.raises(BadInput, match="forget"):
        PatchConcepts(forget=1.0)
