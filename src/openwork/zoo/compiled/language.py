"""A small language in which every program is a transformer.

A program is a variable defined by other variables, each of which has one of finitely many values at every position:

    tokens, indices = Tokens(("bos", "a", "b", "c")), Indices(8)
    before = Aggregate("before", Select(indices, indices, lambda key, query: key == query - 1), tokens)
    pair = Map("pair", lambda a, b: a + b if "bos" not in (a, b) else "bos", (before, tokens))

`Select` says which keys each query looks at, `Aggregate` brings what stands there, `Share` and `SelectorWidth` count
it, and `Map` computes at one position. Attention does the former, an MLP the latter (`openwork.zoo.compiled.compile`).

**The first position** holds "bos" in every row, and is where a query looks that selects nothing. A query whose
predicate holds at the first position looks there alone, so predicates should not hold at it except to mean that.

Source: Weiss, Goldberg and Yahav 2021, Thinking Like Transformers (RASP: select, aggregate, selector width).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool

from openwork.errors import BadInput

Value = Hashable
BOS = "bos"


@dataclass(frozen=True, eq=False)
class Variable:
    """A quantity with one of finitely many values at every position.

    Args:
        name: unique in its program.
    """

    name: str
    values: tuple[Value, ...] = field(init=False, repr=False)

    @property
    def reads(self) -> tuple[Variable, ...]:
        """The variables by which it is defined."""
        return ()


class Categorical(Variable):
    """A variable that has one basis direction for each of its values."""


class Numerical(Variable, ABC):
    """A variable that is one number along one basis direction; only a `Map` of it alone can read it."""

    @abstractmethod
    def code(self, value: Value) -> float:
        """The number that stands for a value."""


@dataclass(frozen=True, eq=False)
class Tokens(Categorical):
    """The word at each position.

    Args:
        words: the vocabulary, "bos" first; the order is that of the token ids.
    """

    name: str = field(default="tokens", init=False)
    words: Sequence[str] = ()

    def __post_init__(self) -> None:
        words = tuple(self.words)
        if words[:1] != (BOS,) or len(set(words)) < len(words):
            raise BadInput(f"expected different words, {BOS!r} first; got {words}")
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "values", words)


@dataclass(frozen=True, eq=False)
class Indices(Categorical):
    """The number of each position, from 0.

    Args:
        context: how many positions there are.
    """

    name: str = field(default="indices", init=False)
    context: int = 0

    def __post_init__(self) -> None:
        if self.context < 2:
            raise BadInput(f"expected a context of {BOS!r} and at least one word; got {self.context} positions")
        object.__setattr__(self, "values", tuple(range(self.context)))


@dataclass(frozen=True, eq=False)
class Map(Categorical):
    """A function of what stands at one position.

    Args:
        name: unique in its program.
        fn: of one value of each input; None for a combination that cannot occur.
        inputs: one or more categorical variables, or a single numerical one.
        declared: the values that it may take; by default those that it takes, in order of appearance.

    Attributes:
        table: combination of input values -> value, without those that cannot occur.

    Raises:
        BadInput: if `fn` fails, leaves the declared values, or reads a number beside other variables.
    """

    fn: Callable[..., Value]
    inputs: Variable | Sequence[Variable]
    declared: Sequence[Value] | None = None
    table: dict[tuple[Value, ...], Value] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        inputs = (self.inputs,) if isinstance(self.inputs, Variable) else tuple(self.inputs)
        numbers = [v.name for v in inputs if isinstance(v, Numerical)]
        if not inputs or (numbers and len(inputs) > 1):
            raise BadInput(
                f"expected {self.name!r} to map categorical variables, or one numerical variable alone; got "
                f"{[v.name for v in inputs]}, of which {numbers} are numerical: map these to classes first"
            )
        table = {}
        for combination in product(*(v.values for v in inputs)):
            value = called(f"the function of {self.name!r}", self.fn, *combination)
            if value is not None:
                table[combination] = value
        values = tuple(dict.fromkeys(table.values() if self.declared is None else self.declared))
        outside = [f"{k} -> {v!r}" for k, v in table.items() if v not in values]
        if outside or not values:
            raise BadInput(f"expected {self.name!r} within its declared values {values}; got {outside[:3]}")
        for name, found in (("inputs", inputs), ("table", table), ("values", values)):
            object.__setattr__(self, name, found)

    @property
    def reads(self) -> tuple[Variable, ...]:
        return tuple(self.inputs)  # type: ignore[arg-type]  # a tuple since __post_init__


@dataclass(frozen=True, eq=False)
class Prefer:
    """Among the keys that a query selects, only those of the highest rank.

    Args:
        variable: a categorical variable of the key.
        rank: of its value, an integer; the ranks of several preferences add up.

    Raises:
        BadInput: if a rank is no integer.
    """

    variable: Variable
    rank: Callable[[Any], int]

    def __post_init__(self) -> None:
        ranks = [called(f"the rank by {self.variable.name!r}", self.rank, v) for v in self.variable.values]
        if not isinstance(self.variable, Categorical) or not all(isinstance(r, int) for r in ranks):
            raise BadInput(f"expected integer ranks of a categorical variable; {self.variable.name!r} gives {ranks}")


def latest(indices: Indices) -> tuple[Prefer]:
    """The last of the selected keys."""
    return (Prefer(indices, lambda i: i),)


def earliest(indices: Indices) -> tuple[Prefer]:
    """The first of the selected keys."""
    return (Prefer(indices, lambda i: -i),)


@dataclass(frozen=True, eq=False)
class Select:
    """Which keys each query looks at.

    Args:
        keys: a categorical variable.
        queries: a categorical variable.
        predicate: (value of the key, value of the query) -> whether the query looks at the key.
        prefer: which of several selected keys count; all of them alike without.

    Attributes:
        table: the predicate, (query value, key value).

    Raises:
        BadInput: if the predicate fails, or keys or queries are numerical.
    """

    keys: Variable
    queries: Variable
    predicate: Callable[[Any, Any], bool]
    prefer: Sequence[Prefer] = ()
    table: Bool[np.ndarray, "query key"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for variable in (self.keys, self.queries):
            if not isinstance(variable, Categorical):
                raise BadInput(
                    f"expected categorical keys and queries; {variable.name!r} is not: map it to classes first"
                )
        what = f"the predicate of {self.keys.name!r} and {self.queries.name!r}"
        rows = [[bool(called(what, self.predicate, k, q)) for k in self.keys.values] for q in self.queries.values]
        object.__setattr__(self, "table", np.array(rows))
        object.__setattr__(self, "prefer", tuple(self.prefer))

    @property
    def reads(self) -> tuple[Variable, ...]:
        return (self.keys, self.queries, *(p.variable for p in self.prefer))


@dataclass(frozen=True, eq=False)
class Aggregate(Categorical):
    """What stands where each query looks.

    Args:
        name: unique in its program.
        select: where to look; several keys that count must agree in what stands there.
        of: a categorical variable.
        heads: attention heads that share the work equally.

    Raises:
        BadInput: if `of` is numerical, or there is no head.
    """

    select: Select
    of: Variable
    heads: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.of, Categorical) or self.heads < 1:
            raise BadInput(
                f"expected {self.name!r} to bring a categorical variable by at least one head; got {self.of.name!r} "
                f"by {self.heads} heads"
            )
        object.__setattr__(self, "values", self.of.values)

    @property
    def reads(self) -> tuple[Variable, ...]:
        return (*self.select.reads, self.of)


@dataclass(frozen=True, eq=False)
class Share(Numerical):
    """The share of the selected keys at which something holds.

    Args:
        name: unique in its program.
        select: where to look, without preference.
        of: a categorical variable.
        counted: whether a value of `of` counts.
        most: most keys that are ever selected.

    Raises:
        BadInput: if the selection has a preference, or `of` is numerical, or `counted` fails.
    """

    select: Select
    of: Variable
    counted: Callable[[Any], bool]
    most: int

    def __post_init__(self) -> None:
        if self.select.prefer or not isinstance(self.of, Categorical):
            raise BadInput(f"expected {self.name!r} to count a categorical variable without preference of any key")
        for value in self.of.values:
            called(f"what {self.name!r} counts", self.counted, value)
        shares = {Fraction(part, whole) for whole in range(1, self.most + 1) for part in range(whole + 1)}
        object.__setattr__(self, "values", tuple(sorted(shares)))

    @property
    def reads(self) -> tuple[Variable, ...]:
        return (*self.select.reads, self.of)

    def code(self, value: Any) -> float:
        return float(value)


@dataclass(frozen=True, eq=False)
class SelectorWidth(Numerical):
    """How many keys each query selects, the first position apart.

    Args:
        name: unique in its program.
        select: where to look, without preference.
        most: most keys that are ever selected.

    Raises:
        BadInput: if the selection has a preference.
    """

    select: Select
    most: int

    def __post_init__(self) -> None:
        if self.select.prefer:
            raise BadInput(f"expected {self.name!r} to count without preference of any key; drop prefer=")
        object.__setattr__(self, "values", tuple(range(self.most + 1)))

    @property
    def reads(self) -> tuple[Variable, ...]:
        return self.select.reads

    def code(self, value: Any) -> float:
        return 1 / (1 + value)


def called(what: str, fn: Callable[..., Any], *values: Value) -> Any:
    """What a function of the program makes of some values.

    Raises:
        BadInput: if it raises, as a function does that is not meant for all values of its variables.
    """
    try:
        return fn(*values)
    except Exception as error:
        raise BadInput(
            f"expected {what} to take every value of its variables; on {values} it raised {error!r}"
        ) from error


def in_order(*outputs: Variable) -> tuple[Variable, ...]:
    """The outputs and all variables that define them, each after those that it reads.

    Raises:
        BadInput: if a variable is defined by itself, two variables have one name, or one is not of this language.
    """
    reads: dict[Variable, tuple[Variable, ...]] = {}
    waiting = list(outputs)
    while waiting:
        variable = waiting.pop()
        if not isinstance(variable, (Tokens, Indices, Map, Aggregate, Share, SelectorWidth)):
            raise BadInput(f"expected variables of the language; got {type(variable).__name__} {variable.name!r}")
        if variable not in reads:
            reads[variable] = variable.reads
            waiting.extend(variable.reads)
    try:
        ordered = tuple(TopologicalSorter(reads).static_order())
    except CycleError as error:
        names = " <- ".join(v.name for v in error.args[1])
        raise BadInput(f"expected no variable defined by itself; got the cycle {names}") from error
    by_name = {v.name: v for v in ordered}
    twice = sorted({v.name for v in ordered if by_name[v.name] is not v})
    if twice:
        raise BadInput(f"expected a name of its own for each variable; several are called {twice}")
    return ordered
