"""Weights over named basis directions: what one variable of the language is, as an attention head or MLP units.

A residual stream that holds a program is the direct sum of its variables' spaces: a direction for each value of a
categorical variable, along which it is 1 at the positions that have the value and 0 elsewhere, and one direction for a
numerical variable, along which it is its code. Weights read and write such directions and nothing else.

Scores of attention differ by at least `GAP`, so that softmax is exact to about 1e-6. Unless its predicate holds there,
the first position scores `GAP` above all keys that are not selected and `GAP` below all that are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from openwork.errors import BadInput
from openwork.zoo.compiled.language import (
    Aggregate,
    Indices,
    Map,
    Numerical,
    Select,
    SelectorWidth,
    Share,
    Value,
    Variable,
)

GAP = 15.0
"""Least difference, in nats, between the attention scores of a key that counts and of one that does not."""

Matrix = Float[np.ndarray, "_ width"]
Vector = Float[np.ndarray, " _"]


class Basis:
    """The named directions of a residual stream.

    Args:
        variables: whose spaces it is the sum of, indices among them.
        width: channels; as many as are needed unless given, zero beyond these.
        unread: channels after the directions, for what nothing is to read.

    Raises:
        BadInput: if there are more directions than channels.
    """

    def __init__(self, variables: Sequence[Variable], width: int | None = None, unread: int = 0):
        self.names: list[str] = []
        self._start: dict[Variable, int] = {}
        for variable in variables:
            self._start[variable] = len(self.names)
            single = isinstance(variable, Numerical)
            self.names += [variable.name] if single else [f"{variable.name}={value}" for value in variable.values]
        (self.positions,) = (v.context for v in variables if isinstance(v, Indices))
        needed = len(self.names) + unread
        self.unread = slice(len(self.names), needed)
        self.width = needed if width is None else width
        if self.width < needed:
            raise BadInput(
                f"expected a basis of at least {needed} directions for the program's variables "
                f"{[v.name for v in variables]}; got width {width}: give more, or compress the compiled network"
            )

    def space(self, variable: Variable) -> Matrix:
        """The directions of a variable, one row for each value, or a single row for a number."""
        count = 1 if isinstance(variable, Numerical) else len(variable.values)
        return np.eye(self.width)[self._start[variable] : self._start[variable] + count]

    def direction(self, variable: Variable, value: Value) -> Vector:
        """The direction of one value of a categorical variable."""
        return self.space(variable)[variable.values.index(value)]


@dataclass(frozen=True)
class Head:
    """One attention head: inputs to its channels, channels to output, and which variables each part reads.

    Args:
        q: (channel, width) what queries read; scores are inner products of queries and keys, not scaled.
        q_bias: (channel,).
        k: (channel, width) what keys read.
        k_bias: (channel,).
        v: (channel, width) what values read; as many channels as it needs, not those of `q`.
        o: (channel, width) what each value channel writes.
        reads: part (q, k or v) -> the variables that it reads.
    """

    q: Matrix
    q_bias: Vector
    k: Matrix
    k_bias: Vector
    v: Matrix
    o: Matrix
    reads: dict[str, tuple[Variable, ...]]

    @property
    def channels(self) -> int:
        """How wide the head is at least."""
        return max(len(self.q), len(self.v))


def head(variable: Variable, basis: Basis, indices: Indices) -> Head:
    """The attention head that computes a variable (each of its heads, if several share the work).

    Args:
        variable: an `Aggregate`, `Share` or `SelectorWidth`.
        basis: of the residual stream.
        indices: by which keys know the first position.
    """
    match variable:
        case Aggregate(select=select, of=of, heads=heads):
            v, o, read = basis.space(of), basis.space(variable) / heads, of
        case Share(select=select, of=of, counted=counted):
            v = np.array([[float(bool(counted(value))) for value in of.values]]) @ basis.space(of)
            o, read = basis.space(variable), of
        case SelectorWidth(select=select):
            v, o, read = basis.direction(indices, 0)[None], basis.space(variable), indices
        case _:
            raise BadInput(f"expected a variable that attention computes; got {variable!r}")
    match_score, first_score, spread = _levels(select, always_first=isinstance(variable, SelectorWidth))
    classes, patterns = _matches(select)
    q, q_bias = _read(classes, basis.space(select.queries))
    k, k_bias = _read(match_score * patterns, basis.space(select.keys))
    preference = first_score * basis.direction(indices, 0)
    for prefer, ranks in spread:
        preference = preference + GAP * ranks @ basis.space(prefer)
    none = np.zeros((1, basis.width))
    reads = {
        "q": (select.queries,) if q.any() else (),
        "k": (*((select.keys,) if k.any() else ()), indices, *(prefer for prefer, _ in spread)),
        "v": (read,),
    }
    return Head(
        np.vstack((q, none)), np.append(q_bias, 1.0), np.vstack((k, preference)), np.append(k_bias, 0.0), v, o, reads
    )


def _levels(select: Select, always_first: bool) -> tuple[float, float, list[tuple[Variable, Vector]]]:
    """The score of a match, that of the first position, and the ranks of each preference, from 0."""
    spread = []
    for prefer in select.prefer:
        ranks = np.array([prefer.rank(value) for value in prefer.variable.values], dtype=float)
        spread.append((prefer.variable, ranks - ranks.min()))
    total = GAP * sum(ranks.max() for _, ranks in spread)
    match = 2 * GAP + 2 * total
    return match, match if always_first else GAP + total, spread


def _matches(select: Select) -> tuple[Float[np.ndarray, "channel query"], Float[np.ndarray, "channel key"]]:
    """The predicate as a product of as few channels as the values fall into classes, by query or by key."""
    by_query, query_class = np.unique(select.table, axis=0, return_inverse=True)
    by_key, key_class = np.unique(select.table, axis=1, return_inverse=True)
    if len(by_query) <= by_key.shape[1]:
        classes, patterns = np.eye(len(by_query))[query_class.ravel()].T, by_query.astype(float)
    else:
        classes, patterns = by_key.T.astype(float), np.eye(by_key.shape[1])[key_class.ravel()].T
    used = classes.any(1) & patterns.any(1)
    return classes[used], patterns[used]


def _read(channels: Float[np.ndarray, "channel value"], space: Matrix) -> tuple[Matrix, Vector]:
    """Weight and bias that give each channel its number for every value; what is the same for all is bias alone."""
    constant = (channels == channels[:, :1]).all(1)
    bias = np.where(constant, channels[:, 0], 0.0)
    return (channels - bias[:, None]) @ space, bias


@dataclass(frozen=True)
class Units:
    """Hidden units of an MLP.

    Args:
        up: (unit, width) what they read.
        up_bias: (unit,).
        down: (unit, width) what they write.
        down_bias: (width,) what is written whatever they do.
    """

    up: Matrix
    up_bias: Vector
    down: Matrix
    down_bias: Vector


def units(variable: Map, basis: Basis) -> Units:
    """The ReLU units that compute a `Map`."""
    return _steps(variable, basis) if isinstance(variable.reads[0], Numerical) else _lookup(variable, basis)


def _lookup(variable: Map, basis: Basis) -> Units:
    """One unit for each combination: 1 where all its values are there, 0 if one is missing."""
    up = [sum(basis.direction(v, x) for v, x in zip(variable.reads, values, strict=True)) for values in variable.table]
    down = [basis.direction(variable, value) for value in variable.table.values()]
    # slope 2 and a threshold half a value below the match leave the same room for errors on either side
    bias = np.full(len(up), 1.0 - 2 * len(variable.reads))
    return Units(2 * np.array(up), bias, np.array(down), np.zeros(basis.width))


def _steps(variable: Map, basis: Basis) -> Units:
    """Two units for each boundary between classes: together a ramp that is 0 above and 1 below the gap's middle half.

    They are 0 above the boundary, where the numbers of small counts lie far apart: no large values have to cancel.
    """
    (number,) = variable.reads
    assert isinstance(number, Numerical)
    falling = sorted(((number.code(x), x) for x in number.values if (x,) in variable.table), reverse=True)
    up, bias, down = [], [], []
    for (high, a), (low, b) in pairwise(falling):
        before, after = (basis.direction(variable, variable.table[(x,)]) for x in (a, b))
        if (before == after).all():
            continue
        slope = 2 / (high - low)
        for corner, sign in ((0.25, 1), (0.75, -1)):
            up.append(-slope * basis.space(number)[0])
            bias.append(slope * (high - corner * (high - low)))
            down.append(sign * (after - before))
    highest = basis.direction(variable, variable.table[(falling[0][1],)])
    shape = (len(up), basis.width)
    return Units(np.reshape(up, shape), np.array(bias), np.reshape(down, shape), highest)
