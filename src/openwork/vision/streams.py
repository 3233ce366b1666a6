"""What is kept of a stream of images: the most extreme ones, and a fair few from each interval of activation.

The memory is that of what is kept, however long the stream; the result does not depend on how it is cut into batches.

Source: Efraimidis and Spirakis 2006 (sampling by the smallest random keys, here a hash of the image's number).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Values = Float[np.ndarray, "image unit"]
Rows = Int[np.ndarray, " image"]
FINE = 1024
"""Bins from which quantiles are read; each is exact to a bin."""


class Extremes:
    """The images that activate each unit most and least, exactly; of equal ones the first. And the mean of all.

    Args:
        units: how many.
        top: how many of the strongest to keep.
        bottom: how many of the weakest.
    """

    def __init__(self, units: int, top: int, bottom: int):
        self.n, self.total = 0, np.zeros(units)
        self.low, self.high = np.full(units, np.inf), np.full(units, -np.inf)
        self._sides = {1: (top, *_empty(units)), -1: (bottom, *_empty(units))}

    def add(self, values: Values, rows: Rows) -> None:
        """Look at some images."""
        values = np.asarray(values, dtype=np.float64)
        self.n += len(rows)
        self.total += values.sum(0)
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))
        for sign, (count, kept, where) in self._sides.items():
            all_values = np.concatenate([kept, values.T], 1)
            all_rows = np.concatenate([where, np.broadcast_to(rows, (len(kept), len(rows)))], 1)
            order = np.lexsort((all_rows, -sign * all_values), axis=-1)[:, :count]
            some = np.take_along_axis(all_values, order, 1), np.take_along_axis(all_rows, order, 1)
            self._sides[sign] = (count, *some)

    @property
    def mean(self) -> Float[np.ndarray, " unit"]:
        """Of all activations."""
        return self.total / max(self.n, 1)

    @property
    def strongest(self) -> tuple[Float[np.ndarray, "unit rank"], Int[np.ndarray, "unit rank"]]:
        """Activations and rows, the largest first."""
        return self._sides[1][1:]

    @property
    def weakest(self) -> tuple[Float[np.ndarray, "unit rank"], Int[np.ndarray, "unit rank"]]:
        """Activations and rows, the smallest first."""
        return self._sides[-1][1:]


class Spread:
    """How activations are spread over a known range, and a uniform sample from each of its even intervals.

    Args:
        low: of each unit's range.
        high: likewise.
        intervals: how many of equal width.
        each: images that are kept of each.
        seed: of the choice.
    """

    def __init__(
        self, low: Float[np.ndarray, " unit"], high: Float[np.ndarray, " unit"], intervals: int, each: int, seed: int
    ):
        self.low, self.high, self.intervals, self.each, self.seed = low, high, intervals, each, seed
        units = len(low)
        self.fine = np.zeros((units, FINE), dtype=np.int64)
        self.counts = np.zeros((units, intervals), dtype=np.int64)
        self.values = np.full((units, intervals, each), np.nan)
        self.rows = np.full((units, intervals, each), -1, dtype=np.int64)
        self._keys = np.full((units, intervals, each), NEVER)

    def add(self, values: Values, rows: Rows) -> None:
        """Look at some images."""
        values = np.asarray(values, dtype=np.float64)
        units = np.broadcast_to(np.arange(len(self.low)), values.shape)
        np.add.at(self.fine, (units, self._bin(values, FINE)), 1)
        place = self._bin(values, self.intervals)
        np.add.at(self.counts, (units, place), 1)
        keys = np.broadcast_to(keys_of(rows, self.seed), (len(self.low), len(rows)))
        for k in range(self.intervals):
            mine = np.where(np.equal(place.T, k), keys, NEVER)
            pool = np.concatenate([self._keys[:, k], mine], 1)
            order = np.argsort(pool, axis=1, kind="stable")[:, : self.each]
            some_rows = np.concatenate([self.rows[:, k], np.broadcast_to(rows, mine.shape)], 1)
            some_values = np.concatenate([self.values[:, k], values.T], 1)
            self._keys[:, k] = np.take_along_axis(pool, order, 1)
            here = self._keys[:, k] < NEVER
            self.rows[:, k] = np.where(here, np.take_along_axis(some_rows, order, 1), -1)
            self.values[:, k] = np.where(here, np.take_along_axis(some_values, order, 1), np.nan)

    @property
    def edges(self) -> Float[np.ndarray, "unit edge"]:
        """Where the intervals begin and end."""
        return np.linspace(self.low, self.high, self.intervals + 1, axis=-1)

    def quantiles(self, shares: Float[np.ndarray, " share"]) -> Float[np.ndarray, "unit share"]:
        """Values below which these shares of the images lie; exact to a `FINE` part of the range."""
        cumulative = np.concatenate([np.zeros((len(self.fine), 1)), self.fine.cumsum(1)], 1)
        edges = np.linspace(self.low, self.high, FINE + 1, axis=-1)
        found = [np.interp(shares * c[-1], c, e) for c, e in zip(cumulative, edges, strict=True)]
        return np.array(found)

    def _bin(self, values: Values, bins: int) -> Int[np.ndarray, "image unit"]:
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        return np.clip(((values - self.low) / width * bins).astype(np.int64), 0, bins - 1)


NEVER = np.iinfo(np.uint64).max


def keys_of(rows: Rows, seed: int) -> np.ndarray:
    """A random 64-bit key for each row, the same whenever it is asked for.

    Source:
        Steele, Lea and Flood 2014 (SplitMix64).
    """
    z = np.asarray(rows).astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
    with np.errstate(over="ignore"):
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))) >> np.uint64(1)


def _empty(units: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((units, 0)), np.zeros((units, 0), dtype=np.int64)
