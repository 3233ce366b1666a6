"""A behaviour: inputs, counterfactual inputs, a metric with its unit, and a split into find and held-out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from openwork.errors import BadInput, Misaligned

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

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of tokens of each row."""
        return tuple(len(row) for row in self.ids)


@dataclass(frozen=True, eq=False)
class Tensors:
    """Inputs that are no tokens: keyword arguments of the network, one example a row of each tensor (images, say).

    Args:
        values: argument -> tensor (example, ...).
        regions: parts of the images: name -> (example, y, x) bool, in pixels. ``Where(group=name)`` is then, at every
            site that is a map or holds patch tokens, the places that lie in the part.
    """

    values: Mapping[str, Tensor]
    regions: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {name: len(value) for name, value in self.values.items()}
        if not counts or len(set(counts.values())) > 1 or not all(counts.values()):
            raise BadInput(f"expected tensors of the same number of examples, at least one; got {counts}")
        for name, mask in self.regions.items():
            if mask.ndim != 3 or len(mask) != len(self) or str(mask.dtype) != "torch.bool":
                raise BadInput(
                    f"expected region {name!r} as bool ({len(self)}, y, x); got {mask.dtype} {tuple(mask.shape)}"
                )

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def groups(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Tensors name no token groups."""
        return {}

    @property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        """Tensors have no token ids, and what asks for them works on tokens only.

        Raises:
            BadInput: always.
        """
        raise BadInput(f"expected inputs of tokens; this task's are tensors, {sorted(self.values)}")

    def take(self, rows: Sequence[int]) -> Tensors:
        """The given rows, in that order."""
        picked = list(rows)
        regions = {name: mask[picked] for name, mask in self.regions.items()}
        return Tensors({name: value[picked] for name, value in self.values.items()}, regions)


@dataclass(frozen=True)
class Metric:
    """A number for each example, read off a run.

    Args:
        name: e.g. ``logit difference``.
        unit: e.g. ``nats``.
        fn: (logits at the answer position (batch, vocabulary), answer ids (batch,), wrong ids (batch,)) -> (batch,).
        higher_is_better: whether a larger value means that the behaviour is more present.
        reads: the logits it looks at: ``all`` of them, or only those of the ``answers``, right and wrong. Of the latter
            the engine computes just these; they are handed over as (batch, 2) with ids 0 and 1.
    """

    name: str
    unit: str
    fn: Callable[[Tensor, Tensor, Tensor], Tensor]
    higher_is_better: bool = True
    reads: Literal["all", "answers"] = "all"


def _logit_difference(logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
    return (logits.gather(-1, answer[:, None]) - logits.gather(-1, wrong[:, None])).squeeze(-1)


LOGIT_DIFFERENCE = Metric("logit difference", "nats", _logit_difference, reads="answers")
"""Logit of the right answer minus that of the wrong one."""


@dataclass(frozen=True)
class Task:
    """A behaviour on pairs of clean and corrupted inputs: the next token, or the class of an image.

    Args:
        name: its name.
        clean: the inputs on which the behaviour shows.
        corrupted: inputs that differ just in what the behaviour depends on; row i answers row i of `clean`.
        answer: the right next token of each clean row.
        wrong: the token that is right for the corrupted row.
        at: the position of each row from whose logits the answer is read (unpadded position); without meaning where
            logits are (batch, class).
        metric: the metric.
        chance: accuracy of guessing.
        held_out: the rows that are never used to find anything.
        description: one sentence.
    """

    name: str
    clean: Inputs | Tensors
    corrupted: Inputs | Tensors
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
        if not 0 < len(self.held_out) < n and n > 1:
            raise BadInput(f"expected some rows to find with and some held out; {len(self.held_out)} of {n} held out")
        if not self.held_out <= set(range(n)):
            raise BadInput(f"expected rows below {n} held out; got {sorted(self.held_out - set(range(n)))[:5]}")

    def __len__(self) -> int:
        return len(self.clean)

    @classmethod
    def from_tokens(
        cls,
        clean: Any,
        corrupted: Any,
        right: Any,
        wrong: Any,
        *,
        at: Any = None,
        metric: Metric = LOGIT_DIFFERENCE,
        held_out: Iterable[int] | None = None,
        groups: Mapping[str, Sequence[Sequence[int]]] | None = None,
        name: str = "tokens",
    ) -> Task:
        """A task of bare token ids, for a network without tokenizer.

        Args:
            clean: ids (batch, position), or rows of unequal length.
            corrupted: likewise; each row as long as its clean row.
            right: (batch,) the right next token of each clean row.
            wrong: (batch,) the token that is right for the corrupted row.
            at: (batch,) where the answer is read; the last token of each row unless given.
            metric: the metric.
            held_out: rows never used to find anything; a seeded random half unless given.
            groups: token group -> positions of each row, the same in both inputs.
            name: of the task.

        Raises:
            BadInput: if numbers of rows, shapes or ids do not fit.
            Misaligned: if a clean and its corrupted row differ in length.
        """
        named = {key: as_rows(rows) for key, rows in (groups or {}).items()}
        both = [Inputs(as_rows(ids), named) for ids in (clean, corrupted)]
        unequal = [i for i, (a, b) in enumerate(zip(*(x.lengths for x in both), strict=False)) if a != b]
        if len(both[0]) == len(both[1]) and unequal:
            first = unequal[0]
            raise Misaligned(
                f"expected clean and corrupted rows of equal lengths; row {first} has {both[0].lengths[first]} and "
                f"{both[1].lengths[first]} tokens ({len(unequal)} rows differ)"
            )
        read = tuple(n - 1 for n in both[0].lengths) if at is None else as_ids(at, "at")
        beyond = [i for i, (p, n) in enumerate(zip(read, both[0].lengths, strict=False)) if not 0 <= p < n]
        if beyond:
            raise BadInput(f"expected at= within each row; row {beyond[0]} is read at {read[beyond[0]]}")
        return cls._of(name, both[0], both[1], right, wrong, read, metric, held_out)

    @classmethod
    def from_tensors(
        cls,
        clean: Any,
        corrupted: Any,
        right: Any,
        wrong: Any,
        *,
        argument: str = "pixel_values",
        regions: Mapping[str, Tensor] | None = None,
        metric: Metric = LOGIT_DIFFERENCE,
        held_out: Iterable[int] | None = None,
        name: str = "tensors",
    ) -> Task:
        """A classification task of tensors, such as images, for a network whose logits are (batch, class).

        Args:
            clean: (batch, ...) inputs on which the behaviour shows.
            corrupted: inputs of the same shape.
            right: (batch,) the right class of each clean example.
            wrong: (batch,) the class that is right for the corrupted one.
            argument: the argument of the network that takes them.
            regions: parts of the images, see `Tensors`; the same in both inputs.
            metric: the metric.
            held_out: as in `from_tokens`.
            name: of the task.

        Raises:
            BadInput: if shapes or numbers of rows do not fit.
        """
        if clean.shape != corrupted.shape:
            raise BadInput(f"expected inputs of one shape; got {tuple(clean.shape)} and {tuple(corrupted.shape)}")
        both = [Tensors({argument: x}, dict(regions or {})) for x in (clean, corrupted)]
        return cls._of(name, both[0], both[1], right, wrong, (0,) * len(both[0]), metric, held_out)

    @classmethod
    def _of(
        cls,
        name: str,
        clean: Inputs | Tensors,
        corrupted: Inputs | Tensors,
        right: Any,
        wrong: Any,
        at: tuple[int, ...],
        metric: Metric,
        held_out: Iterable[int] | None,
    ) -> Task:
        rows = split_rows(len(clean), 0) if held_out is None else frozenset(held_out)
        return cls(name, clean, corrupted, as_ids(right, "right"), as_ids(wrong, "wrong"), at, metric, 0.0, rows)

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

    clean: Inputs | Tensors
    corrupted: Inputs | Tensors
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
            logits: (batch, position, vocabulary), rows aligned so that real token p of every row lies at p, or (batch,
                class).

        Returns:
            (batch,) in the metric's unit.
        """
        import torch

        if logits.ndim == 3:
            rows = torch.arange(len(self), device=logits.device)
            logits = logits[rows, torch.tensor(self.at, device=logits.device)]
        answer, wrong = (torch.tensor(v, device=logits.device) for v in (self.answer, self.wrong))
        if metric.reads == "answers":
            logits, answer, wrong = narrowed(logits, answer, wrong)
        return measured(metric, logits, answer, wrong)


def narrowed(logits: Tensor, answer: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logits of right and wrong answers alone, (batch, 2), and their ids among these."""
    import torch

    top = max(int(answer.max()), int(wrong.max()))
    if top >= logits.shape[-1] or min(int(answer.min()), int(wrong.min())) < 0:
        raise BadInput(f"expected answers among the {logits.shape[-1]} classes or tokens; got {top}")
    two = logits.gather(-1, torch.stack((answer, wrong), -1))
    return two, torch.zeros_like(answer), torch.ones_like(answer)


def measured(metric: Metric, logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
    """The metric of logits as it wants them, (batch,), with its shape checked."""
    import torch

    values = metric.fn(logits.float(), answer, wrong)
    if not isinstance(values, torch.Tensor) or values.shape != (len(answer),):
        got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise BadInput(f"expected metric {metric.name!r} to give shape ({len(answer)},); got {got}")
    return values


def split_rows(n: int, seed: int, fraction: float = 0.5) -> frozenset[int]:
    """The held-out rows of `n`: a seeded random `fraction` of them, at least one and not all."""
    import random

    count = max(0, min(max(1, round(n * fraction)), n - 1))
    return frozenset(random.Random(seed).sample(range(n), count))


def as_rows(values: Any) -> tuple[tuple[int, ...], ...]:
    """Rows of ints from nested lists or an integer tensor of shape (batch, position)."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    try:
        return tuple(tuple(index(v) for v in row) for row in values)
    except TypeError as error:
        raise BadInput(f"expected rows of token ids, (batch, position); got {values!r:.100}") from error


def as_ids(values: Any, name: str) -> tuple[int, ...]:
    """A vector of ints from a sequence or an integer tensor of shape (batch,).

    Raises:
        BadInput: if it is none.
    """
    if hasattr(values, "tolist"):
        values = values.tolist()
    try:
        return tuple(index(v) for v in values)
    except TypeError as error:
        raise BadInput(f"expected {name} as integers of shape (batch,); got {values!r:.100}") from error
