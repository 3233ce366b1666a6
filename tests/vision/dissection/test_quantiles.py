from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from openwork.errors import BadInput
from openwork.vision.dissection.quantiles import Tail


def slow(values: np.ndarray, share: float) -> np.ndarray:
    """The least value that at most a share of all exceeds, by sorting everything."""
    kept = math.floor(share * values.shape[1])
    return np.array([sorted(unit.tolist(), reverse=True)[kept] for unit in values])


def stream(values: np.ndarray, tail: Tail, block: int) -> Tail:
    for start in range(0, values.shape[1], block):
        tail.add(torch.tensor(values[:, start : start + block]))
    return tail


def test_thresholds_are_exact_while_the_tail_fits():
    values = np.random.default_rng(0).normal(size=(5, 20_000))
    tail = stream(values, Tail(5, 20_000, 0.005), 731)
    assert np.array_equal(tail.thresholds().numpy(), slow(values, 0.005))
    assert tail.bound() == 0


def test_at_most_the_share_exceeds_even_where_most_values_are_equal():
    values = np.maximum(np.random.default_rng(1).normal(size=(3, 10_000)) - 2.9, 0)
    thresholds = stream(values, Tail(3, 10_000, 0.005), 1000).thresholds().numpy()
    assert (thresholds == 0).all()
    assert ((values > thresholds[:, None]).mean(1) <= 0.005).all()


@pytest.mark.parametrize("order", ["random", "rising", "falling", "waves"])
def test_beyond_its_capacity_the_share_stays_within_the_bound(order: str):
    places, units = 60_000, 40
    values = np.random.default_rng(2).gamma(2.0, size=(units, places))
    if order == "rising":
        values.sort(1)
    elif order == "falling":
        values = -np.sort(-values, 1)
    elif order == "waves":
        values = values * (1 + np.sin(np.arange(places) / 3000)) + 1e-6 * np.arange(places)
    tail = stream(values, Tail(units, places, 0.05, capacity=64, seed=3), 2000)
    assert tail.weight > 40
    share = (values > tail.thresholds().numpy()[:, None]).mean(1)
    outside = np.abs(share - 0.05) > tail.bound(risk=0.01)
    assert outside.sum() <= 2
    assert abs(share.mean() - 0.05) < tail.bound() / 3  # no bias


def test_memory_does_not_grow_with_the_stream():
    sizes = []
    for places in (50_000, 500_000):
        tail = Tail(2, places, 0.1, capacity=500)
        for _ in range(places // 10_000):
            tail.add(torch.rand(2, 10_000))
        assert tail._top is not None
        sizes.append(tail._top.shape[1])
    assert max(sizes) <= 501


def test_too_few_places_are_an_error():
    with pytest.raises(BadInput, match="at least 200 places"):
        Tail(1, 150, 0.005)


def test_a_stream_of_another_length_is_an_error():
    tail = Tail(2, 100, 0.1)
    tail.add(torch.rand(2, 60))
    with pytest.raises(BadInput, match="only 60 came"):
        tail.thresholds()
    with pytest.raises(BadInput, match="40 more places"):
        tail.add(torch.rand(2, 41))


def test_nan_is_an_error():
    with pytest.raises(BadInput, match="NaN"):
        Tail(1, 10, 0.1).add(torch.full((1, 5), float("nan")))


def test_knobs_out_of_range_are_an_error():
    with pytest.raises(BadInput, match="0 < share < 1"):
        Tail(1, 10, 1.5)
