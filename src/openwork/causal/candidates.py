"""What every causal method measures against: the gap between clean and corrupted runs, and shares of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.errors import BadInput
from openwork.network.sweep import effects as effects_of
from openwork.network.sweep import plain
from openwork.task import Batch, Inputs, Metric, Task

if TYPE_CHECKING:
    from openwork.network import Network

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Gap:
    """The metric of the unedited runs of some examples, turned so that larger means more of the behaviour.

    Args:
        clean: (example,) of the clean runs.
        corrupted: (example,) of the corrupted runs; None where there are none.
        sign: with which the metric was turned.
    """

    clean: Float[np.ndarray, " example"]
    corrupted: Float[np.ndarray, " example"] | None
    sign: float

    @classmethod
    def of(cls, net: Network, batch: Batch, metric: Metric) -> Gap:
        """Run the clean examples, and the corrupted ones if they differ."""
        sign = sign_of(metric)
        corrupted = sign * plain(net, batch, metric, "corrupted") if has_twins(batch) else None
        return cls(sign * plain(net, batch, metric, "clean"), corrupted, sign)

    @property
    def open(self) -> bool:
        """Whether the mean gap can be told from 0, by its 95 % t-interval."""
        if self.corrupted is None:
            return True
        gap = effects_of((self.clean - self.corrupted)[None])
        return bool(gap["low"][0] * gap["high"][0] > 0)

    @property
    def closed(self) -> str:
        """Why nothing is claimed without a gap."""
        assert self.corrupted is not None
        return (
            f"clean and corrupted runs differ by {(self.clean - self.corrupted).mean():.3g} on average, which cannot "
            "be told from 0: there is nothing to restore or to take away, shares are left out and nothing is claimed"
        )

    @property
    def scale(self) -> float:
        """What effects are measured against: the mean gap, or the mean size of the metric where there is none."""
        if self.corrupted is None:
            return float(np.abs(self.clean).mean())
        return float(abs((self.clean - self.corrupted).mean()))

    @property
    def of_what(self) -> str:
        """`scale` in words."""
        return "mean |clean|" if self.corrupted is None else "|mean of clean - corrupted|"


def sign_of(metric: Metric) -> float:
    """1 for a metric of which more is better, -1 for one of which less is."""
    return 1.0 if metric.higher_is_better else -1.0


def has_twins(batch: Batch) -> bool:
    """Whether any corrupted example differs from its clean one."""
    clean, corrupted = batch.clean, batch.corrupted
    if isinstance(clean, Inputs) and isinstance(corrupted, Inputs):
        return clean.ids != corrupted.ids
    if isinstance(clean, Inputs) or isinstance(corrupted, Inputs):
        return True
    return any(not bool((value == corrupted.values[name]).all()) for name, value in clean.values.items())


def require_twins(task: Task) -> None:
    """Refuse a task whose corrupted inputs are its clean ones.

    Raises:
        BadInput: if all are the same.
    """
    if not has_twins(task.batch(range(len(task)))):
        raise BadInput(
            f"expected corrupted inputs that differ from the clean ones; all {len(task)} of task {task.name!r} are the "
            "same. Give each example a corrupted twin, or use a method that needs none (ablate, trace)"
        )


def rows_of(task: Task, split: str) -> list[int]:
    """The rows of a split, in the order of `Task.split`."""
    return [row for row in range(len(task)) if (row in task.held_out) == (split == "held-out")]


def recoveries(
    effects: Float[np.ndarray, "*cell example"], gap: Float[np.ndarray, " example"], seed: int, resamples: int = 1000
) -> dict[str, Float[np.ndarray, "*cell"]]:
    """Mean effect of each cell as a share of the mean gap, with percentile-bootstrap intervals.

    Effects and gaps are averaged before dividing, for an example whose own gap is near zero would otherwise dominate.
    Examples that a cell does not reach (NaN) leave both means of that cell.

    Args:
        effects: of each cell on each example.
        gap: clean minus corrupted metric of each example.
        seed: of the resampling.
        resamples: how many.

    Returns:
        ``recovery``, ``recovery_low`` and ``recovery_high``; all NaN where the interval of the mean gap holds 0, so
        that a share of it means nothing.

    Units:
        fraction of the mean gap.

    Source:
        (patched − corrupted) / (clean − corrupted): Wang et al. 2022; Heimersheim and Nanda 2024, section 3.
    """
    n = len(gap)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples).astype(float)
    weights = np.vstack((np.ones(n), draws))
    here = ~np.isnan(effects)
    with np.errstate(divide="ignore", invalid="ignore"):
        tops = np.where(here, effects, 0.0) @ weights.T
        bottoms = (here * gap) @ weights.T
        ratios = tops / bottoms
        tail = (1 - LEVEL) / 2
        low, high = (np.quantile(ratios[..., 1:], q, axis=-1) for q in (tail, 1 - tail))
        ends = (np.quantile(bottoms[..., 1:], q, axis=-1) for q in (tail, 1 - tail))
        sound = np.multiply(*ends) > 0
        near = np.abs(bottoms[..., 0]) <= 1e-6 * np.abs(np.where(here, gap, 0.0)).sum(-1)
    sound &= ~near & here.any(-1)
    return {
        "recovery": np.where(sound, ratios[..., 0], np.nan),
        "recovery_low": np.where(sound, low, np.nan),
        "recovery_high": np.where(sound, high, np.nan),
    }


def settings_of(method: Any, **more: Any) -> dict[str, Any]:
    """The knobs of a method and what else was asked for, as JSON values."""
    return {**asdict(method), **more}
