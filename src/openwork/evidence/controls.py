"""An observed statistic against matched random controls."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from openwork.errors import BadInput
from openwork.evidence.samples import Values, as_sample
from openwork.finding import Control, Criteria

TIE = 1e-6
"""Relative difference below which two statistics tie: one circuit, run in two batches, differs that much in float32."""


def random_control_test(
    value: float,
    controls: Values,
    kind: str,
    alternative: Literal["greater", "less"] = "greater",
    criteria: Criteria | None = None,
) -> Control:
    """How often a matched random control does at least as well: p = (1 + #{control ≥ value}) / (1 + n).

    A control that ties with the value counts against it.

    Args:
        value: the statistic of the thing claimed.
        controls: the same statistic of each control, on the same examples.
        kind: what the controls are matched in, e.g. ``random circuits of equal size and layer profile``.
        alternative: whether larger or smaller is better.
        criteria: raise if there are too few controls for these; when None, `Control.smallest_p` tells what can be
            claimed.

    Raises:
        BadInput: a value or a control that is not finite, no controls, or fewer than `criteria` need.

    Units:
        those of the value.

    Source:
        Phipson and Smyth 2010, Permutation p-values should never be zero.
    """
    sample = as_sample(controls, "controls", least=1)
    if not math.isfinite(value):
        raise BadInput(f"value: expected a finite number, got {value}")
    if alternative not in ("greater", "less"):
        raise BadInput(f"alternative: expected 'greater' or 'less', got {alternative!r}")
    n = len(sample)
    if criteria is not None and n < criteria.controls_needed:
        raise BadInput(
            f"controls: expected at least {criteria.controls_needed} to claim p < {criteria.alpha}, got {n}, with "
            f"which the smallest possible p-value is {1 / (n + 1):.3g}; draw more, or claim less"
        )
    sign = 1.0 if alternative == "greater" else -1.0
    at_least = int((sign * sample >= sign * value - TIE * abs(value)).sum())
    low, high = np.quantile(sample, (0.025, 0.975))
    return Control(kind, n, float(sample.mean()), float(low), float(high), (1 + at_least) / (1 + n))
