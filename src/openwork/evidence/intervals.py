"""Confidence intervals: bootstrap of any statistic, of paired differences and of ratios; Wilson for proportions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from openwork.errors import BadInput
from openwork.evidence.samples import Values, as_pairs, as_sample, require_level
from openwork.finding import Interval

BATCH = 4_000_000
"""Numbers resampled at once: 32 MB, whatever the number of examples."""


def bootstrap_interval(
    values: Values,
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a statistic of independent examples.

    Where the correction is undefined, as with values that are all equal, the percentile interval is given instead and
    `Interval.method` says so.

    Args:
        values: one number an example.
        statistic: of a sample; vectorised if it takes ``axis``.
        level: two-sided confidence.
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Returns:
        The interval; its n is the number of examples.

    Raises:
        BadInput: fewer than two values, NaN or infinity, too few resamples for the level, or a statistic that is not
            a finite number.

    Units:
        those of the statistic.

    Source:
        Efron 1987, Better bootstrap confidence intervals; `scipy.stats.bootstrap`.
    """
    sample = as_sample(values, "values")
    return _bootstrap((sample,), statistic, level, resamples, seed)


def studentised_interval(
    values: Values,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    limits: tuple[float, float] | None = None,
) -> Interval:
    """Bootstrap-t interval of the mean: resamples the mean in units of its own standard error.

    The interval that verdicts rest on. At 20 to 40 examples of a skewed effect, one end of a BCa interval is wrong two
    to four times as often as its level says, this one at most twice. When a resample has no spread, as when few values
    differ from all others, an end may be infinite. The ends are therefore kept within the range of the sample or, where
    it is known what one example can be, within what the number of values that differ from the most frequent one allows;
    `Interval.method` then says so.

    Args:
        values: one number an example.
        level: two-sided confidence.
        resamples: how many bootstrap samples.
        seed: of the resampling.
        limits: the least and the greatest value that one example can have, where they are known.

    Returns:
        The interval; without limits of no width when all values are equal, which its method says.

    Raises:
        BadInput: as `bootstrap_interval`, or values outside the limits.

    Units:
        those of the values.

    Source:
        Efron 1981, Nonparametric standard errors and confidence intervals; Efron and Tibshirani 1993, section 12.5.
        The bound of a frequency is that of Clopper and Pearson 1934.
    """
    sample = as_sample(values, "values")
    _require_resamples(level, resamples)
    least, most, kept = float(sample.min()), float(sample.max()), "range of the sample"
    if limits is not None:
        if least < limits[0] or most > limits[1]:
            raise BadInput(f"expected values within {limits}; got {least:.3g} to {most:.3g}")
        least, most = _allowed(sample, level, limits)
        kept = "bounds that the most frequent value sets"
    n, mean, rng = len(sample), float(sample.mean()), np.random.default_rng(seed)
    method = f"studentised bootstrap, {resamples} resamples"
    if (sample == sample[0]).all():
        if limits is not None:
            return Interval(mean, least, most, level, n, f"{method}; the {kept}, because all values are equal")
        return Interval(mean, mean, mean, level, n, f"{method}; no width because all values are equal")
    ratios = []
    for start in range(0, resamples, max(1, BATCH // n)):
        size = min(max(1, BATCH // n), resamples - start)
        drawn = sample[rng.integers(0, n, (size, n))]
        shift, spread = drawn.mean(1) - mean, drawn.std(1, ddof=1) / np.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(np.where(shift == 0, 0.0, shift / spread))
    tail = (1 - level) / 2
    # whole resamples, not points between two of them: an infinite one would make the interpolation NaN
    below, above = np.quantile(np.concatenate(ratios), (tail, 1 - tail), method="closest_observation")
    error = sample.std(ddof=1) / np.sqrt(n)
    ends = np.array((mean - above * error, mean - below * error))
    low, high = np.clip(ends, least, most)
    if not np.array_equal(ends, (low, high)):
        method += f"; kept within the {kept}"
    return Interval(mean, float(low), float(high), level, n, method)


def _allowed(sample: Float[np.ndarray, " n"], level: float, limits: tuple[float, float]) -> tuple[float, float]:
    """What the mean can be if values differ from the most frequent one as often as they may, and as far as they can."""
    values, counts = np.unique(sample, return_counts=True)
    usual, others = float(values[counts.argmax()]), int(len(sample) - counts.max())
    share = stats.binomtest(others, len(sample)).proportion_ci(level, "exact").high
    return usual + share * (limits[0] - usual), usual + share * (limits[1] - usual)


def paired_difference_interval(
    a: Values, b: Values, level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Interval:
    """Studentised bootstrap interval of the mean of a − b, paired by example.

    Args:
        a: one number an example.
        b: the same examples, in the same order.
        level: two-sided confidence.
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        BadInput: as `bootstrap_interval`, or different lengths.

    Units:
        those of the values.
    """
    first, second = as_pairs(a, b, ("a", "b"))
    return studentised_interval(first - second, level, resamples, seed)


def ratio_interval(
    numerator: Values, denominator: Values, level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Interval:
    """Bootstrap interval of mean(numerator) / mean(denominator), resampling examples with both their values.

    For faithfulness, give m(C) − m(∅) and m(M) − m(∅) of each example; for a mean over examples in groups, what
    `by_group` returns.

    Args:
        numerator: one number an example.
        denominator: the same examples, in the same order.
        level: two-sided confidence.
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        BadInput: as `bootstrap_interval`, different lengths, or a denominator whose own interval includes zero, so
            that the ratio has no bounded interval.

    Units:
        those of the numerator over those of the denominator.
    """
    top, bottom = as_pairs(numerator, denominator, ("numerator", "denominator"))
    gap = _bootstrap((bottom,), np.mean, level, resamples, seed)
    if gap.low <= 0 <= gap.high:
        raise BadInput(
            f"denominator: expected a mean away from zero, got {gap} at level {level}; a ratio to it is unbounded: "
            "use more examples or another baseline"
        )

    def ratio(top: np.ndarray, bottom: np.ndarray, axis: int = -1) -> Any:
        return top.mean(axis) / bottom.mean(axis)

    return _bootstrap((top, bottom), ratio, level, resamples, seed)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion; sound at 0 and at 1, where resampling gives no width.

    Args:
        successes: how many of n.
        n: number of independent trials.
        level: two-sided confidence.

    Raises:
        BadInput: not 0 <= successes <= n with n >= 1.

    Units:
        fraction.

    Source:
        Wilson 1927; `scipy.stats.binomtest`.
    """
    require_level(level)
    if n < 1 or not 0 <= successes <= n or successes != int(successes) or n != int(n):
        raise BadInput(f"expected whole numbers 0 <= successes <= n with n >= 1, got {successes} of {n}")
    ends = stats.binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(ends.low), float(ends.high), level, int(n), "Wilson score")


def _require_resamples(level: float, resamples: int) -> None:
    require_level(level)
    least = math.ceil(round(10 / (1 - level), 6))
    if resamples < least:
        raise BadInput(f"resamples: expected at least {least}, 5 beyond each end at level {level}; got {resamples}")


def _bootstrap(
    data: tuple[Float[np.ndarray, " n"], ...], statistic: Callable[..., Any], level: float, resamples: int, seed: int
) -> Interval:
    _require_resamples(level, resamples)
    estimate = float(statistic(*data))
    if not np.isfinite(estimate):
        raise BadInput(f"statistic: expected a finite number of this sample, got {estimate}")
    n = len(data[0])
    knobs: dict[str, Any] = {"statistic": statistic, "confidence_level": level, "paired": len(data) > 1}
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # scipy warns that BCa is degenerate; the method of the interval says it instead
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.bootstrap(
            data, n_resamples=resamples, batch=max(1, BATCH // n), rng=np.random.default_rng(seed), **knobs
        )
        ends, method = result.confidence_interval, f"BCa bootstrap, {resamples} resamples"
        if not np.isfinite((ends.low, ends.high)).all():
            ends = stats.bootstrap(
                data, n_resamples=0, bootstrap_result=result, method="percentile", **knobs
            ).confidence_interval
            equal = all((column == column[0]).all() for column in data)
            why = "all values are equal" if equal else "the resamples are degenerate"
            method = f"percentile bootstrap, {resamples} resamples; BCa is undefined because {why}"
    return Interval(estimate, float(ends.low), float(ends.high), level, n, method)
