"""What every statistic demands of its numbers before it computes anything from them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from openwork.errors import BadInput

Values = Any
"""A one-dimensional sequence, array or tensor of numbers; `as_sample` checks it."""


def as_sample(values: Values, name: str, least: int = 2) -> Float[np.ndarray, " n"]:
    """The values as a float64 vector.

    Args:
        values: numbers, one an example; a tensor may be on any device and in any precision.
        name: for the error message.
        least: how many examples the statistic needs.

    Raises:
        BadInput: not one-dimensional, too few, or NaN or infinity among them.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    try:
        sample = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: expected a vector of numbers, one an example, got {type(values).__name__}") from error
    if sample.ndim != 1 or len(sample) < least:
        raise BadInput(f"{name}: expected a vector of at least {least} numbers, got shape {sample.shape}")
    wrong = int((~np.isfinite(sample)).sum())
    if wrong:
        raise BadInput(
            f"{name}: expected finite numbers, got NaN or infinity in {wrong} of {len(sample)}; "
            "an interval or a p-value of those means nothing: find the examples that gave them"
        )
    return sample


def as_pairs(a: Values, b: Values, names: tuple[str, str]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Two samples of the same examples in the same order.

    Raises:
        BadInput: as `as_sample`, or different lengths.
    """
    first, second = as_sample(a, names[0]), as_sample(b, names[1])
    if len(first) != len(second):
        raise BadInput(
            f"expected {names[0]} and {names[1]} of the same examples in the same order, "
            f"got {len(first)} and {len(second)}"
        )
    return first, second


def by_group(
    values: Values, groups: Sequence[Hashable]
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """Sum and count of each group, for examples that are not independent, such as tokens of one file.

    Groups are the independent units then: give both to `ratio_interval` for an interval of the mean over examples, and
    the sums to `sign_flip_test`.

    Args:
        values: one an example.
        groups: the group of each example, e.g. the file it comes from.

    Returns:
        (sums, counts), each one entry a group, in order of first appearance.

    Raises:
        BadInput: as `as_sample`, or a different number of groups and values.
    """
    sample = as_sample(values, "values")
    if len(groups) != len(sample):
        raise BadInput(f"groups: expected the group of each of {len(sample)} values, got {len(groups)}")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    return np.bincount(index, weights=sample), np.bincount(index).astype(np.float64)


def require_level(level: float) -> None:
    """Raise `BadInput` unless `level` is a confidence between 0 and 1."""
    if not 0 < level < 1:
        raise BadInput(f"level: expected a confidence between 0 and 1 such as 0.95, got {level}")
