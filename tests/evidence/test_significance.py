"""Sign flips, random controls, Benjamini-Hochberg and power against enumeration, hand sums and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from openwork.errors import BadInput
from openwork.evidence import (
    benjamini_hochberg,
    examples_needed,
    minimum_detectable_effect,
    random_control_test,
    sign_flip_test,
)
from openwork.finding import Criteria

differences = st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=8)


def enumerated(values, alternative):
    sums = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    above = np.mean([s >= sum(values) for s in sums])
    below = np.mean([s <= sum(values) for s in sums])
    return {"greater": above, "less": below, "two-sided": min(1, 2 * min(above, below))}[alternative]


@settings(max_examples=40, deadline=None)
@given(differences, st.sampled_from(["greater", "less", "two-sided"]))
def test_exact_sign_flips_are_all_sign_patterns(values, alternative):
    result = sign_flip_test(values, alternative=alternative)
    assert result.exact
    assert result.permutations == 2 ** len(values)
    assert result.p_value == pytest.approx(enumerated(values, alternative))


def test_random_sign_flips_approach_the_exact_p():
    values = np.random.default_rng(0).normal(0.4, 1, 14)
    exact = sign_flip_test(values, permutations=2**14)
    drawn = sign_flip_test(values, permutations=2**14 - 1)
    assert exact.exact
    assert not drawn.exact
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.01)
    assert (
        sign_flip_test([1.0] * 30, permutations=999).p_value == sign_flip_test([1.0] * 30, permutations=999).smallest_p
    )


def test_sign_flip_keeps_its_level():
    rng = np.random.default_rng(0)
    false = [sign_flip_test(rng.normal(0, 1, 25), 199, seed).p_value <= 0.05 for seed in range(400)]
    assert np.mean(false) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_control_p_counts_ties_against_the_claim():
    control = random_control_test(2.0, [0.0, 1.0, 2.0, 3.0], "random circuits")
    assert control.p_value == 3 / 5
    assert control.exceeding == 2
    assert control.smallest_p == 1 / 5
    assert random_control_test(2.0, [2.0 - 1e-8], "one").p_value == 1
    assert random_control_test(0.0, [0.0, 1.0, 2.0, 3.0], "random circuits", alternative="less").p_value == 2 / 5


def test_control_p_is_uniform_for_an_exchangeable_claim():
    rng = np.random.default_rng(0)
    p = [random_control_test(rng.normal(), rng.normal(size=99), "draws").p_value for _ in range(500)]
    for alpha in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= alpha) == pytest.approx(alpha, abs=3 * np.sqrt(alpha * (1 - alpha) / 500))


def test_too_few_controls_for_the_claim():
    criteria = Criteria(min_effect=1.0, unit="nats")
    assert criteria.controls_needed == 500
    with pytest.raises(BadInput, match=r"at least 500 to claim p < 0.01, got 99, .* is 0.01"):
        random_control_test(5.0, np.zeros(99), "random circuits", criteria=criteria)
    assert random_control_test(5.0, np.zeros(500), "random circuits", criteria=criteria).p_value == 1 / 501


def test_benjamini_hochberg_by_hand():
    # sorted .01 .02 .03 .04 of 4: p·m/rank = .04 .04 .04 .04
    assert benjamini_hochberg([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.04] * 4)
    assert benjamini_hochberg([0.001, 0.5, 0.4]).tolist() == pytest.approx([0.003, 0.5, 0.5])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_benjamini_hochberg_rejects_what_the_step_up_rule_rejects(p_values, q):
    ordered, m = sorted(p_values), len(p_values)
    passing = [p for rank, p in enumerate(ordered, 1) if p <= q * rank / m]
    cut = max(passing, default=-1)
    adjusted = benjamini_hochberg(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        # a p-value that sits on the line to the last digit may fall on either side of it
        if min(abs(p - q * rank / m) for rank in range(1, m + 1)) > 1e-12:
            assert (a <= q) == (p <= cut)


@pytest.mark.parametrize("n", [10, 30, 200])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_detectable_effect_has_the_power_of_the_noncentral_t(n, alpha):
    effect = minimum_detectable_effect(2.0, n, alpha, power=0.8)
    critical = stats.t.ppf(1 - alpha, n - 1)
    assert stats.nct.sf(critical, n - 1, effect / 2 * np.sqrt(n)) == pytest.approx(0.8, abs=0.03)


def test_detectable_effect_is_found_as_often_as_it_says():
    rng, n = np.random.default_rng(0), 25
    effect = minimum_detectable_effect(1.0, n, alpha=0.05, power=0.8)
    found = [sign_flip_test(rng.normal(effect, 1, n), 199, seed).p_value <= 0.05 for seed in range(300)]
    assert np.mean(found) == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 / 300))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 3), st.floats(0.5, 0.95))
def test_examples_needed_is_the_smallest_that_suffices(effect, power):
    n = examples_needed(1.0, effect, power=power)
    assert minimum_detectable_effect(1.0, n, power=power) <= effect
    assert n == 2 or minimum_detectable_effect(1.0, n - 1, power=power) > effect


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sign_flip_test([1.0]), "at least 2"),
        (lambda: sign_flip_test([1.0, 2.0], permutations=0), "at least 1"),
        (lambda: random_control_test(float("nan"), [1.0], "k"), "finite"),
        (lambda: random_control_test(1.0, [], "k"), "at least 1"),
        (lambda: benjamini_hochberg([0.5, 1.5]), "0 to 1"),
        (lambda: minimum_detectable_effect(1.0, 1), "n >= 2"),
        (lambda: minimum_detectable_effect(1.0, 9, power=1.0), "power 1.0"),
        (lambda: examples_needed(1.0, 0.0), "above 0"),
    ],
)
def test_bad_input_says_what_came(call, says):
    with pytest.raises(BadInput, match=says):
        call()
