"""The cache: one folder an entry, named by what its content depends on. Deleting any of it loses only time."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from openwork.errors import BadInput, CorruptFile
from openwork.store.files import read_json
from openwork.store.hashing import code_version, hash_json

INDEX = "index.json"
"""Written last: an entry without it is half written."""


@dataclass(frozen=True)
class CacheKey:
    """All that a cached value depends on.

    Args:
        kind: what it is, e.g. ``activations``; the name of the folder that holds its entries.
        model: hash of the weights.
        data: hash of the inputs.
        site: the site or sites, as written.
        dtype: of the stored elements.
        code: version of the code that made it.
    """

    kind: str
    model: str
    data: str
    site: str
    dtype: str
    code: str

    @classmethod
    def of(cls, kind: str, model: str, data: str, site: str, dtype: str) -> CacheKey:
        """The key for values that this installation makes."""
        return cls(kind, model, data, site, dtype, code_version())

    def __post_init__(self) -> None:
        if not self.kind.isidentifier():
            raise BadInput(f"expected the kind of a cache entry to be a plain word; got {self.kind!r}")

    @property
    def folder(self) -> Path:
        """Where the entry lies, whether or not it exists yet."""
        return cache_folder() / self.kind / hash_json(asdict(self))[:24]


@dataclass(frozen=True)
class CacheEntry:
    """An entry on disk.

    Args:
        path: its folder.
        kind: what it is.
        key: what it depends on; empty for an entry that is not whole.
        n_bytes: its size on disk.
        modified: seconds since 1970.
    """

    path: Path
    kind: str
    key: dict[str, str]
    n_bytes: int
    modified: float

    @property
    def whole(self) -> bool:
        """Whether its writing came to an end."""
        return bool(self.key)


def cache_folder() -> Path:
    """The cache: ``OPENWORK_CACHE``, or the platform's folder for caches of the user."""
    chosen = os.environ.get("OPENWORK_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "openwork"


def list_cache() -> Iterator[CacheEntry]:
    """Every entry of the cache, by kind and name."""
    for folder in sorted(cache_folder().glob("*/*/")):
        try:
            key = read_json(folder / INDEX)["key"]
            key = {str(name): str(value) for name, value in key.items()}
        except (BadInput, CorruptFile, KeyError, TypeError, AttributeError):
            key = {}
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        size, modified = sum(file.st_size for file in files), max((file.st_mtime for file in files), default=0.0)
        yield CacheEntry(folder, folder.parent.name, key, size, modified)


def clean_cache(kind: str | None = None, stale_only: bool = False) -> list[CacheEntry]:
    """Delete entries.

    Args:
        kind: only those of this kind.
        stale_only: only those that are half written or that another version of the code made.

    Returns:
        What was deleted.
    """
    deleted = []
    for entry in list_cache():
        if kind in (None, entry.kind) and not (stale_only and entry.key.get("code") == code_version()):
            shutil.rmtree(entry.path)
            deleted.append(entry)
    return deleted
