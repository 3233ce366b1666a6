"""The problem of a probe: places in inputs, each with a label, and documents of which some are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from openwork.errors import BadInput, UnknownName
from openwork.store.hashing import hash_json, hash_state
from openwork.task import Inputs, Split, Task, Tensors, as_rows, split_rows

YES_NO = ("no", "yes")
"""Names of the classes of a label that is true or false."""
Labels = Int[np.ndarray, " place"] | Float[np.ndarray, " place"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Places in inputs with a label each: what a probe is to read, and what it is judged on.

    Args:
        name: what the labels say, e.g. ``bracket_depth``.
        inputs: the rows.
        rows: (place,) the row that each place lies in.
        positions: (place,) its position there, counted in real tokens; 0 for inputs that are no tokens.
        labels: (place,) the number of a class, or a number.
        classes: the names of the classes; empty where labels are numbers.
        documents: (row,) what a row belongs to. A document is never on both sides of the split.
        held_out: the documents that nothing is chosen or trained on.
        unit: what a document is, in one word: file, prompt, row, ...
        types: (place,) what a control task gives a label of its own to: the token, or the row.

    Raises:
        BadInput: arrays of different lengths, a label that is no class, or a side of the split without two classes.
    """

    name: str
    inputs: Inputs | Tensors
    rows: Int[np.ndarray, " place"]
    positions: Int[np.ndarray, " place"]
    labels: Labels
    classes: tuple[str, ...]
    documents: Int[np.ndarray, " row"]
    held_out: frozenset[int]
    unit: str
    types: Int[np.ndarray, " place"]

    def __post_init__(self) -> None:
        counts = {name: len(getattr(self, name)) for name in ("rows", "positions", "labels", "types")}
        if len(set(counts.values())) > 1 or len(self.documents) != len(self.inputs):
            raise BadInput(
                f"expected as many rows, positions, labels and types, and a document for each of {len(self.inputs)} "
                f"inputs; got {counts} and {len(self.documents)} documents"
            )
        if not np.isfinite(self.labels).all():
            raise BadInput(f"expected finite labels of {self.name!r}; got NaN or infinity")
        if self.classes and not np.isin(self.labels, np.arange(len(self.classes))).all():
            raise BadInput(f"expected labels below {len(self.classes)}, the number of classes; got others")
        for which in ("find", "held-out"):
            at = self.places(which)
            if len(np.unique(self.labels[at])) < 2:
                raise BadInput(
                    f"expected at least two different labels of {self.name!r} in the {which} split; its {len(at)} "
                    f"places have {len(np.unique(self.labels[at]))}: give more {self.unit}s"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def numeric(self) -> bool:
        """Whether labels are numbers."""
        return not self.classes

    @cached_property
    def groups(self) -> Int[np.ndarray, " place"]:
        """The document of each place."""
        return self.documents[self.rows]

    def places(self, which: Split) -> Int[np.ndarray, " chosen"]:
        """The places of one split."""
        held = np.isin(self.groups, list(self.held_out))
        return np.flatnonzero(held == (which == "held-out"))

    def balance(self, which: Split) -> dict[str, float]:
        """Class -> its share of the places of a split; of numbers mean and standard deviation."""
        labels = self.labels[self.places(which)]
        if self.numeric:
            return {"mean": float(labels.mean()), "standard deviation": float(labels.std())}
        counts = np.bincount(labels.astype(int), minlength=len(self.classes))
        return {name: float(count / len(labels)) for name, count in zip(self.classes, counts, strict=True)}

    @property
    def majority(self) -> float:
        """The share of the commonest class of the held-out places: the accuracy of always saying it; NaN of numbers."""
        return float("nan") if self.numeric else max(self.balance("held-out").values())

    def about(self) -> str:
        """Split and class balance in a sentence."""
        sides = []
        for which in ("find", "held-out"):
            at = self.places(which)
            balance = ", ".join(f"{name} {share:.3g}" for name, share in self.balance(which).items())
            count = len(np.unique(self.groups[at]))
            sides.append(f"{len(at)} places of {count} {self.unit}s {_SIDES[which]} ({balance})")
        return f"{self.name}: {' and '.join(sides)}; no {self.unit} is on both sides"

    def take(self, places: Sequence[int] | np.ndarray) -> Labelled:
        """Some places, and only the rows that they lie in."""
        at = np.asarray(places, dtype=int)
        kept, rows = np.unique(self.rows[at], return_inverse=True)
        return replace(
            self, inputs=self.inputs.take(kept.tolist()), rows=rows, positions=self.positions[at],
            labels=self.labels[at], documents=self.documents[kept], types=self.types[at],
        )  # fmt: skip

    def at_most(self, most: int, seed: int = 0) -> Labelled:
        """A seeded random sample of the places, in their order."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:most]))

    def in_classes(self, most: int = 20) -> Labelled:
        """The same with every different number as a class.

        Args:
            most: how many classes.

        Raises:
            BadInput: if there are more numbers.
        """
        if not self.numeric:
            return self
        values, labels = np.unique(self.labels, return_inverse=True)
        if len(values) > most:
            raise BadInput(f"expected at most {most} different numbers to make classes of; got {len(values)}")
        return replace(self, labels=labels, classes=tuple(f"{value:g}" for value in values))

    def digest(self) -> str:
        """sha256 of inputs, places, labels and split."""
        given = self.inputs
        inputs = given.ids if isinstance(given, Inputs) else hash_state(dict(given.values))
        places = [array.tolist() for array in (self.rows, self.positions, self.labels, self.documents)]
        return hash_json([self.name, inputs, places, sorted(self.held_out)])

    @classmethod
    def of(
        cls,
        name: str,
        inputs: Any,
        labels: Sequence[Any],
        *,
        documents: Sequence[Any] | None = None,
        held_out: Sequence[Any] | None = None,
        unit: str = "",
        seed: int = 0,
    ) -> Labelled:
        """Labels of your own, of every token or of every row.

        Args:
            name: what they say.
            inputs: `Inputs`, `Tensors`, or rows of token ids (batch, position).
            labels: one a row, of its last token; or for every row a list of one a token, None where there is none.
                Strings, integers and booleans are classes; floats are numbers.
            documents: what each row belongs to; every different row is its own unless given.
            held_out: the documents that are held out; a seeded random half unless given.
            unit: what a document is.
            seed: of the split.

        Raises:
            BadInput: if numbers of rows or tokens do not fit, labels are of mixed kinds, or a side of the split has
                fewer than two of them.
        """
        if not isinstance(inputs, (Inputs, Tensors)):
            inputs = Inputs(as_rows(inputs))
        if len(labels) != len(inputs):
            raise BadInput(f"expected labels for {len(inputs)} rows; got {len(labels)}")
        per_token = any(isinstance(row, (list, tuple, np.ndarray)) for row in labels)
        rows, positions, values = _spread(inputs, labels, per_token)
        found, classes = _encoded(name, values)
        identities = _identities(inputs)
        given = identities if documents is None else list(documents)
        if len(given) != len(inputs):
            raise BadInput(f"expected a document for each of {len(inputs)} rows; got {len(given)}")
        names = list(dict.fromkeys(given))
        number = {document: i for i, document in enumerate(names)}
        _require_apart(identities, given)
        if held_out is None:
            held = split_rows(len(names), seed)
        else:
            unknown = [document for document in held_out if document not in number]
            if unknown:
                raise UnknownName.among("document", str(unknown[0]), map(str, names))
            held = frozenset(number[document] for document in held_out)
        types = np.array(_tokens(inputs, rows, positions)) if per_token else _numbered(identities)[rows]
        return cls(
            name, inputs, rows, positions, found, classes, np.array([number[d] for d in given]), held,
            unit or ("row" if documents is None else "document"), types,
        )  # fmt: skip

    @classmethod
    def from_task(cls, task: Task, at: str | None = None) -> Labelled:
        """The answer of a task as a label: the right one of each clean row, and the wrong one of its corrupted row.

        Twins are one document, and the task's own split is kept.

        Args:
            task: the task.
            at: a token group, of whose first token in each row it is the label; where the answer is read unless given.

        Raises:
            BadInput: for a group that a row has no token of.
            UnknownName: for a group that does not exist.
        """
        place = _position_of(task, at)
        n = len(task)
        if isinstance(task.clean, Inputs) and isinstance(task.corrupted, Inputs):
            inputs: Inputs | Tensors = Inputs((*task.clean.ids, *task.corrupted.ids))
        else:
            import torch

            clean, corrupted = (x.values for x in (task.clean, task.corrupted) if isinstance(x, Tensors))
            inputs = Tensors({key: torch.cat((clean[key], corrupted[key])) for key in clean})
        answers = np.array([*task.answer, *task.wrong])
        values, labels = np.unique(answers, return_inverse=True)
        rows = np.arange(2 * n)
        return cls(
            f"answer of {task.name}", inputs, rows, np.array([place(r % n, r >= n) for r in range(2 * n)]), labels,
            tuple(str(value) for value in values), rows % n, task.held_out, "example",
            _numbered(_identities(inputs)),
        )  # fmt: skip


_SIDES = {"find": "to find with", "held-out": "held out"}


def _position_of(task: Task, group: str | None) -> Callable[[int, bool], int]:
    if group is None:
        return lambda row, corrupted: task.at[row]
    sides = (task.clean, task.corrupted)
    for side in sides:
        if group not in {*side.groups, "first", "last"}:
            raise UnknownName.among("token group", group, [*side.groups, "first", "last"])

    def place(row: int, corrupted: bool) -> int:
        side = sides[corrupted]
        if group not in side.groups:
            return 0 if group == "first" else len(side.ids[row]) - 1
        if not side.groups[group][row]:
            raise BadInput(f"expected a token of the group {group!r} in every row; row {row} has none")
        return side.groups[group][row][0]

    return place


def _spread(
    inputs: Inputs | Tensors, labels: Sequence[Any], per_token: bool
) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Row, position and label of every labelled place."""
    rows, positions, values = [], [], []
    for row, given in enumerate(labels):
        length = len(inputs.ids[row]) if isinstance(inputs, Inputs) else 1
        if per_token and len(given) != length:
            raise BadInput(f"expected a label or None for each of the {length} tokens of row {row}; got {len(given)}")
        for position, value in enumerate(given) if per_token else ((length - 1, given),):
            if value is not None:
                rows.append(row)
                positions.append(position)
                values.append(value.item() if isinstance(value, np.generic) else value)
    if not rows:
        raise BadInput("expected at least one label; got none")
    return np.array(rows), np.array(positions), values


def _encoded(name: str, values: Sequence[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers of classes, or as the numbers that they are."""
    kinds = {"class" if isinstance(v, (str, bool, int)) else type(v).__name__ for v in values}
    if kinds == {"float"}:
        return np.array(values, dtype=float), ()
    if kinds != {"class"}:
        raise BadInput(f"expected labels of {name!r} that are all floats, or all text, integers or truth values; got "
                       f"{sorted(kinds)}")  # fmt: skip
    if all(isinstance(v, bool) for v in values):
        return np.array(values, dtype=int), YES_NO
    found = sorted(set(values), key=lambda v: (isinstance(v, str), v))
    number = {value: i for i, value in enumerate(found)}
    return np.array([number[v] for v in values]), tuple(map(str, found))


def _identities(inputs: Inputs | Tensors) -> list[Any]:
    """What rows have in common when they are the same."""
    if isinstance(inputs, Inputs):
        return list(inputs.ids)
    return [tuple(value[row].cpu().numpy().tobytes() for value in inputs.values.values()) for row in range(len(inputs))]


def _numbered(values: Sequence[Any]) -> np.ndarray:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _tokens(inputs: Inputs | Tensors, rows: np.ndarray, positions: np.ndarray) -> list[int]:
    return [inputs.ids[row][position] for row, position in zip(rows, positions, strict=True)]


def _require_apart(identities: Sequence[Any], documents: Sequence[Any]) -> None:
    """Refuse rows that are the same in two documents: the split would have them on both sides."""
    seen: dict[Any, Any] = {}
    for row, (identity, document) in enumerate(zip(identities, documents, strict=True)):
        if seen.setdefault(identity, document) != document:
            raise BadInput(
                f"expected the same row in one document only; row {row} is in {seen[identity]!r} and {document!r}, and "
                "a split by documents would leak it"
            )
