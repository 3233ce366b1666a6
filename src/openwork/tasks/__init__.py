"""Behaviours: prompts on which they show, prompts on which they do not, and how to score them."""

from __future__ import annotations

from collections.abc import Callable

from openwork.errors import UnknownName
from openwork.task import Task
from openwork.tasks.argument import argument
from openwork.tasks.bracket import bracket
from openwork.tasks.docstring import docstring
from openwork.tasks.induction import induction, repeats
from openwork.tasks.jsonl import from_jsonl, from_tokens
from openwork.tasks.metrics import (
    ACCURACY,
    LOGIT_DIFFERENCE,
    METRICS,
    PROBABILITY,
    accuracy,
    accuracy_among,
    gate,
    kl_from,
    later_minus_earlier,
)
from openwork.tasks.reader import Vocabulary
from openwork.tasks.sentences import SENTENCES
from openwork.tasks.source import Source, own_source

TASKS: dict[str, Callable[..., Task]] = {
    "induction": induction,
    "repeats": repeats,
    "bracket": bracket,
    "docstring": docstring,
    "argument": argument,
    **SENTENCES,
}
"""Task name -> function of a tokenizer or network, ``n=``, ``seed=`` and ``source=``."""


def make(name: str, vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """Make a task by its name, or by the path of a JSONL file.

    Args:
        name: one of `TASKS`, or a path that ends in ``.jsonl``.
        vocabulary: a tokenizer or network.
        n: number of examples; a JSONL file has its own.
        seed: of the choice of examples and of the split.
        source: a file or folder of real text, for the tasks that read one.

    Raises:
        UnknownName: if there is no task of that name.
        BadInput: as the task's own function.
    """
    if name.endswith(".jsonl"):
        return from_jsonl(name, vocabulary, seed=seed)
    if name not in TASKS:
        raise UnknownName.among("task", name, TASKS, "A path that ends in .jsonl reads your own.")
    return TASKS[name](vocabulary, n=n, seed=seed, source=source)


__all__ = [
    "ACCURACY",
    "LOGIT_DIFFERENCE",
    "METRICS",
    "PROBABILITY",
    "SENTENCES",
    "TASKS",
    "Source",
    "Vocabulary",
    "accuracy",
    "accuracy_among",
    "argument",
    "bracket",
    "docstring",
    "from_jsonl",
    "from_tokens",
    "gate",
    "induction",
    "kl_from",
    "later_minus_earlier",
    "make",
    "own_source",
    "repeats",
]
