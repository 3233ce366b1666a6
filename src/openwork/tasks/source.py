"""Real code as documents of tokens, from a file, a folder, or openwork's own installed source."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openwork.errors import BadInput
from openwork.tasks.reader import Reader
from openwork.worlds.corpus import Corpus
from openwork.worlds.reading import read_source

log = logging.getLogger(__name__)

BLOCK = 1000
"""Tokens of the blocks that a single file is cut into, so that some of it can be held out."""
MOST = 4_000_000
"""Characters that are read at most; a sample of a hundred prompts needs no more."""
OWN = 800_000
"""Characters of openwork's own source that are read, about."""

Source = str | Path | None


@dataclass(frozen=True)
class Document:
    """A stretch of real code that falls on one side of the split.

    Attributes:
        name: the file, and for a part of it the number of the part.
        ids: its tokens, nothing in front.
    """

    name: str
    ids: tuple[int, ...]


def own_source() -> Path:
    """The folder of openwork's own installed source: real code that no embedded model was trained on."""
    return Path(__file__).parents[1]


def own_texts() -> list[tuple[str, str]]:
    """As much of openwork's own source as tasks are made of: files by the hash of their names, so that a new file
    takes the place of few others, in the order of the source.
    """
    whole, chosen, read = Corpus.below(own_source()), set(), 0
    for name in sorted(whole.names, key=lambda name: hashlib.sha256(name.encode()).digest()):
        chosen.add(name)
        read += (whole.root / name).stat().st_size
        if read > OWN:
            break
    return list(Corpus(whole.root, tuple(name for name in whole.names if name in chosen)).texts())


def texts(source: Source) -> Iterator[tuple[str, str]]:
    """The files of a source, as pairs of name and text.

    Args:
        source: a file, a folder of Python files, or None for openwork's own source.

    Raises:
        BadInput: if it does not exist, cannot be read, or holds no text.
    """
    if source is None:
        yield from own_texts()
        return
    path = Path(source)
    if not path.exists():
        raise BadInput(f"expected a file or folder of source; {path} does not exist: give an existing path")
    found = Corpus.below(path).texts() if path.is_dir() else [(path.name, read_source(path))]
    read = 0
    for name, text in found:
        if not text.strip():
            continue
        if read and read + len(text) > MOST:
            log.warning("%s is large: only its first %d characters are read", path, read)
            return
        read += len(text)
        yield name, text
    if not read:
        raise BadInput(f"expected some text in {path}; it is empty: give a file or folder with source")


def documents(reader: Reader, source: Source) -> list[Document]:
    """The source as documents; a single file is cut into blocks of `BLOCK` tokens.

    Args:
        reader: makes tokens of text.
        source: a file, a folder of Python files, or None for openwork's own source.
    """
    found = [Document(name, reader.body(text)) for name, text in texts(source)]
    if len(found) > 1:
        return found
    (whole,) = found
    size = min(BLOCK, -(-len(whole.ids) // 2))
    starts = range(0, len(whole.ids), size)
    return [Document(f"{whole.name}, part {i}", whole.ids[s : s + size]) for i, s in enumerate(starts, 1)]


def require_no_source(task: str, source: Source) -> None:
    """Raise `BadInput` if a source is given to a task that writes its own text."""
    if source is not None:
        raise BadInput(f"{task}: expected no source, since this task writes its own text; got {str(source)!r}")
