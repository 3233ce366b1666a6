"""Change points: the cut against all cuts tried one by one, its interval, and the two rivals of a phase."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from openwork.errors import BadInput
from openwork.learning.phases import Cut, change, cut, orders, permuted_changes, steady_change, window

STEPS = [0, 100, 200, 400, 800, 900, 1000, 1100, 1500]


def slow_cut(series: np.ndarray) -> tuple[int, int]:
    """Every pair of places tried, with the squares summed one by one."""

    def cost(part: np.ndarray) -> float:
        mean = sum(part) / len(part)
        return sum((value - mean) ** 2 for value in part)

    pairs = combinations(range(1, len(series)), 2)
    return min(pairs, key=lambda p: cost(series[: p[0]]) + cost(series[p[0] : p[1]]) + cost(series[p[1] :]))


def stepped(at: int, n: int = 40, noise: float = 0.1) -> np.ndarray:
    """Values that are 0 before a place and 1 from the next place on, with one halfway."""
    rng = np.random.default_rng(0)
    rise = np.concatenate([np.zeros(at), [0.5], np.ones(len(STEPS) - at - 1)])
    return rise[:, None] + noise * rng.normal(size=(len(STEPS), n))


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_is_the_best_of_all_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    series = rng.normal(size=int(rng.integers(3, 14))).cumsum()
    found = cut(series)
    before, after = slow_cut(series)
    first, middle, last = (part.mean() for part in np.split(series, [before, after]))
    if abs(middle - last) <= 0.1 * abs(last - first):
        after = before
    elif abs(middle - first) <= 0.1 * abs(last - first):
        before = after
    assert (found.before, found.after) == (before, after)


def test_a_change_at_once_has_no_checkpoints_between() -> None:
    noise = 0.01 * np.random.default_rng(0).normal(size=9)
    found = cut(np.array([0.0] * 4 + [1.0] * 5) + noise)
    assert found.steps(STEPS) == (STEPS[3], STEPS[4])
    late = cut(np.array([0.0] * 7 + [1.0] * 2) - noise)
    assert late.steps(STEPS) == (STEPS[6], STEPS[7])


def test_a_window_is_where_the_series_was_made_to_change() -> None:
    found = window(stepped(4), STEPS, resamples=60, seed=0)
    assert (found.begin, found.end) == (400, 900)
    assert found.outer == (400, 900)


def test_the_interval_of_a_window_widens_where_examples_disagree() -> None:
    loud = window(stepped(4, n=6, noise=1.5), STEPS, resamples=60, seed=0)
    assert loud.outer[0] <= loud.begin <= loud.end <= loud.outer[1]
    assert loud.outer[1] - loud.outer[0] > 500


def test_a_change_is_the_mean_after_minus_the_mean_before() -> None:
    values = np.arange(18.0).reshape(9, 2)
    found = change(values, Cut(2, 7))
    assert found.tolist() == [(14 + 16) / 2 - (0 + 2) / 2, (15 + 17) / 2 - (1 + 3) / 2]


def test_a_steady_series_changes_as_much_as_its_steady_rival() -> None:
    line = 0.001 * np.array(STEPS, dtype=float)[:, None] * np.array([1.0, 2.0])
    where = Cut(3, 6)
    assert steady_change(line, STEPS, where) == pytest.approx(change(line, where))


def test_a_jump_changes_more_than_its_steady_rival() -> None:
    values, where = stepped(4, noise=0.0), Cut(4, 5)
    assert (change(values, where) - steady_change(values, STEPS, where)).min() > 0.3


def test_permuted_changes_average_to_nothing_and_seldom_reach_the_change() -> None:
    values, where = stepped(4), Cut(4, 5)
    controls = permuted_changes(values, where, 400, seed=0)
    assert abs(controls.mean()) < 0.1
    assert (controls >= change(values, where).mean()).mean() < 0.05


def test_permuted_changes_are_those_of_shuffled_checkpoints() -> None:
    values, where = stepped(4, n=3), Cut(4, 6)
    rng = np.random.default_rng(7)
    slow = [change(values[rng.permutation(len(values))], where).mean() for _ in range(5)]
    assert permuted_changes(values, where, 5, seed=7) == pytest.approx(slow)


def test_a_constant_series_has_a_cut_and_no_change() -> None:
    values = np.ones((5, 4))
    assert change(values, cut(values.mean(axis=1))).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("series", [[1.0, 2.0], [1.0, float("nan"), 2.0, 3.0]])
def test_too_few_checkpoints_or_no_numbers_have_no_cut(series: list[float]) -> None:
    with pytest.raises(BadInput, match="finite numbers of at least 3"):
        cut(np.array(series))


def test_orders_are_the_distinct_ways_to_fill_before_during_and_after() -> None:
    ways = {(frozenset(p[:2]), frozenset(p[3:])) for p in permutations(range(5))}
    assert orders(5, Cut(2, 3)) == len(ways) == 30
