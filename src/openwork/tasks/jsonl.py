"""Your own task: a JSONL file of prompt pairs, or bare token ids."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openwork.errors import BadInput
from openwork.task import Metric, Task, as_rows
from openwork.tasks.alignment import require_correspondence
from openwork.tasks.examples import Example, assemble
from openwork.tasks.metrics import LOGIT_DIFFERENCE
from openwork.tasks.reader import Reader, Vocabulary

REQUIRED = ("clean", "corrupted", "answer", "wrong")
FIELDS = (*REQUIRED, "groups")
SIDES = ("clean", "corrupted")

Groups = Mapping[str, Sequence[Sequence[int]]]


def from_jsonl(path: str | Path, vocabulary: Vocabulary, *, seed: int = 0, metric: Metric = LOGIT_DIFFERENCE) -> Task:
    """Read a task from a file with one JSON object a line.

    Each object has four strings: ``clean`` and ``corrupted``, the prompts; ``answer``, the text that continues the
    clean prompt; ``wrong``, the text that continues the corrupted one. Where a space comes first, it belongs to the
    answer. An answer of several tokens is scored at the first token in which it differs from the wrong one; the tokens
    that both share are added to both prompts.

    Optional ``groups`` names token groups: ``{"subject": ["Mary"]}``. A member is a piece of the text that occurs
    once, or ``[start, stop]`` in characters. A list counts for both prompts; ``{"clean": [...], "corrupted": [...]}``
    gives each its own. Prompts of unequal length need groups that name what corresponds.

    Args:
        path: the file, UTF-8. Blank lines are passed over. Lines with the same clean prompt stay in one split.
        vocabulary: a tokenizer or network.
        seed: of the split.
        metric: the task's metric.

    Returns:
        The task, named after the file. Its chance is one over the vocabulary.

    Raises:
        BadInput: if the file is missing, empty or not UTF-8, or a line does not parse, lacks a field, has one that is
            unknown, empty or no text, or an answer that cannot be scored; the message names the line.
        Misaligned: if clean and corrupted do not correspond; the message shows both tokenisations.
    """
    path, reader = Path(path), Reader.of(vocabulary)
    lines = [(f"{path.name}, line {i}", line) for i, line in enumerate(_read(path).split("\n"), 1) if line.strip()]
    if len(lines) < 2:
        raise BadInput(f"{path.name}: expected at least two examples, one of them held out; found {len(lines)}")
    examples = [_example(reader, _parse(line, where), where) for where, line in lines]
    return assemble(path.stem, examples, seed, 1 / len(reader.ordinary), f"the examples of {path.name}", metric)


def from_tokens(
    clean: Any,
    corrupted: Any,
    right: Any,
    wrong: Any,
    *,
    groups: Groups | None = None,
    groups_corrupted: Groups | None = None,
    chance: float = 0.0,
    name: str = "tokens",
    seed: int = 0,
    metric: Metric = LOGIT_DIFFERENCE,
) -> Task:
    """Make a task of bare token ids.

    Args:
        clean: rows of ids, nested lists or an integer tensor (batch, position); the answer follows the last one.
        corrupted: as many rows.
        right: the right id of each clean row.
        wrong: the id that is right for the corrupted row.
        groups: token group -> positions in each clean row.
        groups_corrupted: the same in the corrupted rows; as in the clean ones unless given.
        chance: accuracy of guessing.
        name: the task's name.
        seed: of the split.
        metric: the task's metric.

    Returns:
        The task.

    Raises:
        BadInput: if the numbers of rows differ, a row is empty, or right and wrong are the same.
        Misaligned: if a clean row does not correspond to its corrupted one.
    """
    rows = {"clean": as_rows(clean), "corrupted": as_rows(corrupted)}
    ids = {"right": as_rows([right])[0], "wrong": as_rows([wrong])[0]}
    n = len(rows["clean"])
    counts = {key: len(value) for key, value in (rows | ids).items()}
    for side, given in (("groups", groups), ("groups_corrupted", groups_corrupted)):
        counts |= {f"{side}[{group!r}]": len(positions) for group, positions in (given or {}).items()}
    if n < 2 or len(set(counts.values())) > 1:
        raise BadInput(f"expected as many rows of each, at least two; got {counts}")
    examples = []
    for i in range(n):
        where = f"row {i}"
        if not rows["clean"][i] or not rows["corrupted"][i]:
            raise BadInput(f"{where}: expected at least one token in clean and in corrupted; one is empty")
        if ids["right"][i] == ids["wrong"][i]:
            raise BadInput(f"{where}: expected right and wrong to differ; both are {ids['right'][i]}")
        placed, placed_corrupted = (
            {name: tuple(map(int, at[i])) for name, at in (given or {}).items()} for given in (groups, groups_corrupted)
        )
        example = Example(
            rows["clean"][i], rows["corrupted"][i], ids["right"][i], ids["wrong"][i], placed, placed_corrupted
        )
        require_correspondence(example, where)
        examples.append(example)
    return assemble(name, examples, seed, chance, "examples given as token ids", metric)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"expected a readable JSONL file at {path}: {error.strerror}") from error
    if not data.strip():
        raise BadInput(f"expected a JSONL file with one example a line; {path} is empty")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput(f"{path.name}, line {line}: expected UTF-8; got byte {data[error.start]:#04x}") from error


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: expected a JSON object; {error.msg} at column {error.colno}") from error
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a JSON object; got {type(record).__name__}")
    missing = [field for field in REQUIRED if field not in record]
    unknown = [field for field in record if field not in FIELDS]
    if missing or unknown:
        listed = "; ".join(
            f"{kind} {', '.join(map(repr, of))}" for kind, of in (("missing", missing), ("unknown", unknown)) if of
        )
        raise BadInput(f"{where}: expected the fields {', '.join(FIELDS)}, the last optional; {listed}")
    for field in REQUIRED:
        if not isinstance(record[field], str) or not record[field]:
            raise BadInput(f"{where}: expected {field!r} to be a text that is not empty; got {record[field]!r}")
    return record


def _example(reader: Reader, record: dict[str, Any], where: str) -> Example:
    texts = {side: record[side] for side in SIDES}
    answers = {}
    for prompt in SIDES:
        for field in ("answer", "wrong"):
            answers[prompt, field] = reader.continuation(texts[prompt], record[field])
            if not answers[prompt, field]:
                raise BadInput(
                    f"{where}: expected {field!r} to begin with a token of its own; {record[field]!r} melts into the "
                    f"end of {prompt} {texts[prompt][-20:]!r}: move a space from the prompt's end to the answers"
                )
    right, wrong = answers["clean", "answer"], answers["clean", "wrong"]
    if (right, wrong) != (answers["corrupted", "answer"], answers["corrupted", "wrong"]):
        raise BadInput(f"{where}: expected the answers to be the same tokens after both prompts; they are not")
    shared = next((i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b), None)
    if shared is None:
        raise BadInput(
            f"{where}: expected answer and wrong to differ in some token; {record['answer']!r} and {record['wrong']!r} "
            "are the same, or one begins the other"
        )
    ids = {side: reader.ids(text) + right[:shared] for side, text in texts.items()}
    aligned = len(ids["clean"]) == len(ids["corrupted"])
    groups = _groups(reader, texts, record.get("groups", {}), aligned, where)
    example = Example(
        ids["clean"], ids["corrupted"], right[shared], wrong[shared], groups["clean"], groups["corrupted"]
    )
    require_correspondence(example, where, reader.tokens)
    return example


def _groups(
    reader: Reader, texts: dict[str, str], given: Any, aligned: bool, where: str
) -> dict[str, dict[str, tuple[int, ...]]]:
    if not isinstance(given, dict):
        raise BadInput(f"{where}: expected 'groups' to be an object of name -> members; got {given!r}")
    placed: dict[str, dict[str, tuple[int, ...]]] = {side: {} for side in SIDES}
    for name, members in given.items():
        own = isinstance(members, dict)
        if own and set(members) != set(SIDES):
            raise BadInput(f"{where}: expected group {name!r} to have members for clean and corrupted; got {members!r}")
        for side in SIDES:
            # where tokens correspond one to one, members of the clean prompt need not occur in the corrupted one
            text = texts[side] if own or not aligned else texts["clean"]
            found = _place(reader, text, members[side] if own else members, f"{where}, group {name!r} in {side}")
            placed[side][name] = found
    return placed


def _place(reader: Reader, text: str, members: Any, where: str) -> tuple[int, ...]:
    if not isinstance(members, list) or not members:
        raise BadInput(f"{where}: expected a list of texts or [start, stop] pairs; got {members!r}")
    positions: set[int] = set()
    for member in members:
        if isinstance(member, str) and member:
            starts = [match.start() for match in re.finditer(f"(?={re.escape(member)})", text)]
            if len(starts) != 1:
                raise BadInput(
                    f"{where}: expected {member!r} once in {text!r}; found it {len(starts)} times: give [start, stop]"
                )
            start, stop = starts[0], starts[0] + len(member)
        elif isinstance(member, list) and len(member) == 2 and all(type(c) is int for c in member):
            start, stop = member
            if not 0 <= start < stop <= len(text):
                raise BadInput(f"{where}: expected 0 <= start < stop <= {len(text)}; got {member}")
        else:
            raise BadInput(f"{where}: expected a text or [start, stop]; got {member!r}")
        positions.update(reader.positions(text, start, stop))
    return tuple(sorted(positions))
