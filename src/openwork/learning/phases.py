"""When a number changes in the course of a training: before, during and after, with intervals on the steps.

The series is cut into three stretches whose values differ least from the mean of each (least squares, exact); a middle
one that is hardly to be told from one side belongs to it, so that a change at once has no long during. What is
claimed of it is the *change*: the mean after minus the mean before. Two hypotheses speak against a phase: that the
order of the steps does not matter (they are permuted), and that the number changes steadily from the first step to the
last, in which case a cut finds a difference too.

Source: Truong, Oudre and Vayatis 2020, Selective review of offline change point detection methods (optimal
segmentation by least squares; `ruptures`); Olsson et al. 2022, In-context Learning and Induction Heads (phase change).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from jaxtyping import Float

from openwork.errors import BadInput

FEWEST = 3
"""Checkpoints that have a before, a during or an after."""
NEAR = 0.1
"""A middle stretch that is this near to either side, as a share of the whole change, belongs to it."""


@dataclass(frozen=True)
class Cut:
    """Where a series is cut.

    Args:
        before: how many checkpoints come before the change; the last of them is where it begins.
        after: the place of the first checkpoint after it, where it ends; equal to `before` where none lies between.
    """

    before: int
    after: int

    def steps(self, steps: Sequence[int]) -> tuple[int, int]:
        """The steps between which the change lies."""
        return steps[self.before - 1], steps[self.after]


@dataclass(frozen=True)
class Window:
    """When a series changes, with intervals over resampled examples.

    Args:
        cut: of the mean over all examples.
        begin: the step after which it changes.
        end: the step by which it has changed.
        begin_interval: lower and upper end, in steps.
        end_interval: likewise.
    """

    cut: Cut
    begin: int
    end: int
    begin_interval: tuple[int, int]
    end_interval: tuple[int, int]

    @property
    def outer(self) -> tuple[int, int]:
        """From the earliest beginning to the latest end that the intervals allow."""
        return self.begin_interval[0], self.end_interval[1]


def cut(series: Float[np.ndarray, " checkpoint"]) -> Cut:
    """Cut a series into before, during and after by least squares.

    Args:
        series: one number a checkpoint, in the order of their steps.

    Returns:
        the cut whose stretches have the smallest sum of squared deviations from their means; without a middle one that
        is as good as one of the others (`NEAR`).

    Raises:
        BadInput: for fewer than three checkpoints, or numbers that are not finite.
    """
    import ruptures

    if len(series) < FEWEST or not np.isfinite(series).all():
        raise BadInput(f"expected finite numbers of at least {FEWEST} checkpoints; got {len(series)}")
    spread = series.std()
    scaled = (series - series.mean()) / spread if spread > 0 else np.zeros_like(series)
    found = ruptures.KernelCPD(kernel="linear", min_size=1, jump=1).fit(scaled[:, None]).predict(n_bkps=2)
    assert found is not None
    before, after = int(found[0]), int(found[1])
    first, middle, last = (float(part.mean()) for part in np.split(scaled, [before, after]))
    near = NEAR * abs(last - first)
    if abs(middle - last) <= near:
        return Cut(before, before)
    return Cut(after, after) if abs(middle - first) <= near else Cut(before, after)


def window(values: Float[np.ndarray, "checkpoint example"], steps: Sequence[int], resamples: int, seed: int) -> Window:
    """When the mean over examples changes, and how sure that is over examples drawn again with replacement.

    Args:
        values: of every example at every checkpoint.
        steps: of the checkpoints, in order.
        resamples: how often the examples are drawn again.
        seed: of the draws.

    Raises:
        BadInput: as `cut`.

    Units:
        steps.
    """
    whole = cut(values.mean(axis=1))
    rng = np.random.default_rng(seed)
    n = values.shape[1]
    again = [cut(values[:, rng.integers(0, n, n)].mean(axis=1)).steps(steps) for _ in range(resamples)]
    begin, end = whole.steps(steps)
    ends = np.array([(begin, end), *again])
    low, high = np.quantile(ends, (0.025, 0.975), axis=0, method="closest_observation")
    (first, last), (first_end, last_end) = zip(low.tolist(), high.tolist(), strict=True)
    return Window(
        whole, begin, end, (min(int(first), begin), max(int(last), begin)),
        (min(int(first_end), end), max(int(last_end), end)),
    )  # fmt: skip


def change(values: Float[np.ndarray, "checkpoint example"], where: Cut) -> Float[np.ndarray, " example"]:
    """Of each example, the mean after the change minus the mean before it."""
    return values[where.after :].mean(axis=0) - values[: where.before].mean(axis=0)


def steady_change(
    values: Float[np.ndarray, "checkpoint example"], steps: Sequence[int], where: Cut
) -> Float[np.ndarray, " example"]:
    """What `change` would be, had each example gone from its first value to its last one in proportion to the steps.

    The rival of every phase: a number that only drifts has a mean before and a mean after as well.
    """
    way = (np.asarray(steps, dtype=float) - steps[0]) / (steps[-1] - steps[0])
    line = values[0] + way[:, None] * (values[-1] - values[0])
    return change(line, where)


def permuted_changes(
    values: Float[np.ndarray, "checkpoint example"], where: Cut, draws: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """The mean change with the checkpoints in random order: the control of every phase."""
    rng = np.random.default_rng(seed)
    mean = values.mean(axis=1, keepdims=True)
    return np.array([change(mean[rng.permutation(len(mean))], where)[0] for _ in range(draws)])


def orders(checkpoints: int, where: Cut) -> int:
    """How many orders of checkpoints differ in what comes before, during and after: no p-value is below 1 / them."""
    after = checkpoints - where.after
    return comb(checkpoints, where.before) * comb(checkpoints - where.before, after)
