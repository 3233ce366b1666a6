"""Ordinary text as rows of tokens, with a kind for every token where the text is Python."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openwork.errors import BadInput
from openwork.task import Inputs
from openwork.tasks.reader import Reader
from openwork.tasks.source import texts as files_of
from openwork.worlds import LabelledSource, label_text

if TYPE_CHECKING:
    from openwork.network import Network

LEAST_ROWS = 4
UNKNOWN = "unlabelled"


@dataclass(frozen=True)
class Texts:
    """Rows of ordinary text.

    Args:
        inputs: the rows, all of one length.
        kinds: the kind of each token, e.g. ``comment``; `UNKNOWN` where none is known.
        begin: how many tokens stand in front of each row.
        name: where it comes from.
        sha256: of the rows.
    """

    inputs: Inputs
    kinds: tuple[tuple[str, ...], ...]
    begin: int
    name: str
    sha256: str


def read(net: Network, text: str | Path | None, rows: int, tokens: int, seed: int) -> Texts:
    """Rows of text, drawn from all over it.

    Args:
        net: its tokenizer makes the tokens.
        text: the text itself, a path to a file or folder of Python, or None for openwork's own source.
        rows: how many rows, at most.
        tokens: tokens of each row.
        seed: which rows.

    Raises:
        BadInput: if the network has no tokenizer, or the text is missing, empty or too short for a few rows.
    """
    if net.tokenizer is None:
        raise BadInput(
            f"expected a network with a tokenizer, which a study of text needs; {net.name} has none: "
            "open it with tokenizer="
        )
    reader = Reader.of(net)
    if isinstance(text, str) and not text.strip():
        raise BadInput("expected some text; got an empty one")
    found = [("the text given", text)] if isinstance(text, str) else list(files_of(text))
    name = "the text given" if isinstance(text, str) else "openwork's own source" if text is None else Path(text).name
    width = tokens - len(reader.begin)
    cuts: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
    for title, body in found:
        ids, kinds = _labelled(net, reader, body, title)
        cuts += [
            (ids[start : start + width], kinds[start : start + width])
            for start in range(0, len(ids) - width + 1, width)
        ]
    if len(cuts) < LEAST_ROWS:
        raise BadInput(
            f"expected text for at least {LEAST_ROWS} rows of {tokens} tokens; {name} gives {len(cuts)}: give a longer "
            "text, or fewer text_tokens"
        )
    order = np.random.default_rng(seed).permutation(len(cuts))[:rows]
    chosen = [cuts[i] for i in sorted(order)]
    ids = tuple((*reader.begin, *row) for row, _ in chosen)
    kinds = tuple(((UNKNOWN,) * len(reader.begin) + kind) for _, kind in chosen)
    return Texts(Inputs(ids), kinds, len(reader.begin), name, hashlib.sha256(repr(ids).encode()).hexdigest())


def _labelled(net: Network, reader: Reader, text: str, name: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids and kinds; a text that is not Python, or a tokenizer without offsets, gives no kinds."""
    ids = reader.body(text)
    if not callable(net.tokenizer) or not getattr(net.tokenizer, "is_fast", False):
        return ids, (UNKNOWN,) * len(ids)
    try:
        labelled = label_text(text, net.tokenizer, name)
    except BadInput:
        return ids, (UNKNOWN,) * len(ids)
    return tuple(int(i) for i in labelled.token_ids), tuple(kinds_of(labelled))


def kinds_of(source: LabelledSource) -> list[str]:
    """One kind for each token, the first that fits."""
    texts = [source.text[start:stop] for start, stop in source.offsets]
    order = ("docstring", "comment", "string", "keyword", "argument", "keyword_argument", "attribute", "name")
    out = []
    for i, token in enumerate(texts):
        kind = next((k.replace("_", " ") for k in order if source.labels[k][i]), None)
        if kind is None:
            kind = "white space" if not token.strip() else "number" if token.strip().isdigit() else "operator"
        out.append(kind)
    return out
