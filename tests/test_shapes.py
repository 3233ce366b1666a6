"""The shapes that signatures state are checked while tests run."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from openwork.metrics.recovery import recovery


def test_a_shape_that_does_not_fit_is_told() -> None:
    two, three = torch.zeros(2), torch.ones(3)
    with pytest.raises(TypeCheckError, match="batch"):
        recovery(two, three, three)


def test_a_dtype_that_does_not_fit_is_told() -> None:
    whole = torch.ones(2, dtype=torch.int64)
    with pytest.raises(TypeCheckError, match="Float"):
        recovery(whole, whole, 2 * whole)
