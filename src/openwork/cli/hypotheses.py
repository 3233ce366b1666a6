"""Hypotheses for causal scrubbing: from a JSON file, or the one about induction with the heads that look the part."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openwork.errors import BadInput, UnknownName
from openwork.store import read_json

if TYPE_CHECKING:
    from openwork.causal.hypothesis import Example, Hypothesis
    from openwork.network import Network
    from openwork.task import Task

TOKENS = "tokens of "
LABELS = {
    "answer": lambda example: example.answer,
    "wrong": lambda example: example.wrong,
    "token": lambda example: example.ids[example.at],
    "anything": lambda example: 0,
}
"""What a step may compute: the answer, the wrong one, the token where the answer is read, nothing that matters."""
FIELDS = {"name", "sites", "label", "inputs", "where", "output"}


def from_file(path: Path) -> Hypothesis:
    """Read a hypothesis in the form of `Hypothesis.to_json`.

    A list of steps: ``{"name": …, "sites": [site, …], "label": …, "inputs": [name, …], "where": group or positions,
    "output": true}``. A label is one of `LABELS`, or ``tokens of GROUP``.

    Raises:
        BadInput: for a file that does not hold such steps, and as `Hypothesis`.
        UnknownName: for a label that does not exist.
    """
    from openwork.causal.hypothesis import Hypothesis, Step

    record = read_json(path)
    if not isinstance(record, list) or not all(isinstance(step, dict) for step in record):
        raise BadInput(f"expected a list of steps in {path}; got {type(record).__name__}")
    steps, output = [], []
    for number, step in enumerate(record, 1):
        missing, unknown = {"name", "sites", "label"} - set(step), set(step) - FIELDS
        if missing or unknown:
            raise BadInput(f"expected the fields {sorted(FIELDS)} in step {number} of {path}; missing or unknown are "
                           f"{sorted(missing | unknown)}")  # fmt: skip
        steps.append(Step(step["name"], step["sites"], label(step["label"]), step.get("inputs", ()), step.get("where")))
        output += [step["name"]] if step.get("output") else []
    return Hypothesis(steps, output)


def label(name: str) -> Any:
    """A label by its name, under which a result records it."""
    if name in LABELS:
        function = LABELS[name]
    elif isinstance(name, str) and name.startswith(TOKENS):
        group = name.removeprefix(TOKENS)

        def function(example: Example) -> Hashable:
            if group not in example.groups:
                raise UnknownName.among("token group", group, example.groups)
            return tuple(example.ids[position] for position in example.groups[group])
    else:
        raise UnknownName.among("label", str(name), [*LABELS, f"{TOKENS}GROUP"])

    def named(example: Example) -> Hashable:
        return function(example)

    named.__name__ = name
    return named


def induction(net: Network, task: Task) -> Hypothesis:
    """The textbook circuit of induction, with the heads that attend as it says most, on the find split.

    A previous-token head reads A at the token after it; an induction head of a later block finds that place by its key
    and copies its value.

    Raises:
        BadInput: for a task without the token groups of induction, or a network with a single block of attention.
    """
    from openwork.causal.hypothesis import Hypothesis, Step
    from openwork.task import Inputs
    from openwork.tasks.induction import AFTER, PLACE

    clean = task.split("find").clean
    if not isinstance(clean, Inputs) or not {AFTER, PLACE, "last"} <= set(clean.groups):
        raise BadInput(f"expected --hypothesis FILE: only induction tasks have one built in; this is {task.name}")
    before = _looks(net, clean, AFTER, PLACE)
    blocks = sorted({block for block, _ in before})
    early = {place: share for place, share in before.items() if place[0] < blocks[-1]}
    if not early:
        raise BadInput(f"expected two blocks with attention, for induction; {net.name} has {len(blocks)}")
    first, head = max(early, key=lambda place: early[place])
    late = {place: share for place, share in _looks(net, clean, "last", AFTER).items() if place[0] > first}
    second, copier = max(late, key=lambda place: late[place])
    attn = f"blocks.{second}.attn"
    shared = copier * net.parts(f"{attn}.k") // net.parts(f"{attn}.q")
    repeated = label(f"{TOKENS}{PLACE}")
    return Hypothesis(
        [
            Step("previous token", f"blocks.{first}.attn.z[{head}]", repeated, where=AFTER),
            Step("key", f"{attn}.k[{shared}]", repeated, "previous token", AFTER),
            Step("query", f"{attn}.q[{copier}]", label("token"), where="last"),
            Step("value", f"{attn}.v[{shared}]", label("answer"), where=AFTER),
            Step("induction", f"{attn}.z[{copier}]", label("answer"), ("query", "key", "value"), "last"),
        ],
        "induction",
    )


def single(task: Task) -> Task:
    """The examples of an induction task in which A stood once before, so that those of different examples correspond.

    Raises:
        BadInput: if there are none in one of the splits.
    """
    from openwork.task import Inputs
    from openwork.tasks.induction import AFTER, PLACE

    groups = task.clean.groups if isinstance(task.clean, Inputs) else {}
    if not {AFTER, PLACE} <= set(groups):
        return task
    rows = [row for row in range(len(task)) if len(groups[AFTER][row]) == len(groups[PLACE][row]) == 1]
    held = frozenset(place for place, row in enumerate(rows) if row in task.held_out)
    if not 0 < len(held) < len(rows):
        raise BadInput(f"expected examples of {task.name} with one earlier occurrence in each split; raise --n")
    batch = task.batch(rows)
    return replace(
        task, clean=batch.clean, corrupted=batch.corrupted, answer=batch.answer, wrong=batch.wrong, at=batch.at,
        held_out=held,
    )  # fmt: skip


def _looks(net: Network, inputs: Any, queries: str, keys: str) -> dict[tuple[int, int], float]:
    """(block, head) -> mean attention from each token of one group to all of another."""
    import torch

    run = net.run(inputs, keep="blocks.*.attn.pattern")
    found = {}
    for block in range(net.n_blocks):
        site = f"blocks.{block}.attn.pattern"
        if site not in run:
            continue
        pattern, offsets = run[site], run.layout.offsets
        rows = [
            pattern[row, :, offset + query, [offset + key for key in inputs.groups[keys][row]]].sum(-1)
            for row, offset in enumerate(offsets)
            for query in inputs.groups[queries][row]
        ]
        for head, share in enumerate(torch.stack(rows).mean(0).tolist()):
            found[block, head] = share
    return found
