"""A program with what it is asked: its vocabulary, its inputs, its answers by plain Python, a task of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from openwork.errors import BadInput
from openwork.task import Task
from openwork.zoo.compiled.interpret import Run, interpret
from openwork.zoo.compiled.language import BOS, Categorical, Indices, Tokens, Value, Variable, in_order

Row = tuple[str, ...]
ATTEMPTS = 200
"""Draws of a row that differs from those before it, or of a corrupted row with another answer, before giving up."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The inputs of a program: rows of words of one length, "bos" first.

    Args:
        words: the vocabulary, of inputs and answers, in the order of the token ids.
        length: words of a row, "bos" among them.
        sample: draws a row.
        near: draws a row that differs in little from a given one, where a position is asked; a fresh row by default.
        every: all rows, where they are few.
        groups: (row, position asked) -> token groups.
    """

    words: Sequence[str]
    length: int
    sample: Callable[[np.random.Generator], Row]
    near: Callable[[Row, int, np.random.Generator], Row] | None = None
    every: Callable[[], Iterable[Row]] | None = None
    groups: Callable[[Row, int], Mapping[str, Sequence[int]]] = lambda row, position: {}


@dataclass(frozen=True, eq=False)
class Program:
    """A program of the language and what it is for.

    Args:
        name: its name in the zoo.
        output: the variable that it computes.
        domain: its inputs.
        algorithm: the same in plain Python, written apart from it: a row -> the answer at each position, None where
            none is asked.
        causal: whether a position sees only itself and what came before.
        word: the answer for a value of `output`.
        acts: variable -> the token group at which it is computed, where that is not everywhere.
        looks: (variable, group that looks, group that is looked at) for the heads of a variable.
        description: one sentence.

    Raises:
        BadInput: if the output does not fit the language, or the vocabulary, or rows are longer than its context.
    """

    name: str
    output: Variable
    domain: Domain
    algorithm: Callable[[Row], Sequence[str | None]]
    causal: bool = True
    word: Callable[[Value], str] = str
    acts: Mapping[str, str] = field(default_factory=dict)
    looks: Sequence[tuple[str, str, str]] = ()
    description: str = ""

    def __post_init__(self) -> None:
        words, length = tuple(self.domain.words), self.domain.length
        if not isinstance(self.output, Categorical):
            raise BadInput(f"expected a categorical output; {self.output.name!r} is not: map it to classes first")
        answers = {self.word(value) for value in self.output.values}
        if not answers <= set(words):
            raise BadInput(f"expected answers among the {len(words)} words; got {sorted(answers - set(words))[:5]}")
        for variable in in_order(self.output):
            if isinstance(variable, Tokens) and variable.values != words:
                raise BadInput(f"expected the tokens of {self.name!r} to be the words of its domain, in that order")
            if isinstance(variable, Indices) and variable.context < length:
                raise BadInput(
                    f"expected a context of at least {length}, as long as a row; got {variable.context} positions, a "
                    "basis too small"
                )

    def encode(self, rows: Iterable[Sequence[str]]) -> tuple[tuple[int, ...], ...]:
        """Token ids of rows of words.

        Raises:
            BadInput: for a word outside the vocabulary, or a row that is too long or does not begin with "bos".
        """
        number = {word: i for i, word in enumerate(self.domain.words)}
        encoded = []
        for row in rows:
            unknown = [word for word in row if word not in number]
            if unknown:
                raise BadInput(f"expected words of {list(number)}; got {unknown[0]!r}")
            if len(row) > self.domain.length or row[0] != BOS:
                raise BadInput(
                    f"expected at most {self.domain.length} words, the context of {self.name!r}, {BOS!r} first; got "
                    f"{len(row)}, {row[0]!r} first"
                )
            encoded.append(tuple(number[word] for word in row))
        return tuple(encoded)

    def rows(self, most: int = 20_000, otherwise: int = 10_000, seed: int = 0) -> Iterator[Row]:
        """All rows of the domain if there are at most `most`, or else `otherwise` random ones."""
        if self.domain.every is not None:
            every = list(self.domain.every())
            if len(every) <= most:
                yield from every
                return
        rng = np.random.default_rng(seed)
        yield from (self.domain.sample(rng) for _ in range(otherwise))

    def interpret(self, row: Sequence[str], given: Mapping[str, Sequence[Value]] | None = None) -> Run:
        """Every variable at every position of a row; see `openwork.zoo.compiled.interpret.interpret`."""
        return interpret(self.output, row, self.causal, given)

    def task(self, n: int = 128, seed: int = 0) -> Task:
        """The behaviour: clean and corrupted rows, each asked at one position at which their answers differ.

        Half of the corrupted rows differ from theirs in as little as the domain knows how to change, the others are
        rows of their own. Rows repeat only where the domain has too few.

        Args:
            n: number of examples.
            seed: of the rows.

        Returns:
            the task, half of it held out, with the group "asked" and those of the domain.

        Raises:
            BadInput: if no two rows can be found whose answers differ.
        """
        rng = np.random.default_rng(seed)
        seen: set[Row] = set()
        clean, corrupted, right, wrong, asked = [], [], [], [], []
        for number in range(n):
            row, at, other = self._pair(seen, near=number % 2 == 0, rng=rng)
            seen.add(row)
            clean.append(row)
            corrupted.append(other)
            right.append(self.algorithm(row)[at])
            wrong.append(self.algorithm(other)[at])
            asked.append(at)
        number_of = {word: i for i, word in enumerate(self.domain.words)}
        grouped = [{"asked": (at,), **self.domain.groups(row, at)} for row, at in zip(clean, asked, strict=True)]
        task = Task.from_tokens(
            self.encode(clean),
            self.encode(corrupted),
            [number_of[word] for word in right],
            [number_of[word] for word in wrong],
            at=asked,
            groups={name: [groups[name] for groups in grouped] for name in grouped[0]},
            name=self.name,
        )
        chance = max(right.count(word) for word in set(right)) / n
        return replace(task, chance=chance, description=self.description)

    def _pair(self, seen: Set[Row], near: bool, rng: np.random.Generator) -> tuple[Row, int, Row]:
        """A row, new if one can be found, a position that is asked, and a row whose answer there is another."""
        found: tuple[Row, int, Row] | None = None
        for _ in range(ATTEMPTS):
            row = self.domain.sample(rng)
            answers = self.algorithm(row)
            different = sorted({answer for answer in answers if answer is not None})
            if (found and row in seen) or not different:
                continue
            # an answer that the row gives often is not asked more often
            answer = different[int(rng.integers(len(different)))]
            at = int(rng.choice([i for i, given in enumerate(answers) if given == answer]))
            other = self._corrupted(row, answer, at, near, rng)
            if other is not None:
                found = row, at, other
                if row not in seen:
                    break
        if found is None:
            raise BadInput(f"expected rows of {self.name!r} whose answers differ; {ATTEMPTS} draws gave none")
        return found

    def _corrupted(self, row: Row, answer: str, at: int, near: bool, rng: np.random.Generator) -> Row | None:
        for _ in range(ATTEMPTS):
            draw = self.domain.near if near else None
            other = draw(row, at, rng) if draw else self.domain.sample(rng)
            if self.algorithm(other)[at] not in (None, answer):
                return other
        return None
