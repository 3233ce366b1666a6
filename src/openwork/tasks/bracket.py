"""Brackets: which kind of closing bracket comes next? The kind of the innermost open one."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openwork.errors import BadInput
from openwork.task import Task
from openwork.tasks.examples import LEAST, Example, assemble, require_count, require_enough
from openwork.tasks.induction import LONGEST
from openwork.tasks.reader import Reader, Vocabulary
from openwork.tasks.source import BLOCK, Source, texts
from openwork.worlds.python_source import LabelledSource, label_text

log = logging.getLogger(__name__)

PAIRS = {"(": ")", "[": "]", "{": "}"}
TEMPLATES = (
    "{a} = ~{items}",
    "    return ~{items}",
    "for {a} in ~{items}",
    "if {a} in ~{items}",
    "    {a} = {b}({c}, ~{items}",
    "    {a}.{b} = {c}(~{items}",
    "{a} = [{b}, {c}]\n{d} = ~{items}",
    "def {a}({b}, {c}):\n    return ~{items}",
    "    {a} = {b}[{c}]\n    {d}({a}, ~{items}",
    "{a} = [{b}, ({c}, {d}), ~{items}",
)
ITEMS = ("{}", "{}", "{}[0]", "{}()", "{}.name", "'{}'", "{}({}, 1)")
NAMES = (
    "a",
    "b",
    "c",
    "x",
    "y",
    "name",
    "value",
    "key",
    "data",
    "path",
    "file",
    "line",
    "text",
    "list",
    "code",
    "size",
)
SPARSE = 3
"""Tokens between the brackets of real code at least."""


def bracket(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """Code that is cut where a bracket closes; the corrupted prompt has another kind of opening bracket there.

    The three kinds are asked about equally often, as far as a source allows, and chance is one in three: the task's
    accuracy is that of the choice between the closing brackets.

    Args:
        vocabulary: a tokenizer or network; for a source, one that says where its tokens lie.
        n: number of examples; from a source fewer if it holds fewer, at least `LEAST`.
        seed: of the names or the choice of prompts, of the kinds, and of the split.
        source: a file or folder of Python, whose brackets are found by its labels and whose files are held out whole;
            templates unless given.

    Returns:
        The task; token groups "opening" (the open bracket) and "last".

    Raises:
        BadInput: if the tokenizer has no single tokens for brackets, or the source is too short or not Python.
    """
    require_count("bracket", n)
    reader, rng = Reader.of(vocabulary), random.Random(seed)
    if source is None:
        examples = _from_templates(reader, n, rng)
    else:
        examples = _from_source(reader, source, n, rng)
        require_enough("bracket", len(examples), min(n, LEAST), "closing brackets some tokens after their opening ones")
    return assemble("bracket", examples, seed, 1 / len(PAIRS), "a bracket is closed by its own kind")


def _from_templates(reader: Reader, n: int, rng: random.Random) -> list[Example]:
    examples, kinds = [], list(PAIRS)
    for _ in range(20 * n):
        kind = kinds[len(examples) % len(kinds)]
        other = rng.choice([k for k in kinds if k != kind])
        items = ", ".join(rng.choice(ITEMS).format(*rng.sample(NAMES, 2)) for _ in range(rng.randint(2, 4)))
        a, b, c, d = rng.sample(NAMES, 4)
        text = rng.choice(TEMPLATES).format(a=a, b=b, c=c, d=d, items=items)
        example = _written(reader, text, kind, other)
        if example is not None:
            examples.append(example)
        if len(examples) == n:
            return examples
    raise BadInput(
        f"bracket: expected a tokenizer in which opening and closing brackets are tokens of their own; of {20 * n} "
        f"prompts {len(examples)} could be written, {n} are needed: use another tokenizer, or a source"
    )


def _written(reader: Reader, text: str, kind: str, other: str) -> Example | None:
    """The example of a template, or None where a tokenizer melts the brackets into something else."""
    place = text.index("~")
    clean, corrupted = (reader.ids(text.replace("~", bracket)) for bracket in (kind, other))
    opening = [i for i, (a, b) in enumerate(zip(clean, corrupted, strict=False)) if a != b]
    right, wrong = (reader.continuation(text.replace("~", k), PAIRS[k]) for k in (kind, other))
    if len(clean) != len(corrupted) or len(opening) != 1 or len(right) != 1 or len(wrong) != 1:
        return None
    assert tuple(opening) == reader.positions(text.replace("~", kind), place, place + 1)
    return Example(clean, corrupted, right[0], wrong[0], {"opening": tuple(opening)})


def _from_source(reader: Reader, source: Source, n: int, rng: random.Random) -> list[Example]:
    tokenizer = getattr(reader.vocabulary, "tokenizer", None) or reader.vocabulary
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput(
            f"bracket: expected a tokenizer that says where its tokens lie in a source; {type(tokenizer).__name__} "
            "does not: use a fast tokenizer, or no source"
        )
    files = [labelled for name, text in texts(source) if (labelled := _labelled(name, text, tokenizer, source))]
    kinds: dict[str, list[Example]] = {kind: [] for kind in PAIRS}
    for file in files:
        block = len(file) if len(files) > 1 else min(BLOCK, -(-len(file) // 2))
        for kind, example in _closings(reader, file, block, rng):
            kinds[kind].append(example)
    for found in kinds.values():
        rng.shuffle(found)
    examples = []
    while len(examples) < n and any(kinds.values()):
        examples.extend(found.pop() for found in kinds.values() if found)
    return examples[:n]


def _labelled(name: str, text: str, tokenizer: Any, source: Source) -> LabelledSource | None:
    """A labelled file; None for a file of a folder that this Python cannot parse."""
    try:
        return label_text(text, tokenizer, name)
    except BadInput as error:
        if not Path(source or "").is_dir():
            raise
        log.warning("left out: %s", error)
        return None


def _spellings(reader: Reader) -> dict[str, int]:
    """The brackets that are one token each, as they are written and with a space in front."""
    texts = [space + bracket for bracket in (*PAIRS, *PAIRS.values()) for space in ("", " ")]
    found = {text: reader.continuation("x", text) for text in texts}
    return {text: ids[0] for text, ids in found.items() if len(ids) == 1}


def _closings(
    reader: Reader, labelled: LabelledSource, block: int, rng: random.Random
) -> Iterator[tuple[str, Example]]:
    """Every closing bracket whose opening one stands in a prompt within the same block of tokens, with its kind."""
    ids, depth = labelled.token_ids.tolist(), labelled.labels["bracket_depth"].tolist()
    text = labelled.labels["string"] | labelled.labels["comment"]
    tokens = ["" if quoted else t for quoted, t in zip(text.tolist(), reader.tokens(ids), strict=True)]
    spelled, begin = _spellings(reader), len(reader.begin)
    for t, closing in enumerate(tokens):
        start = max(t - t % block, t - (LONGEST - begin))
        # the innermost open bracket stands where this depth was reached for good
        at = next((i for i in range(t - 1, start, -1) if depth[i - 1] < depth[t - 1]), t)
        kind = tokens[at].strip()
        if PAIRS.get(kind) != closing or depth[at] != depth[t - 1] or t - at <= SPARSE:
            continue
        space = tokens[at][: -len(kind)]
        others = [k for k in PAIRS if k != kind and space + k in spelled and PAIRS[k] in spelled]
        if not others:
            continue
        other = rng.choice(others)
        clean = (*reader.begin, *ids[start:t])
        place = begin + at - start
        corrupted = (*clean[:place], spelled[space + other], *clean[place + 1 :])
        family = (labelled.name, t // block)
        yield kind, Example(clean, corrupted, ids[t], spelled[PAIRS[other]], {"opening": (place,)}, family=family)
