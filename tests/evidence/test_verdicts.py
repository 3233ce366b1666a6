"""The verdict rule: each clause alone, its rate of false support on simulated nulls, its power on true effects."""

from dataclasses import replace

import numpy as np
import pytest

from openwork.errors import BadInput
from openwork.evidence import Measurement, benjamini_hochberg, code_hash, judge, record_provenance, verdict
from openwork.finding import Control, Criteria, Evidence, Finding, Interval, Rival, Verdict

CRITERIA = Criteria(min_effect=0.5, unit="nats")
GOOD = Measurement(
    effect=Interval(1.0, 0.8, 1.2, 0.98, 64, "test"),
    p_value=0.001,
    detectable=0.2,
    split="held-out",
    control=Control("random circuits", 500, 0.1, -0.1, 0.3, 1 / 501),
    rival=Rival("one head", Interval(0.4, 0.2, 0.6, 0.98, 64, "test"), 0.001),
)


def with_controls(exceeding, n=500):
    return Control("random circuits", n, 0.1, -0.1, 0.3, (1 + exceeding) / (1 + n))


def test_everything_held_is_supported():
    judged = verdict(GOOD, CRITERIA)
    assert judged.verdict is Verdict.SUPPORTED
    assert judged.evidence is Evidence.HELD_OUT
    assert len(judged.reasons) == 6


@pytest.mark.parametrize(
    ("change", "outcome", "evidence", "reason"),
    [
        ({"split": "find"}, "inconclusive", Evidence.INTERVENED, "held-out"),
        ({"intervened": False}, "inconclusive", Evidence.OBSERVED, "only observed"),
        ({"control": None}, "inconclusive", Evidence.INTERVENED, "500 are needed"),
        ({"control": with_controls(0, 499)}, "inconclusive", Evidence.HELD_OUT, "499 controls are too few"),
        ({"control": with_controls(5)}, "inconclusive", Evidence.HELD_OUT, "5 of 500"),
        ({"control": with_controls(8)}, "inconclusive", Evidence.HELD_OUT, "8 of 500"),
        ({"control": with_controls(50)}, "rejected", Evidence.HELD_OUT, "50 of 500"),
        ({"control": with_controls(50), "detectable": 0.6}, "inconclusive", Evidence.HELD_OUT, "50 of 500"),
        ({"control": with_controls(90, 99)}, "inconclusive", Evidence.HELD_OUT, "99 controls are too few"),
        ({"effect": Interval(0.3, 0.2, 0.4, 0.98, 64, "t")}, "rejected", Evidence.HELD_OUT, "below the criterion"),
        ({"effect": Interval(0.6, 0.4, 0.8, 0.98, 64, "t")}, "inconclusive", Evidence.HELD_OUT, "256 examples"),
        (
            {"effect": Interval(1.0, 0.8, 1.2, 0.98, 29, "t")},
            "inconclusive",
            Evidence.HELD_OUT,
            "29 examples are too few",
        ),
        ({"p_value": 0.02}, "inconclusive", Evidence.HELD_OUT, "does not clear"),
        ({"rival": None}, "inconclusive", Evidence.HELD_OUT, "no rival"),
        ({"rival": Rival("r", Interval(0.1, -0.1, 0.3, 0.98, 64, "t"), 0.1)}, "inconclusive", Evidence.HELD_OUT, "'r'"),
        ({"rival": Rival("r", Interval(0.1, 0.01, 0.3, 0.98, 64, "t"), 0.1)}, "inconclusive", Evidence.HELD_OUT, "'r'"),
        (
            {"rival": Rival("r", Interval(-1.0, -2.0, -0.1, 0.98, 64, "t"), 1.0)},
            "rejected",
            Evidence.HELD_OUT,
            "better",
        ),
    ],
)
def test_each_condition_alone_decides(change, outcome, evidence, reason):
    judged = verdict(replace(GOOD, **change), CRITERIA)
    assert judged.verdict == outcome
    assert judged.evidence is evidence
    assert any(reason in text for text in judged.reasons), judged.reasons


def test_rejection_does_not_need_held_out_examples():
    # the examples that a thing was found on flatter it: what fails there fails
    weak = replace(GOOD, split="find", effect=Interval(0.3, 0.2, 0.4, 0.98, 64, "t"))
    assert verdict(weak, CRITERIA).verdict is Verdict.REJECTED


def test_a_rival_may_be_waived_by_the_criteria_only():
    criteria = replace(CRITERIA, needs_rival=False)
    assert verdict(replace(GOOD, rival=None), criteria).verdict is Verdict.SUPPORTED
    tied = Rival("r", Interval(0.1, -0.1, 0.3, 0.98, 64, "t"), 0.1)
    assert verdict(replace(GOOD, rival=tied), criteria).verdict is Verdict.INCONCLUSIVE


def test_the_family_of_claims_counts():
    assert GOOD.joint_p == 1 / 501
    adjusted = benjamini_hochberg([GOOD.joint_p, *[0.5] * 9])
    judged = verdict(GOOD, CRITERIA, adjusted_p=adjusted[0])
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "0.02 after adjusting" in judged.reasons[-1]
    assert verdict(GOOD, CRITERIA, adjusted_p=0.004).verdict is Verdict.SUPPORTED


def test_intervals_of_a_lower_level_are_refused():
    narrow = replace(GOOD, effect=replace(GOOD.effect, level=0.95))
    with pytest.raises(BadInput, match=r"level 0.98 .* got 0.95"):
        verdict(narrow, CRITERIA)


LOOSE = Criteria(min_effect=0.5, unit="nats", alpha=0.05)
TRIALS = 200
ALLOWED = 0.05 + 3 * np.sqrt(0.05 * 0.95 / TRIALS)


def rate_of_support(draw, seed=0):
    """Share of supported verdicts over simulated studies; `draw` gives effects, controls and the rival."""
    rng, supported = np.random.default_rng(seed), 0
    for trial in range(TRIALS):
        effects, controls, rival = draw(rng)
        judged = judge(effects, LOOSE, "held-out", controls, rivals={"r": rival}, resamples=199, seed=trial)
        supported += judged.verdict is Verdict.SUPPORTED
    return supported / TRIALS


def test_false_support_at_the_criterion():
    # everything else is easily beaten, so that only this test stands between the null and support
    assert rate_of_support(lambda rng: (rng.normal(0.5, 1, 40), rng.normal(-9, 1, 100), np.full(40, -9.0))) <= ALLOWED


def test_false_support_with_a_skewed_effect():
    def draw(rng):
        return 1.5 - rng.exponential(1, 40), rng.normal(-9, 1, 100), np.full(40, -9.0)

    assert rate_of_support(draw) <= ALLOWED


def test_false_support_when_controls_are_no_different():
    def draw(rng):
        # claim and controls are mechanisms drawn from one population, measured on the same examples
        means = rng.normal(3, 0.5, 101)
        return means[0] + rng.normal(0, 0.1, 40), means[1:], np.full(40, -9.0)

    assert rate_of_support(draw) <= ALLOWED


def test_false_support_when_the_rival_is_as_good():
    def draw(rng):
        shared = rng.normal(3, 1, 40)
        return shared + rng.normal(0, 0.3, 40), rng.normal(-9, 1, 100), shared + rng.normal(0, 0.3, 40)

    assert rate_of_support(draw) <= ALLOWED


def test_true_effects_are_supported():
    def draw(rng):
        shared = rng.normal(0, 0.5, 40)
        return 1.5 + shared + rng.normal(0, 0.5, 40), rng.normal(0.2, 0.3, 100), 0.9 + shared + rng.normal(0, 0.5, 40)

    assert rate_of_support(draw) > 0.9


def test_judge_measures_what_it_is_given():
    rng = np.random.default_rng(0)
    effects = rng.normal(2, 0.5, 64)
    rivals = {"weak": effects - 1.5, "strong": effects - rng.normal(0.5, 0.1, 64)}
    judged = judge(effects, CRITERIA, "held-out", np.zeros(500), "random circuits", rivals)
    m = judged.measurement
    assert m.effect.estimate == pytest.approx(effects.mean())
    assert m.effect.level == 0.98
    assert m.rival is not None
    assert m.rival.name == "strong"
    assert judged.verdict is Verdict.SUPPORTED
    assert judge(effects, CRITERIA, "held-out", np.zeros(500), "random circuits", rivals) == judged
    with pytest.raises(BadInput, match="rival 'short'"):
        judge(effects, CRITERIA, "held-out", rivals={"short": effects[:10]})


def test_a_judgement_becomes_a_finding():
    provenance = record_provenance("py-4l", "weights", "data", "cpu", "float32", command="openwork study")
    assert provenance.code_hash == code_hash()
    found = verdict(GOOD, CRITERIA).finding("induction is done by two heads", 0, provenance, {"top": (1, 2)})
    assert (found.estimate, found.unit, found.n) == (1.0, "nats", 64)
    assert Finding.from_json(found.to_json()) == found
