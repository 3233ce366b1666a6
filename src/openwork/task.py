"""A behaviour: inputs, counterfactual inputs, a metric with its unit, and a split into find and held-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from openwork.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["find", "held-out"]


@dataclass(frozen=True)
class Inputs:
    """Token ids of a batch, with named token groups.

    Args:
        ids: one row of token ids per example, without padding; rows may differ in length.
        groups: token groups: name -> positions of each row (unequal numbers are normal).
    """

    ids: tuple[tuple[int, ...], ...]
    groups: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ids or any(not row for row in self.ids):
            raise BadInput(f"expected at least one row, each with at least one token; got {len(self.ids)} rows")
        for name, rows in self.groups.items():
            if len(rows) != len(self.ids):
                raise BadInput(f"expected group {name!r} to give positions for {len(self.ids)} rows; got {len(rows)}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Inputs:
        """The given rows, in that order."""
        picked = {name: tuple(group[r] for r in rows) for name, group in self.groups.items()}
        return Inputs(tuple(self.ids[r] for r in rows), picked)


@dataclass(frozen=True)
class Metric:
    """A number for each example, read off a run.

    Args:
        name: e.g. ``logit difference``.
        unit: e.g. ``nats``.
        fn: (logits at the answer position (batch, vocabulary), answer ids (batch,), wrong ids (batch,)) -> (batch,).
        higher_is_better: whether a larger value means that the behaviour is more present.
    """

    name: str
    unit: str
    fn: Callable[[Tensor, Tensor, Tensor], Tensor]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Task:
    """A next-token behaviour on pairs of clean and corrupted inputs.

    Args:
        name: its name.
        clean: the inputs on which the behaviour shows.
        corrupted: inputs that differ just in what the behaviour depends on; row i answers row i of `clean`.
        answer: the right next token of each clean row.
        wrong: the token that is right for the corrupted row.
        at: the position of each row from whose logits the answer is read (unpadded position).
        metric: the metric.
        chance: accuracy of guessing.
        held_out: the rows that are never used to find anything.
        description: one sentence.
    """

    name: str
    clean: Inputs
    corrupted: Inputs
    answer: tuple[int, ...]
    wrong: tuple[int, ...]
    at: tuple[int, ...]
    metric: Metric
    chance: float
    held_out: frozenset[int]
    description: str = ""

    def __post_init__(self) -> None:
        n = len(self.clean)
        for name in ("corrupted", "answer", "wrong", "at"):
            if len(getattr(self, name)) != n:
                raise BadInput(f"expected {n} rows of {name}, as many as clean; got {len(getattr(self, name))}")
        if not 0 < len(self.held_out) < n:
            raise BadInput(f"expected some rows to find with and some held out; {len(self.held_out)} of {n} held out")
        if not self.held_out <= set(range(n)):
            raise BadInput(f"expected rows below {n} held out; got {sorted(self.held_out - set(range(n)))[:5]}")

    def __len__(self) -> int:
        return len(self.clean)

    def split(self, which: Split) -> Batch:
        """The rows of one split."""
        return self.batch([r for r in range(len(self)) if (r in self.held_out) == (which == "held-out")], which)

    def batch(self, rows: Sequence[int], split: str = "") -> Batch:
        """Some rows, ready to run."""

        def pick(values: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(values[r] for r in rows)

        return Batch(
            self.clean.take(rows), self.corrupted.take(rows), pick(self.answer), pick(self.wrong), pick(self.at), split
        )

    def with_answers(self, answer: Sequence[int], wrong: Sequence[int]) -> Task:
        """The same inputs with other labels, as label-permutation nulls need them."""
        return replace(self, answer=tuple(answer), wrong=tuple(wrong))


@dataclass(frozen=True)
class Batch:
    """Rows of a task: clean and corrupted inputs, answers, and where to read them."""

    clean: Inputs
    corrupted: Inputs
    answer: tuple[int, ...]
    wrong: tuple[int, ...]
    at: tuple[int, ...]
    split: str = ""

    def __len__(self) -> int:
        return len(self.answer)

    def measure(self, metric: Metric, logits: Tensor) -> Tensor:
        """The metric of each row.

        Args:
            metric: the metric.
            logits: (batch, position, vocabulary), rows aligned so that real token p of every row lies at p.

        Returns:
            (batch,) in the metric's unit.
        """
        import torch

        rows = torch.arange(len(self), device=logits.device)
        at = torch.tensor(self.at, device=logits.device)
        answer, wrong = (torch.tensor(v, device=logits.device) for v in (self.answer, self.wrong))
        values = metric.fn(logits[rows, at].float(), answer, wrong)
        if values.shape != (len(self),):
            raise BadInput(f"expected metric {metric.name!r} to give shape ({len(self)},); got {tuple(values.shape)}")
        return values


def split_rows(n: int, seed: int, fraction: float = 0.5) -> frozenset[int]:
    """The held-out rows of `n`: a seeded random `fraction` of them, at least one and not all."""
    import random

    count = min(max(1, round(n * fraction)), n - 1)
    return frozenset(random.Random(seed).sample(range(n), count))


def as_rows(values: Any) -> tuple[tuple[int, ...], ...]:
    """Rows of ints from nested lists or an integer tensor of shape (batch, position)."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    return tuple(tuple(int(v) for v in row) for row in values)
