"""Chance that is the same for ever: whole numbers from a hash of a key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from struct import unpack
from typing import TypeVar

T = TypeVar("T")
BLOCK = 128


class Draws:
    """A stream of random numbers that depends on its key alone, on every machine and with every version of numpy.

    Args:
        key: what it is of.
    """

    def __init__(self, key: str):
        self._key, self._block = key, 0
        self._left: list[int] = []

    def below(self, n: int) -> int:
        """A whole number from 0 to `n` - 1."""
        if not self._left:
            digest = hashlib.shake_256(f"{self._key}|{self._block}".encode()).digest(4 * BLOCK)
            self._left, self._block = list(unpack(f"<{BLOCK}I", digest)), self._block + 1
        return (self._left.pop() * n) >> 32

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) < percent

    def one_of(self, values: Sequence[T]) -> T:
        """One of some values."""
        return values[self.below(len(values))]

    def some_of(self, values: Sequence[T], n: int) -> list[T]:
        """`n` different ones of some values, in random order."""
        left = list(values)
        return [left.pop(self.below(len(left))) for _ in range(n)]
