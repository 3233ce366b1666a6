"""Means with intervals and p-values for many cells of one table at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from openwork.evidence import benjamini_hochberg, bootstrap_interval, sign_flip_test
from openwork.finding import Interval
from openwork.studies.schema import Control, Estimate

RESAMPLES = 1999


def record(interval: Interval) -> Estimate:
    """An interval as the study records it."""
    return Estimate(value=interval.estimate, low=interval.low, high=interval.high, level=interval.level, n=interval.n)


def estimate(values: Float[np.ndarray, " example"], seed: int) -> Estimate:
    """The mean over examples with its bootstrap interval."""
    return record(bootstrap_interval(values, resamples=RESAMPLES, seed=seed))


def control(
    name: str,
    values: Float[np.ndarray, " example"],
    against: Float[np.ndarray, " example"],
    seed: int,
) -> Control:
    """A control's mean, and the paired test that the measured effect is no larger than it.

    Args:
        name: what was randomised.
        values: of the control, one an example.
        against: the effect that it controls, on the same examples.
        seed: of the resampling.
    """
    mean = estimate(values, seed)
    test = sign_flip_test(against - values, permutations=RESAMPLES, seed=seed)
    return Control(name=name, value=mean.value, low=mean.low, high=mean.high, n=mean.n, p_value=test.p_value)


def p_values(table: Float[np.ndarray, "cell example"]) -> Float[np.ndarray, " cell"]:
    """Two-sided p-value of each row's mean against 0, by Student's t.

    The permutation test cannot go below 1/1999 or so, which hundreds of cells corrected together need; rows whose
    values are all equal have p = 1 at 0 and the smallest double elsewhere.

    Source:
        Student 1908; `scipy.stats.ttest_1samp`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        n = table.shape[1]
        mean, sd = table.mean(1), table.std(1, ddof=1)
        t = np.abs(mean) / (sd / np.sqrt(n))
    t = np.where(sd == 0, np.where(mean == 0, 0.0, np.inf), t)
    return np.clip(2 * stats.t.sf(t, n - 1), np.finfo(float).tiny, 1.0)


def q_values(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values adjusted for the false-discovery rate of the whole family (Benjamini-Hochberg)."""
    return benjamini_hochberg(np.asarray(p))
