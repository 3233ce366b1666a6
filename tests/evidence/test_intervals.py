"""Intervals against their definitions and, by simulation, against the coverage they claim."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from openwork.errors import BadInput
from openwork.evidence import (
    bootstrap_interval,
    by_group,
    paired_difference_interval,
    ratio_interval,
    studentised_interval,
    wilson_interval,
)


def bca_by_definition(sample, level, resamples, seed):
    """Efron 1987 for the mean, one resample at a time."""
    rng, n = np.random.default_rng(seed), len(sample)
    means = np.array([np.mean([sample[i] for i in rng.integers(0, n, n)]) for _ in range(resamples)])
    share = (np.sum(means < sample.mean()) + np.sum(means <= sample.mean())) / (2 * resamples)
    z0 = stats.norm.ppf(share)
    left_out = np.array([np.delete(sample, i).mean() for i in range(n)])
    pull = left_out.mean() - left_out
    a = np.sum(pull**3) / (6 * np.sum(pull**2) ** 1.5)
    ends = []
    for z in stats.norm.ppf(((1 - level) / 2, (1 + level) / 2)):
        ends.append(np.quantile(means, stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))))
    return ends


def test_bca_matches_its_definition():
    sample = np.random.default_rng(3).exponential(1, 25)
    interval = bootstrap_interval(sample, level=0.9, seed=1)
    low, high = bca_by_definition(sample, 0.9, 4000, seed=2)
    width = high - low
    assert interval.low == pytest.approx(low, abs=0.05 * width)
    assert interval.high == pytest.approx(high, abs=0.05 * width)
    assert interval.method.startswith("BCa")
    assert interval.n == 25


def test_any_statistic_and_any_tensor():
    values = torch.arange(1, 22, dtype=torch.bfloat16)
    interval = bootstrap_interval(values, np.median, seed=0)
    assert interval.estimate == 11
    assert interval.low < 11 < interval.high
    slow = bootstrap_interval(values, lambda sample: float(np.median(sample)), resamples=400)
    assert slow.estimate == 11


def test_degenerate_bootstrap_says_so():
    interval = bootstrap_interval([2.0] * 10)
    assert (interval.low, interval.high) == (2, 2)
    assert "percentile" in interval.method
    assert "all values are equal" in interval.method
    assert "no width" in studentised_interval([2.0] * 10).method


def test_same_seed_same_interval():
    sample = np.random.default_rng(0).normal(size=30)
    for interval in (bootstrap_interval, studentised_interval):
        assert interval(sample, resamples=999, seed=5) == interval(sample, resamples=999, seed=5)
        assert interval(sample, resamples=999, seed=5) != interval(sample, resamples=999, seed=6)


def test_studentised_matches_its_definition():
    sample = np.random.default_rng(3).exponential(1, 25)
    rng, ratios = np.random.default_rng(9), []
    for _ in range(9999):
        drawn = rng.choice(sample, 25)
        ratios.append((drawn.mean() - sample.mean()) / (drawn.std(ddof=1) / 5))
    error = sample.std(ddof=1) / 5
    low, high = (sample.mean() - np.quantile(ratios, q) * error for q in (0.975, 0.025))
    interval = studentised_interval(sample)
    assert interval.low == pytest.approx(low, abs=0.05 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.05 * (high - low))


def test_studentised_stays_finite_when_resamples_have_no_spread():
    interval = studentised_interval([1.0] * 19 + [0.0], level=0.98)
    assert interval.low == 0
    assert interval.high <= 1
    assert "range of the sample" in interval.method


@pytest.mark.parametrize("others", [0, 1, 3])
def test_where_limits_are_known_an_end_is_what_so_many_other_values_allow(others):
    n, level = 40, 0.9
    sample = [2.0] * (n - others) + [5.0] * others
    found = studentised_interval(sample, level, limits=(0.0, 5.0))
    # the largest share at which so few other values are no rarer than the level says, by bisection
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        tail = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(others + 1))
        low, high = (share, high) if tail > (1 - level) / 2 else (low, share)
    assert found.high <= 2 + high * 3 + 1e-9
    assert found.low >= 2 - high * 2 - 1e-9
    assert found.low <= np.mean(sample) <= found.high
    if others < 2:  # of so few, no resample says anything
        assert found.high == pytest.approx(2 + high * 3)
        assert "most frequent value" in found.method
        assert studentised_interval(sample, level).high in (2, 5)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_coverage_of_yes_and_no(share):
    rng, trials, missed = np.random.default_rng(1), 400, np.zeros(2)
    for seed in range(trials):
        sample = (rng.random(40) < share).astype(float)
        found = studentised_interval(sample, level=0.9, resamples=299, seed=seed, limits=(0.0, 1.0))
        missed += found.low > share, found.high < share
    # a tail of .05, three standard errors of a share of 400
    assert (missed / trials < 0.05 + 0.034).all()


def test_values_outside_the_limits_are_refused():
    with pytest.raises(BadInput, match="within"):
        studentised_interval([0.0, 2.0], limits=(0.0, 1.0))


@pytest.mark.parametrize("interval", [bootstrap_interval, studentised_interval])
@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_coverage(interval, draw):
    rng, trials, covered = np.random.default_rng(0), 300, 0
    for seed in range(trials):
        sample = rng.normal(1, 1, 40) if draw == "normal" else rng.exponential(1, 40)
        found = interval(sample, level=0.9, resamples=299, seed=seed)
        covered += found.low <= 1 <= found.high
    # three standard errors of a share of 300, and the known 3 points that BCa loses on skewed samples of 40
    assert 0.9 - 0.03 - 0.052 < covered / trials < 0.9 + 0.052


def test_paired_difference_removes_what_examples_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 10, 50)
    a, b = shared + 1 + rng.normal(0, 0.1, 50), shared
    paired = paired_difference_interval(a, b)
    assert 0.9 < paired.low < 1 < paired.high < 1.1


def test_ratio_of_means_and_its_unbounded_case():
    rng = np.random.default_rng(0)
    bottom = rng.normal(4, 1, 60)
    top = 0.5 * bottom + rng.normal(0, 0.1, 60)
    interval = ratio_interval(top, bottom)
    assert interval.estimate == pytest.approx(top.mean() / bottom.mean())
    # the delta method
    error = (top - interval.estimate * bottom).std(ddof=1) / bottom.mean() / math.sqrt(60)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    with pytest.raises(BadInput, match="unbounded"):
        ratio_interval(top, rng.normal(0, 1, 60))


def test_groups_are_the_independent_units():
    files = [name for name in "abcdefghij" for _ in range(20)]
    offsets = np.repeat(np.random.default_rng(0).normal(0, 1, 10), 20)
    values = offsets + np.random.default_rng(1).normal(0, 0.1, 200)
    sums, counts = by_group(values, files)
    assert sums[3] == pytest.approx(values[60:80].sum())
    assert counts.tolist() == [20] * 10
    honest, naive = ratio_interval(sums, counts), bootstrap_interval(values)
    assert honest.estimate == pytest.approx(naive.estimate)
    assert honest.n == 10
    assert honest.high - honest.low > 3 * (naive.high - naive.low)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_solves_its_equation(counts, level):
    k, n = counts
    interval, z = wilson_interval(k, n, level), stats.norm.ppf((1 + level) / 2)
    centre, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert interval.low == pytest.approx(max(0, centre - half), abs=1e-9)
    assert interval.high == pytest.approx(min(1, centre + half), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: bootstrap_interval([1.0]), "at least 2"),
        (lambda: bootstrap_interval([1.0, float("nan")]), "NaN or infinity in 1 of 2"),
        (lambda: bootstrap_interval([[1.0, 2.0]]), "got shape"),
        (lambda: bootstrap_interval(["a", "b"]), "vector of numbers"),
        (lambda: bootstrap_interval([1.0, 2.0], level=1.5), "confidence"),
        (lambda: bootstrap_interval([1.0, 2.0], level=0.98, resamples=499), "at least 500"),
        (lambda: bootstrap_interval([1.0, 2.0], lambda sample: float("inf")), "finite number of this sample"),
        (lambda: paired_difference_interval([1.0, 2.0], [1.0, 2.0, 3.0]), "got 2 and 3"),
        (lambda: wilson_interval(3, 2), "3 of 2"),
        (lambda: by_group([1.0, 2.0], ["a"]), "got 1"),
    ],
)
def test_bad_input_says_what_came(call, says):
    with pytest.raises(BadInput, match=says):
        call()
