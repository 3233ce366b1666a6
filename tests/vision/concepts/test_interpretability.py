# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import openwork as ow
from openwork.errors import BadInput, TaskFailed
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.concepts.interpretability import Score, area, interpretability, mask_vectors, projected, prototypes
from openwork.worlds.picture_array import PictureArray

KINDS = 8
COLOURS = np.array([[b >> 2 & 1, b >> 1 & 1, b & 1] for b in range(KINDS)]) * 200 + 20


def pictures(n: int, seed: int) -> PictureArray:
    """Each class is a colour of half of the patches; the rest are random."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, KINDS, n)
    kinds = rng.integers(0, KINDS, (n, 4, 4))
    kinds[:, :, :2] = labels[:, None, None]
    mask = kinds.repeat(2, 1).repeat(2, 2)
    pixels = COLOURS[mask].transpose(0, 3, 1, 2) + rng.integers(-15, 15, (n, 3, 8, 8))
    return PictureArray(
        torch.tensor(pixels, dtype=torch.uint8), f"kinds {seed}", {"kind": tuple("abcdefgh")},
        {"kind": torch.tensor(mask + 1)}, torch.tensor(labels), tuple("abcdefgh"),
    )  # fmt: skip


def network() -> Network:
    """One channel a colour, then mixed: no channel is a colour by itself."""
    torch.manual_seed(0)
    first, mix = nn.Conv2d(3, KINDS, 2, stride=2), nn.Conv2d(KINDS, 24, 1, bias=False)
    centred = torch.tensor(COLOURS / 255 - 0.47, dtype=torch.float32)
    first.weight.data = (centred / 4)[:, :, None, None].repeat(1, 1, 2, 2)
    first.bias.data = -centred.pow(2).sum(1) * 0.75
    mix.weight.data = torch.linalg.qr(torch.randn(24, KINDS)).Q[:, :, None, None]
    net = nn.Sequential(first, nn.ReLU(), mix, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, KINDS)).eval()
    return ow.open(
        net,
        example={"input": torch.rand(2, 3, 8, 8)},
        images=ImageFormat(mean=(0.47,) * 3, sd=(1.0,) * 3),
        name="mixed",
    )


@pytest.fixture(scope="module")
def result() -> Result:
    return interpretability(network(), "module:2.out", pictures(240, 0), Score(concepts=8), held_out=pictures(160, 1))


def test_prototypes_carry_classes_more_sparsely_than_random_vectors(result: Result):
    assert float(result.table.score[0]) > float(result.table.random_score.max())
    assert result.findings[0].control is not None
    assert result.findings[0].control.p_value <= 0.01
    assert result.findings[0].evidence.value == "observed"


def test_the_score_is_the_area_under_the_accuracy(result: Result):
    table = result.table
    accuracy = table.accuracy.values / table.attrs["original"]
    slow = sum((accuracy[i] + accuracy[i + 1]) / 2 * 0.1 for i in range(9))
    assert float(table.score[0]) == pytest.approx(slow)


def test_vectors_of_masks_are_concepts():
    net, find = network(), pictures(120, 0)
    vectors = mask_vectors(net, "module:2.out", find, list(range(120)))
    assert vectors.shape == (KINDS, 24)
    found = interpretability(net, "module:2.out", find, vectors=vectors)
    assert float(found.table.score[0]) > float(found.table.random_score.max())


def test_the_weakest_scores_are_dropped():
    rng = np.random.default_rng(0)
    x, vectors = rng.normal(size=(20, 6)), rng.normal(size=(10, 6))
    whole, some = projected(x, vectors, 0.0), projected(x, vectors, 0.35)
    assert np.allclose(whole.mean(1), 0)
    assert np.allclose(whole.std(1), 1)
    assert ((some == 0).sum(1) == 3).all()
    for row, other in zip(whole, some, strict=True):
        assert set(np.flatnonzero(other == 0)) == set(np.argsort(np.abs(row))[:3])


def test_an_image_told_right_at_every_share_adds_the_whole_range():
    told = np.ones((3, 4), dtype=bool)
    assert np.allclose(area(told, (0.0, 0.5, 0.9), 0.5), 1.8)


def test_prototypes_of_clear_clusters_are_their_centres():
    rng = np.random.default_rng(0)
    places = np.repeat(np.eye(4), 30, 0) * rng.uniform(1, 9, (120, 1)) + rng.normal(0, 1e-3, (120, 4))
    found = prototypes(places, 4, 0)
    assert np.allclose(np.sort(found.argmax(1)), np.arange(4))
    with pytest.raises(BadInput, match="not zero"):
        prototypes(np.zeros((50, 4)), 4, 0)


def test_features_that_say_nothing_of_classes_are_an_error():
    find = pictures(60, 0)
    find.labels[:] = torch.arange(60) % 2
    with pytest.raises(TaskFailed, match="nothing to be interpreted"):
        interpretability(network(), "module:2.out[0]", find, Score(concepts=3, ridge=1e9))


def test_vectors_of_another_length_are_an_error():
    with pytest.raises(BadInput, match=r"vectors \(concept, 24\)"):
        interpretability(network(), "module:2.out", pictures(40, 0), vectors=np.ones((3, 7)))
    with pytest.raises(BadInput, match="rising drops"):
        Score(drops=(0.5, 0.1))
