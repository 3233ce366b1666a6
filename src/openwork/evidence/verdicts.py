"""The one rule that turns measurements into supported, rejected or inconclusive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from openwork.errors import BadInput
from openwork.evidence.controls import random_control_test
from openwork.evidence.intervals import paired_difference_interval, studentised_interval, wilson_interval
from openwork.evidence.permutation import sign_flip_test
from openwork.evidence.power import minimum_detectable_effect
from openwork.evidence.samples import Values, as_pairs, as_sample
from openwork.finding import Control, Criteria, Evidence, Finding, Interval, Provenance, Rival, Verdict

Condition = Callable[[bool, str, str], None]


@dataclass(frozen=True)
class Measurement:
    """All that the rule looks at.

    Args:
        effect: interval of the mean effect over examples; its level must be at least `Criteria.level`.
        p_value: of the sign-flip test that the effect is no larger than `Criteria.min_effect`.
        detectable: the smallest mean, above any fixed value, that this many examples could have shown.
        split: the examples that the claim was found on, or ones held out.
        intervened: whether the network was edited, rather than only observed.
        control: the mean effect against matched random controls, if there are any.
        rival: the claim against the best rival hypothesis, if there is one.
    """

    effect: Interval
    p_value: float
    detectable: float
    split: Literal["find", "held-out"]
    intervened: bool = True
    control: Control | None = None
    rival: Rival | None = None

    @property
    def joint_p(self) -> float:
        """The largest of the p-values: that of the claim as a whole, since support needs every test to pass.

        Source:
            Berger 1982, the intersection-union test. Give these, of all candidates, to `benjamini_hochberg`.
        """
        rest = [test.p_value for test in (self.control, self.rival) if test is not None]
        return max(self.p_value, *rest) if rest else self.p_value


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it was computed from.

    Args:
        verdict: supported, rejected or inconclusive.
        evidence: observed, intervened, or held-out with controls.
        reasons: why, with numbers; for an inconclusive claim, what is missing.
        measurement: what was looked at.
        criteria: what had to be met.
    """

    verdict: Verdict
    evidence: Evidence
    reasons: tuple[str, ...]
    measurement: Measurement
    criteria: Criteria

    def finding(
        self, claim: str, seed: int, provenance: Provenance, settings: Mapping[str, Any] | None = None
    ) -> Finding:
        """The judgement as a finding about `claim`.

        Args:
            claim: in words.
            seed: of every random choice.
            provenance: model, data, code and machine.
            settings: of the method that found the thing, as JSON values.
        """
        m = self.measurement
        return Finding(
            claim=claim,
            estimate=m.effect.estimate,
            unit=self.criteria.unit,
            interval=m.effect,
            p_value=m.p_value,
            control=m.control,
            rival=m.rival,
            detectable=m.detectable,
            n=m.effect.n,
            split=m.split,
            evidence=self.evidence,
            criteria=self.criteria,
            verdict=self.verdict,
            reasons=self.reasons,
            settings=dict(settings or {}),
            seed=seed,
            provenance=provenance,
        )


def verdict(measurement: Measurement, criteria: Criteria, adjusted_p: float | None = None) -> Judgement:
    """Judge a claim.

    *Rejected*, whatever the split, when any of these holds:

    - the effect's interval lies below `min_effect`;
    - matched controls do as well: even the lower Wilson bound of the share of controls that reach the claim's effect
      is above `alpha`, there are enough controls and examples, and an effect of `min_effect` would have been detected;
    - the best rival does better: the interval of the paired difference lies below 0.

    *Supported* when all of these hold, so that the rate of false support is at most that of the weakest test, `alpha`:

    - the examples are held out, the network was intervened on, and there are at least `min_examples`;
    - the effect's interval lies above `min_effect`, and so says the sign-flip test at `alpha`;
    - there are `controls_needed` matched controls or more, and they are beaten at `alpha`;
    - the best rival is beaten: the interval of the paired difference lies above 0, and so says the sign-flip test
      (left out without `needs_rival` when there is no rival);
    - the p-value adjusted for the family of claims, if given, is at most `alpha`.

    *Inconclusive* otherwise, with every condition of support that failed.

    Args:
        measurement: what was seen.
        criteria: what the claim has to meet, stated beforehand.
        adjusted_p: `Measurement.joint_p` after `benjamini_hochberg` over all candidates, when several were tested.

    Raises:
        BadInput: an interval narrower than the criteria's level.

    Source:
        Berger 1982, Multiparameter hypothesis testing and acceptance sampling (all tests must pass).
    """
    for interval in [measurement.effect, *([measurement.rival.difference] if measurement.rival else [])]:
        if interval.level < criteria.level - 1e-9:
            raise BadInput(
                f"expected intervals of level {criteria.level:.4g} or wider for alpha {criteria.alpha}, "
                f"got {interval.level:.4g}"
            )
    against = _against(measurement, criteria)
    missing, held = _support(measurement, criteria, adjusted_p)
    if against:
        outcome, reasons = Verdict.REJECTED, against
    elif missing:
        outcome, reasons = Verdict.INCONCLUSIVE, missing
    else:
        outcome, reasons = Verdict.SUPPORTED, held
    return Judgement(outcome, _evidence(measurement), tuple(reasons), measurement, criteria)


def judge(
    effects: Values,
    criteria: Criteria,
    split: Literal["find", "held-out"],
    controls: Values | None = None,
    control_kind: str = "matched random controls",
    rivals: Mapping[str, Values] | None = None,
    intervened: bool = True,
    adjusted_p: float | None = None,
    limits: tuple[float, float] | None = None,
    resamples: int = 9999,
    seed: int = 0,
) -> Judgement:
    """Measure a claim from the effects on each example, and judge it by `verdict`.

    Args:
        effects: of the claimed mechanism, one an example, in the unit of the criteria; larger is stronger.
        criteria: what the claim has to meet, stated beforehand.
        split: the examples that the claim was found on, or ones held out.
        controls: the *mean* effect of each matched control over the same examples.
        control_kind: what the controls are matched in.
        rivals: effects of each rival hypothesis on the same examples in the same order; the one with the largest mean
            is the one to beat.
        intervened: whether the network was edited, rather than only observed.
        adjusted_p: see `verdict`.
        limits: of the effect on one example, where they are known; see `studentised_interval`.
        resamples: of bootstrap and sign flips.
        seed: of both.

    Raises:
        BadInput: fewer than two examples, NaN or infinity, rivals of another length, or no controls in `controls`.

    Units:
        those of the criteria.
    """
    sample = as_sample(effects, "effects")
    knobs = {"level": criteria.level, "resamples": resamples, "seed": seed}
    effect = studentised_interval(sample, **knobs, limits=limits)
    above = sign_flip_test(sample - criteria.min_effect, resamples, seed)
    detectable = minimum_detectable_effect(float(sample.std(ddof=1)), len(sample), criteria.alpha, criteria.power)
    # values that are nearly all equal have hardly any spread, and yet say little of what is rare
    detectable = max(detectable, effect.high - effect.estimate)
    control = None if controls is None else random_control_test(effect.estimate, controls, control_kind)
    rival = None
    if rivals:
        pairs = {name: as_pairs(sample, values, ("effects", f"rival {name!r}")) for name, values in rivals.items()}
        best = max(pairs, key=lambda name: pairs[name][1].mean())
        difference = paired_difference_interval(*pairs[best], **knobs)
        rival = Rival(best, difference, sign_flip_test(pairs[best][0] - pairs[best][1], resamples, seed).p_value)
    measurement = Measurement(effect, above.p_value, detectable, split, intervened, control, rival)
    return verdict(measurement, criteria, adjusted_p)


def _evidence(m: Measurement) -> Evidence:
    if not m.intervened:
        return Evidence.OBSERVED
    return Evidence.HELD_OUT if m.split == "held-out" and m.control is not None else Evidence.INTERVENED


def _against(m: Measurement, c: Criteria) -> list[str]:
    """Reasons to reject."""
    reasons = []
    if m.effect.high < c.min_effect:
        reasons.append(f"the effect {m.effect} lies below the criterion of {c.min_effect:.3g} {c.unit}")
    if m.control is not None and m.control.n >= c.controls_needed:
        share = wilson_interval(m.control.exceeding, m.control.n, c.level)
        powered = m.detectable <= c.min_effect and m.effect.n >= c.min_examples
        if share.low > c.alpha and powered:
            reasons.append(
                f"{m.control.exceeding} of {m.control.n} {m.control.kind} do as well (p = {m.control.p_value:.3g}), "
                f"on examples that would have shown {m.detectable:.3g} {c.unit}"
            )
    if m.rival is not None and m.rival.difference.high < 0:
        reasons.append(f"the rival {m.rival.name!r} does better: difference {m.rival.difference} {c.unit}")
    return reasons


def _support(m: Measurement, c: Criteria, adjusted_p: float | None) -> tuple[list[str], list[str]]:
    """Conditions of support: those that fail, with what would meet them, and those that hold."""
    missing, held = [], []

    def condition(holds: bool, yes: str, no: str) -> None:
        (held if holds else missing).append(yes if holds else no)

    condition(m.intervened, "the network was intervened on", "the network was only observed: intervene on it")
    condition(
        m.split == "held-out",
        "the examples were held out",
        "the examples are the ones it was found on: test it on held-out ones",
    )
    condition(
        m.effect.n >= c.min_examples,
        f"n = {m.effect.n} examples",
        f"n = {m.effect.n} examples are too few: {c.min_examples} are the least",
    )
    gap = m.effect.estimate - c.min_effect
    wanted = "" if gap <= 0 else f"; about {m.effect.n * (m.detectable / gap) ** 2:,.0f} examples would settle it"
    condition(
        m.effect.low > c.min_effect and m.p_value <= c.alpha,
        f"the effect {m.effect} {c.unit} lies above the criterion of {c.min_effect:.3g} (p = {m.p_value:.3g})",
        f"the effect {m.effect} {c.unit} does not clear the criterion of {c.min_effect:.3g} (p = {m.p_value:.3g}) with "
        f"n = {m.effect.n}{wanted}",
    )
    _support_by_control(m, c, condition)
    _support_by_rival(m, c, condition)
    if adjusted_p is not None:
        condition(
            bool(adjusted_p <= c.alpha),
            f"p = {adjusted_p:.3g} after adjusting for the other claims tested",
            f"p = {adjusted_p:.3g} after adjusting for the other claims tested, above {c.alpha:.3g}",
        )
    return missing, held


def _support_by_control(m: Measurement, c: Criteria, condition: Condition) -> None:
    control = m.control
    if control is None:
        condition(False, "", f"there is no matched control: {c.controls_needed} are needed")
    elif control.n < c.controls_needed:
        condition(False, "", f"{control.n} controls are too few for p < {c.alpha:.3g}: {c.controls_needed} are needed")
    else:
        ahead = f"{control.exceeding} of {control.n} {control.kind} do as well (p = {control.p_value:.3g})"
        condition(control.p_value <= c.alpha, f"only {ahead}", f"{ahead}, above {c.alpha:.3g}")


def _support_by_rival(m: Measurement, c: Criteria, condition: Condition) -> None:
    rival = m.rival
    if rival is None:
        if c.needs_rival:
            condition(False, "", "no rival hypothesis was tested: name one and measure it on the same examples")
        return
    numbers = f"{rival.name!r}: difference {rival.difference} {c.unit}, p = {rival.p_value:.3g}"
    beaten = rival.difference.low > 0 and rival.p_value <= c.alpha
    condition(beaten, f"it beats the best rival {numbers}", f"it does not clearly beat the best rival {numbers}")
