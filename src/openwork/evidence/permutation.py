"""The paired sign-flip permutation test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from openwork.errors import BadInput
from openwork.evidence.intervals import BATCH
from openwork.evidence.samples import Values, as_sample


@dataclass(frozen=True)
class SignFlip:
    """Result of `sign_flip_test`.

    Args:
        statistic: mean difference.
        p_value: chance of a mean at least as extreme if the signs were random.
        n: number of differences.
        permutations: how many sign patterns were tried.
        exact: whether those were all there are.
        alternative: the side that was tested.
    """

    statistic: float
    p_value: float
    n: int
    permutations: int
    exact: bool
    alternative: str

    @property
    def smallest_p(self) -> float:
        """No smaller p-value can come of this many sign patterns."""
        one_sided = 1 / self.permutations if self.exact else 1 / (1 + self.permutations)
        return one_sided * (2 if self.alternative == "two-sided" else 1)


def sign_flip_test(
    differences: Values,
    permutations: int = 9999,
    seed: int = 0,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
) -> SignFlip:
    """Test that the mean of paired differences is 0 against the hypothesis that each sign is a coin toss.

    All 2ⁿ sign patterns are tried when there are no more than `permutations` of them, and the p-value is exact;
    otherwise random patterns are, and the observed one counts as one of them: p = (1 + at least as extreme) /
    (1 + permutations). Exact for differences symmetric about 0; for skewed ones, read it beside an interval.

    Args:
        differences: one an example (or, with `by_group`, one sum a group).
        permutations: how many patterns at most.
        seed: of the random patterns.
        alternative: ``greater`` tests that the mean is above 0. The two-sided p-value is twice the smaller one-sided.

    Raises:
        BadInput: fewer than two differences, NaN or infinity, or no permutations.

    Units:
        probability.

    Source:
        Fisher 1935, The design of experiments, section 21; Phipson and Smyth 2010 for the added 1;
        `scipy.stats.permutation_test`.
    """
    sample = as_sample(differences, "differences")
    if permutations < 1:
        raise BadInput(f"permutations: expected at least 1, got {permutations}")
    n = len(sample)
    result = stats.permutation_test(
        (sample,),
        lambda flipped, axis: flipped.mean(axis),
        permutation_type="samples",
        n_resamples=permutations,
        vectorized=True,
        batch=max(1, BATCH // n),
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    exact = 2**n <= permutations
    tried = 2**n if exact else permutations
    return SignFlip(float(sample.mean()), float(result.pvalue), n, tried, exact, alternative)
