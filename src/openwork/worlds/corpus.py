"""Files of Python source, and which of them are held out."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openwork.errors import BadInput
from openwork.worlds.reading import read_source

Split = Literal["train", "held-out"]

HELD_OUT_TENTHS = 1
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__", ".git", ".venv", "node_modules"})


def standard_library() -> Path:
    """The folder of the standard library of the running Python.

    Returns:
        An existing folder.

    Raises:
        BadInput: if this Python keeps its library in a zip file or has none.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    if not folder.is_dir():
        raise BadInput(f"expected the standard library as a folder of .py files at {folder}, found none")
    return folder


def split_of(name: str) -> Split:
    """Which split a file belongs to, from its path below the corpus folder alone.

    Whole files are held out, one in ten, so that no held-out line has a neighbour in training.

    Args:
        name: path relative to the corpus folder, with forward slashes.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return "held-out" if int.from_bytes(digest, "big") % 10 < HELD_OUT_TENTHS else "train"


@dataclass(frozen=True)
class Corpus:
    """All Python files below a folder, in a fixed order.

    Attributes:
        root: the folder.
        names: relative paths with forward slashes, sorted.
    """

    root: Path
    names: tuple[str, ...]

    @classmethod
    def below(cls, root: Path) -> Corpus:
        """Walk a folder, leaving out installed packages and caches.

        Args:
            root: an existing folder.

        Returns:
            The corpus, its names sorted so that it is the same on every file system.

        Raises:
            BadInput: if the folder does not exist or holds no .py file.
        """
        if not root.is_dir():
            raise BadInput(f"expected a folder of Python files, {root} is none; give an existing folder")
        names = sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob("*.py")
            if path.is_file() and not SKIPPED_FOLDERS.intersection(path.relative_to(root).parts)
        )
        if not names:
            raise BadInput(f"expected .py files below {root}, found none; give a folder that holds Python source")
        return cls(root, tuple(names))

    def split(self, split: Split) -> Corpus:
        """The part of the corpus in one split.

        Args:
            split: "train" or "held-out".
        """
        return Corpus(self.root, tuple(name for name in self.names if split_of(name) == split))

    def texts(self) -> Iterator[tuple[str, str]]:
        """The decodable files, as pairs of name and text with "\\n" line ends.

        Files that are not valid in their declared encoding (the library's tests hold some on purpose) are left out;
        `fingerprint` counts what is there, `len(list(corpus.texts()))` what was read.
        """
        for name in self.names:
            try:
                yield name, read_source(self.root / name)
            except BadInput:
                continue

    def fingerprint(self) -> dict[str, str | int]:
        """What the corpus is made of, for a model card.

        Returns:
            `sha256` over the sorted lines "<sha256 of the file>  <name>", `files` (a count) and `bytes`.
        """
        lines, size = [], 0
        for name in self.names:
            data = (self.root / name).read_bytes()
            size += len(data)
            lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
        return {"sha256": digest, "files": len(self.names), "bytes": size}
