"""What a picture is to do, as data: objectives that add up, are weighted and multiplied.

    Activation(unit) - 0.1 * TotalVariation()
    Activation(first) + 2 * Activation(second)
    Activation(unit) + 10 * Diversity("blocks.1.resid_post")     # over the variants of a unit

Source: Olah, Mordvintsev and Schubert 2017, Feature Visualization, and its library's objectives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput


class Objective(ABC):
    """What is made large, one number a picture. Objectives add up and can be multiplied."""

    @abstractmethod
    def terms(self) -> Iterator[Term]:
        """Everything that is measured."""

    @abstractmethod
    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        """The objective from the values of its terms."""

    def at(self, variant: int, variants: int) -> Objective:
        """The objective of one of several variants of a unit's picture."""
        return self

    def weights(self) -> list[tuple[float, Term]] | None:
        """Its terms with their weights, or None if it is no weighted sum."""
        return None

    def __add__(self, other: Objective) -> Objective:
        return Sum(((1.0, self), (1.0, _objective(other))))

    def __sub__(self, other: Objective) -> Objective:
        return Sum(((1.0, self), (-1.0, _objective(other))))

    def __neg__(self) -> Objective:
        return Sum(((-1.0, self),))

    def __mul__(self, other: Objective | int | float) -> Objective:
        return Product(self, other) if isinstance(other, Objective) else Sum(((float(other), self),))

    def __rmul__(self, other: int | float) -> Objective:
        return Sum(((float(other), self),))


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum.

    Args:
        parts: weights and objectives.
    """

    parts: tuple[tuple[float, Objective], ...]

    def __post_init__(self) -> None:
        flat: list[tuple[float, Objective]] = []  # sums of hundreds must not become towers of hundreds
        for weight, part in self.parts:
            flat += [(weight * w, p) for w, p in part.parts] if isinstance(part, Sum) else [(weight, part)]
        object.__setattr__(self, "parts", tuple(flat))

    def terms(self) -> Iterator[Term]:
        for _, part in self.parts:
            yield from part.terms()

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return torch.stack([weight * part.total(value) for weight, part in self.parts]).sum(0)

    def at(self, variant: int, variants: int) -> Objective:
        return Sum(tuple((weight, part.at(variant, variants)) for weight, part in self.parts))

    def weights(self) -> list[tuple[float, Term]] | None:
        out: list[tuple[float, Term]] = []
        for weight, part in self.parts:
            inner = part.weights()
            if inner is None:
                return None
            out += [(weight * w, term) for w, term in inner]
        return out


@dataclass(frozen=True)
class Product(Objective):
    """One objective times another.

    Args:
        left: one.
        right: the other.
    """

    left: Objective
    right: Objective

    def terms(self) -> Iterator[Term]:
        yield from self.left.terms()
        yield from self.right.terms()

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return self.left.total(value) * self.right.total(value)

    def at(self, variant: int, variants: int) -> Objective:
        return Product(self.left.at(variant, variants), self.right.at(variant, variants))


@dataclass(frozen=True)
class Interpolation(Objective):
    """From one objective to another over the variants of a picture, of which the first and the last have one alone.

    Args:
        start: what the first variant is of.
        end: what the last variant is of.
    """

    start: Objective
    end: Objective

    def at(self, variant: int, variants: int) -> Objective:
        share = variant / max(1, variants - 1)
        return (1 - share) * self.start + share * self.end

    def terms(self) -> Iterator[Term]:
        yield from self.start.terms()
        yield from self.end.terms()

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return 0.5 * (self.start.total(value) + self.end.total(value))


@dataclass(frozen=True)
class Rows:
    """Which pictures of a batch are variants of one unit.

    Args:
        unit: (row,) the number of each one's unit.
    """

    unit: tuple[int, ...]

    def groups(self) -> list[list[int]]:
        """The rows of each unit."""
        found: dict[int, list[int]] = {}
        for row, unit in enumerate(self.unit):
            found.setdefault(unit, []).append(row)
        return list(found.values())


class Term(Objective):
    """Something that is measured; those of one `kind` are measured together."""

    @property
    @abstractmethod
    def reads(self) -> str | None:
        """The site that it reads; None for the picture itself."""

    @property
    def kind(self) -> Hashable:
        """Equal for terms that can be measured together."""
        return self

    @abstractmethod
    def together(self, terms: Sequence[Any], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        """The values of terms of this kind, one a row.

        Args:
            terms: one a row.
            values: (row, channel, place) of the site, tokens before the first place included; or the pictures.
            rows: which of them belong together.
        """

    def terms(self) -> Iterator[Term]:
        yield self

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return value(self)

    def weights(self) -> list[tuple[float, Term]] | None:
        return [(1.0, self)]


def _objective(other: Any) -> Objective:
    if not isinstance(other, Objective):
        raise BadInput(f"expected an objective to add; got {other!r}. Weights multiply")
    return other
