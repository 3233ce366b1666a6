"""Many tests at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from openwork.errors import BadInput
from openwork.evidence.samples import Values, as_sample


def benjamini_hochberg(p_values: Values) -> Float[np.ndarray, " tests"]:
    """P-values adjusted so that rejecting those at most α keeps the share of false ones among them below α.

    Valid for tests that are independent or positively dependent.

    Args:
        p_values: of the whole family, those that look uninteresting included.

    Returns:
        The adjusted p-values, in the order given.

    Raises:
        BadInput: a value outside 0 to 1, or no value.

    Units:
        false discovery rate.

    Source:
        Benjamini and Hochberg 1995; `scipy.stats.false_discovery_control`.
    """
    sample = as_sample(p_values, "p_values", least=1)
    if sample.min() < 0 or sample.max() > 1:
        raise BadInput(f"p_values: expected 0 to 1, got {sample.min():.3g} to {sample.max():.3g}")
    return stats.false_discovery_control(sample, method="bh")
