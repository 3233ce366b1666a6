"""How well a probe does: balanced accuracy, accuracy, AUROC, R², each with an interval over documents.

Places of one document are not independent, so intervals resample documents, and what enters a test is one number a
document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from openwork.errors import BadInput
from openwork.probes.forms import Targets

LEVEL, RESAMPLES = 0.95, 1000
MOST = 4_000_000
"""Pairs of places that are compared at once."""
Estimate = tuple[float, float, float]
"""Value, lower and upper end of its interval."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions beside the truth.

    Args:
        y: (place,) classes, or numbers if `classes` is 0.
        predicted: (place,) likewise.
        documents: (place,) what each belongs to.
        classes: how many there are.
        outputs: (place, out) logits of the classes, where there are any.
        seed: of the resampling.
    """

    y: Targets
    predicted: Targets
    documents: Int[np.ndarray, " place"]
    classes: int
    outputs: Float[np.ndarray, "place out"] | None = None
    seed: int = 0

    @property
    def main(self) -> str:
        """The name of the score: ``balanced accuracy``, or ``R²`` of numbers."""
        return "balanced accuracy" if self.classes else "R²"

    @cached_property
    def score(self) -> Estimate:
        """Balanced accuracy over the classes that occur, or R², with its interval."""
        return self._estimate(self.resampled)

    @cached_property
    def accuracy(self) -> Estimate:
        """Share of places that are right, with its interval; NaN of numbers."""
        if not self.classes:
            return (np.nan, np.nan, np.nan)
        right = self._sums((self.predicted == self.y).astype(float)[:, None])
        return self._estimate(lambda w: (w @ right)[:, 0] / (w @ self._counts))

    @cached_property
    def auroc(self) -> Estimate:
        """Chance that a place of a class gets a higher logit for it than one of another, mean over the classes.

        NaN of numbers, and where there are no logits.
        """
        if not self.classes or self.outputs is None:
            return (np.nan, np.nan, np.nan)
        there = np.unique(self.y).astype(int)
        wanted = there[-1:] if len(there) == 2 else there
        tables = []
        for one in wanted:
            own = self.outputs[:, one]
            others = np.delete(self.outputs, one, 1)
            tables.append(_wins(own - others.max(1), self.y == one, self._index, len(self._names)))

        def mean(weights: np.ndarray) -> np.ndarray:
            found = []
            for wins, positive, negative in tables:
                pairs = (weights @ positive) * (weights @ negative)
                won = ((weights @ wins) * weights).sum(1)
                found.append(np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
            return np.mean(found, axis=0)

        return self._estimate(mean)

    @cached_property
    def per_document(self) -> Float[np.ndarray, " document"]:
        """One number a document, in the order of their numbers, whose mean is the score.

        Of classes each place counts for its share of the balanced accuracy, of numbers for 1 − its squared error over
        the variance.
        """
        if self.classes:
            counts = np.bincount(self.y.astype(int), minlength=self.classes)
            credit = len(self.y) / ((counts > 0).sum() * counts[self.y.astype(int)]) * (self.predicted == self.y)
        else:
            credit = 1 - np.square(self.predicted - self.y) / self.y.var()
        return self._sums(credit[:, None])[:, 0] * len(self._names) / len(self.y)

    def resampled(self, weights: Float[np.ndarray, "draw document"]) -> Float[np.ndarray, " draw"]:
        """The score with every document counted as often as its weight says."""
        if not self.classes:
            y = self._sums(np.stack((self.y, np.square(self.y), np.square(self.y - self.predicted)), 1))
            total, squares, errors = (weights @ y).T
            spread = squares - np.square(total) / (weights @ self._counts)
            return 1 - errors / np.maximum(spread, 1e-12)
        hot = np.eye(self.classes)[self.y.astype(int)]
        there = weights @ self._sums(hot)
        right = weights @ self._sums(hot * (self.predicted == self.y)[:, None])
        recall = np.divide(right, there, out=np.full_like(right, np.nan), where=there > 0)
        return np.nanmean(recall, axis=1)

    @cached_property
    def draws(self) -> Float[np.ndarray, "draw document"]:
        """How often each resample counts each document; the first counts all once."""
        n = len(self._names)
        if n < 2:
            raise BadInput(f"expected at least two held-out documents for an interval; got {n}")
        drawn = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
        return np.vstack((np.ones(n), drawn)).astype(float)

    def _estimate(self, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        return ends(statistic(self.draws))

    @cached_property
    def _names(self) -> np.ndarray:
        return np.unique(self.documents)

    @cached_property
    def _index(self) -> np.ndarray:
        return np.searchsorted(self._names, self.documents)

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.bincount(self._index, minlength=len(self._names)).astype(float)

    def _sums(self, values: Float[np.ndarray, "place column"]) -> Float[np.ndarray, "document column"]:
        out = np.zeros((len(self._names), values.shape[1]))
        np.add.at(out, self._index, values)
        return out


def ends(values: Float[np.ndarray, " draw"]) -> Estimate:
    """A statistic of all documents, the first, with the percentile interval of its resamples, the others."""
    tail = (1 - LEVEL) / 2
    if np.isnan(values[1:]).all():
        return float(values[0]), float("nan"), float("nan")
    low, high = np.nanquantile(values[1:], (tail, 1 - tail))
    return float(values[0]), float(low), float(high)


def difference(one: Judged, others: Sequence[Judged]) -> Estimate:
    """The score of one minus the mean score of others on the same documents, resampled together."""
    rest = np.mean([other.resampled(one.draws) for other in others], axis=0)
    return ends(one.resampled(one.draws) - rest)


def _wins(
    scores: Float[np.ndarray, " place"], positive: np.ndarray, index: np.ndarray, documents: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often a positive place of a document has a higher score than a negative one of another, ties at half."""
    above, below = scores[positive], scores[~positive]
    negative_of = np.eye(documents, dtype=np.float32)[index[~positive]]
    wins = np.zeros((documents, documents))
    step = max(1, MOST // max(1, len(below)))
    for start in range(0, len(above), step):
        part = above[start : start + step, None]
        won = (part > below).astype(np.float32) + np.float32(0.5) * (part == below)
        np.add.at(wins, index[positive][start : start + step], won @ negative_of)
    has, lacks = (np.bincount(index[chosen], minlength=documents).astype(float) for chosen in (positive, ~positive))
    return wins, has, lacks
