"""How rows of words are drawn and changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from openwork.zoo.compiled.language import BOS
from openwork.zoo.compiled.program import Row


def letters(count: int) -> tuple[str, ...]:
    """The first letters of the alphabet."""
    return tuple("abcdefghijklmnopqrstuvwxyz"[:count])


def pick(words: Sequence[str], rng: np.random.Generator) -> str:
    """A random word."""
    return words[int(rng.integers(len(words)))]


def drawn(words: Sequence[str], count: int) -> Callable[[np.random.Generator], Row]:
    """Draws "bos" and `count` words, each independent of the others."""
    return lambda rng: (BOS, *(pick(words, rng) for _ in range(count)))


def all_rows(words: Sequence[str], count: int) -> Callable[[], Iterator[Row]]:
    """All rows of "bos" and `count` words."""
    return lambda: ((BOS, *rest) for rest in product(words, repeat=count))


def one_changed(words: Sequence[str]) -> Callable[[Row, int, np.random.Generator], Row]:
    """Changes one word of a row into another one of `words`."""

    def change(row: Row, position: int, rng: np.random.Generator) -> Row:
        place = int(rng.choice([i for i, word in enumerate(row) if word in words]))
        return changed(row, {place: pick([word for word in words if word != row[place]], rng)})

    return change


def changed(row: Row, words: dict[int, str]) -> Row:
    """A row with other words at some places."""
    return tuple(words.get(i, word) for i, word in enumerate(row))
