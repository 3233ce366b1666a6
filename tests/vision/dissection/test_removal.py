# pyright: reportIndexIssue=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import openwork as ow
from openwork.errors import BadInput, TaskFailed
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.vision.dissection.removal import Removal, balanced, gains, remove
from openwork.worlds.picture_array import PictureArray

NAMES = ("red", "green", "blue")
UNITS = 80
TRUE = {"red": 2, "green": 5, "blue": 69}
"""The unit that alone decides each class."""


def pictures(n: int, seed: int) -> PictureArray:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = rng.integers(0, 80, (n, 3, 8, 8))
    pixels[np.arange(n), labels] += rng.integers(60, 150, (n, 1, 1))
    return PictureArray(torch.tensor(pixels, dtype=torch.uint8), f"colours {seed}", labels=torch.tensor(labels),
                        class_names=NAMES)  # fmt: skip


def network() -> Network:
    """Eighty channels, of which one decides each class and the others are random and unread."""
    torch.manual_seed(0)
    conv, head = nn.Conv2d(3, UNITS, 1), nn.Linear(UNITS, 3)
    head.weight.data.zero_()
    head.bias.data.zero_()
    for number, unit in enumerate(TRUE.values()):
        conv.weight.data[unit, :, 0, 0] = torch.eye(3)[number]
        conv.bias.data[unit] = 0.0
        head.weight.data[number, unit] = 5.0
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    return ow.open(net, example={"input": torch.rand(2, 3, 8, 8)}, images=ImageFormat(), name="deciders")


@pytest.fixture(scope="module")
def result() -> Result:
    method = Removal(best=(1, 2, 4), claimed=1, claims=3, random_sets=8)
    return remove(network(), "module:1.out", pictures(60, 0), method, held_out=pictures(90, 1))


def test_the_unit_that_decides_a_class_ranks_first(result: Result):
    first = result.table["order"].values[:, 0].tolist()
    assert first == list(TRUE.values())


def test_removing_it_takes_the_class_away_and_random_units_do_not(result: Result):
    table = result.table.sel(size=1)
    assert np.allclose(result.table.accuracy, 1)
    assert (table.removed.values <= 0.75).all()
    assert float(table.random_removed.mean()) > 0.9


def test_a_class_kept_by_its_own_unit_alone_beats_random_units(result: Result):
    table = result.table.sel(size=4)
    assert (table.kept.values >= table.random_kept.values.mean(1)).all()


def test_each_class_is_claimed_and_supported_against_random_sets(result: Result):
    assert [str(f.verdict) for f in result.findings] == ["supported"] * 3
    assert {f.control.n for f in result.findings if f.control} == {100}
    assert any("green rests on units 5" in f.claim for f in result.findings)


def test_a_unit_that_nothing_reads_changes_nothing(result: Result):
    unread = [u for u in range(UNITS) if u not in TRUE.values()]
    assert (result.table["drop"].values[:, unread] == 0).all()


def test_the_drops_are_those_of_full_passes_with_a_unit_at_zero(result: Result):
    net, find = network(), pictures(60, 0)
    module = net.root
    x = find.values.float() / 255
    truth = find.labels.numpy()
    with torch.no_grad():
        whole = module[1](module[0](x))
        for unit in range(UNITS):
            cut = whole.clone()
            cut[:, unit] = 0
            predicted = module[2:](cut).argmax(1).numpy()
            for number in range(3):
                own = truth == number
                recall, rest = (predicted[own] == number).mean(), (predicted[~own] != number).mean()
                expected = result.table.accuracy.values[number] - (recall + rest) / 2
                assert result.table["drop"].values[number, unit] == pytest.approx(expected)


def test_balanced_accuracy_is_the_mean_of_both_rates():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 4, 200), rng.choice(4, 200, p=[0.6, 0.2, 0.15, 0.05])
    for number in range(4):
        expected = balanced_accuracy_score(truth == number, predicted == number)
        assert balanced(predicted, truth, 4)[number] == pytest.approx(expected)
        assert gains(predicted, truth, number).mean() == pytest.approx(expected)


def test_a_network_that_tells_no_class_is_an_error():
    net = network()
    net.root[-1].weight.data.zero_()
    with pytest.raises(TaskFailed, match="no class"):
        remove(net, "module:1.out", pictures(30, 0), Removal(best=(1,), claimed=1))


def test_a_class_without_images_is_an_error():
    few = pictures(60, 0)
    few.labels[few.labels == 2] = 0
    with pytest.raises(BadInput, match="blue"):
        remove(network(), "module:1.out", few, Removal(best=(1,), claimed=1))


def test_images_without_classes_are_an_error():
    bare = PictureArray(pictures(30, 0).values, "bare")
    with pytest.raises(BadInput, match="no labels"):
        remove(network(), "module:1.out", bare, Removal(best=(1,), claimed=1))


def test_sets_larger_than_the_site_are_an_error():
    with pytest.raises(BadInput, match="has 2"):
        remove(network(), "module:1.out[1,2]", pictures(30, 0), Removal(best=(4,), claimed=4))
    with pytest.raises(BadInput, match="rising sizes"):
        Removal(best=(4, 1), claimed=1)
    assert Standard().min_share == 0.1
