"""One example of a behaviour, and how examples become a task with a split."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from openwork.errors import BadInput
from openwork.task import Inputs, Metric, Task
from openwork.tasks.metrics import LOGIT_DIFFERENCE

LEAST = 16
"""Fewer examples than this make no study: half of them are held out."""


@dataclass(frozen=True)
class Example:
    """A clean and a corrupted prompt with the tokens that are right for each.

    Args:
        clean: ids of the clean prompt.
        corrupted: ids of the corrupted prompt.
        answer: the token that continues the clean prompt.
        wrong: the token that continues the corrupted one.
        groups: token group -> positions in the clean prompt.
        groups_corrupted: the same in the corrupted prompt; as in the clean one unless given.
        family: examples of one family are near-duplicates and stay in one split; equal clean prompts always do.
    """

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answer: int
    wrong: int
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    groups_corrupted: dict[str, tuple[int, ...]] = field(default_factory=dict)
    family: Hashable = None

    def __post_init__(self) -> None:
        corrupted = self.groups_corrupted or self.groups
        for name, groups, row in (("groups", self.groups, self.clean), ("groups_corrupted", corrupted, self.corrupted)):
            object.__setattr__(self, name, {"last": (len(row) - 1,)} | groups)


def assemble(
    name: str,
    examples: Sequence[Example],
    seed: int,
    chance: float,
    description: str,
    metric: Metric = LOGIT_DIFFERENCE,
) -> Task:
    """Make a task of examples.

    Args:
        name: its name.
        examples: at least two families of them.
        seed: of the split.
        chance: accuracy of guessing.
        description: one sentence.
        metric: its metric.

    Returns:
        The task, about half of its rows held out, no family on both sides of the split.
    """
    clean = Inputs(tuple(e.clean for e in examples), _groups([e.groups for e in examples]))
    corrupted = Inputs(tuple(e.corrupted for e in examples), _groups([e.groups_corrupted for e in examples]))
    return Task(
        name=name,
        clean=clean,
        corrupted=corrupted,
        answer=tuple(e.answer for e in examples),
        wrong=tuple(e.wrong for e in examples),
        at=tuple(len(e.clean) - 1 for e in examples),
        metric=metric,
        chance=chance,
        held_out=split_families([e.clean if e.family is None else e.family for e in examples], seed),
        description=description,
    )


def require_count(task: str, n: int) -> None:
    """Raise `BadInput` unless `n` examples can be split."""
    if n < 2:
        raise BadInput(f"{task}: expected n of at least 2, some to find with and some held out; got {n}")


def split_families(families: Sequence[Hashable], seed: int) -> frozenset[int]:
    """Hold out about half of the rows, whole families at a time.

    Args:
        families: the family of each row.
        seed: decides which families.

    Returns:
        The held-out rows.

    Raises:
        BadInput: if all rows are of one family, so that nothing could be held out.
    """
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, family in enumerate(families):
        rows[family].append(row)
    if len(rows) < 2:
        raise BadInput(
            f"expected examples from at least two files or texts, so that some can be held out; all {len(families)} "
            "come from one: give a longer source or more examples"
        )
    order = list(rows.values())
    random.Random(seed).shuffle(order)
    order.sort(key=len, reverse=True)
    find, held_out = [], []
    for members in order:
        (held_out if len(held_out) <= len(find) else find).extend(members)
    return frozenset(held_out)


def require_enough(task: str, found: int, needed: int, what: str) -> None:
    """Raise `BadInput` if fewer examples were found than a task needs."""
    if found < needed:
        raise BadInput(f"{task}: expected at least {needed} {what}; found {found}: give a longer or another source")


def _groups(rows: Sequence[dict[str, tuple[int, ...]]]) -> dict[str, tuple[tuple[int, ...], ...]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name, ()) for row in rows) for name in names}
