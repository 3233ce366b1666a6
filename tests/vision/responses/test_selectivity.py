"""Numbers of tuning curves against curves whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from openwork.vision.responses.selectivity import gains, half_widths, intervals, summary

ANGLES = np.arange(0.0, 180.0, 10.0)


def bump(preference, period, values, width):
    apart = (values - preference + period / 2) % period - period / 2
    return np.exp(-0.5 * (apart / width) ** 2)


@pytest.mark.parametrize("preference", [0.0, 33.0, 90.0, 171.0])
def test_the_preference_of_a_bump_is_where_it_was_put(preference):
    found = summary(bump(preference, 180.0, ANGLES, 20.0), ANGLES, 180.0)
    assert abs((float(found.preference) - preference + 90) % 180 - 90) < 0.2


def test_selectivity_is_one_minus_circular_variance():
    curve = bump(50.0, 180.0, ANGLES, 25.0)
    raised = curve - curve.min()
    vector = sum(r * np.exp(2j * np.radians(a)) for r, a in zip(raised, ANGLES, strict=True))
    assert float(summary(curve, ANGLES, 180.0).selectivity) == pytest.approx(abs(vector) / raised.sum())


def test_one_value_alone_has_selectivity_one_and_a_flat_curve_none():
    alone = np.zeros(18)
    alone[4] = 2.0
    assert float(summary(alone, ANGLES, 180.0).selectivity) == pytest.approx(1.0)
    flat = summary(np.ones(18), ANGLES, 180.0)
    assert float(flat.selectivity) == 0.0
    assert np.isnan(float(flat.preference))


def test_the_half_width_of_a_bump_is_that_of_a_gaussian():
    width = 20.0
    found = summary(bump(90.0, 180.0, ANGLES, width), ANGLES, 180.0)
    assert float(found.half_width) == pytest.approx(width * np.sqrt(2 * np.log(2)), rel=0.05)


def test_the_half_width_of_a_straight_feature_counts_the_sides_that_fall():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert float(half_widths(np.array([0.0, 1.0, 2.0, 2.0]), values, None)) == pytest.approx(1.0)
    assert float(half_widths(np.array([0.0, 2.0, 0.0, 0.0]), values, None)) == pytest.approx(0.5)


def test_the_preference_of_a_straight_feature_lies_at_the_peak_of_its_parabola():
    values = np.linspace(0.0, 1.0, 11)
    found = summary(1 - (values - 0.43) ** 2, values, None)
    assert float(found.preference) == pytest.approx(0.43)


def test_the_interval_of_a_preference_reaches_across_the_end_of_the_circle():
    rng = np.random.default_rng(0)
    trials = np.stack([bump(rng.normal(0.0, 15.0), 180.0, ANGLES, 20.0) for _ in range(30)])[None]
    found, low, high = intervals(trials, ANGLES, 180.0, seed=0)
    assert low.preference[0] < found.preference[0] < high.preference[0]
    assert 3 < high.preference[0] - low.preference[0] < 25
    assert low.selectivity[0] <= found.selectivity[0] <= high.selectivity[0]


def test_intervals_cover_the_preference_about_as_often_as_they_say():
    rng, inside = np.random.default_rng(1), 0
    for draw in range(40):
        trials = np.stack([bump(rng.normal(70.0, 15.0), 180.0, ANGLES, 20.0) for _ in range(24)])[None]
        _, low, high = intervals(trials, ANGLES, 180.0, seed=draw)
        inside += low.preference[0] <= 70.0 <= high.preference[0]
    assert inside >= 33


def test_gains_are_rises_above_the_mean_in_units_of_the_scale():
    responses = np.array([[1.0, 5.0, 0.0], [2.0, 2.0, 2.0]])
    assert gains(responses, np.array([1, 0]), np.array([2.0, 1.0])) == pytest.approx([1.5, 0.0])
    assert gains(responses, np.array([1, 0]), np.array([0.0, 1.0])) == pytest.approx([0.0, 0.0])
