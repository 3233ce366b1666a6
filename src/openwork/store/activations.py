"""Activations too large for memory: shards of safetensors, and an index that is written last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from openwork.errors import BadInput, CorruptFile, OutputOccupied, UnknownName
from openwork.store.cache import INDEX, CacheKey
from openwork.store.files import read_json, write_json, write_tensors

FORMAT = 1
_SHARD = re.compile(r"^\.?\d{6}\.safetensors(\..+\.partial)?$")


@dataclass
class ActivationWriter:
    """Writes what a run keeps, one shard a batch; use it as a context manager.

    The folder becomes a store when the block ends without an exception. Until then it has no index, and no reader
    opens it.

    Args:
        folder: where to write; it may hold an unfinished store, which is replaced.
        axes: names of the axes of each site, kept with the tensors.
        key: what the values depend on, for a store that lies in the cache.
    """

    folder: Path
    axes: Mapping[str, Sequence[str]]
    key: CacheKey | None = None
    shards: list[dict[str, Any]] = field(default_factory=list, init=False)

    def __enter__(self) -> ActivationWriter:
        self.folder = Path(self.folder)
        if (self.folder / INDEX).exists():
            raise OutputOccupied(f"{self.folder} already holds a store; delete it or choose another folder")
        foreign = sorted(path.name for path in self.folder.glob("*") if not _SHARD.match(path.name))
        if foreign:
            raise OutputOccupied(f"{self.folder} holds other files ({foreign[0]}); choose another folder")
        self._discard()
        return self

    def append(self, tensors: Mapping[str, Tensor]) -> None:
        """Write one batch.

        Args:
            tensors: the tensor of every site, batch first, with as many rows each.

        Raises:
            BadInput: if a site is missing, unknown, or has another number of rows.
        """
        if set(tensors) != set(self.axes):
            raise BadInput(f"expected the sites {sorted(self.axes)} in every batch; got {sorted(tensors)}")
        rows = {tensor.shape[0] for tensor in tensors.values()}
        if len(rows) != 1:
            raise BadInput(f"expected as many rows for every site; got {sorted(rows)}")
        path = write_tensors(self.folder / f"{len(self.shards):06d}.safetensors", tensors)
        self.shards.append({"file": path.name, "rows": rows.pop(), "bytes": path.stat().st_size})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._discard()
            return
        if not self.shards:
            raise BadInput(f"expected at least one batch before {self.folder} is closed; got none")
        index = {
            "format": FORMAT,
            "axes": {site: list(names) for site, names in self.axes.items()},
            "shards": self.shards,
            "key": asdict(self.key) if self.key else None,
        }
        write_json(self.folder / INDEX, index)

    def _discard(self) -> None:
        for path in self.folder.glob("*"):
            if _SHARD.match(path.name):
                path.unlink()
        self.shards.clear()


class ActivationReader:
    """Reads a store, one shard at a time.

    Args:
        folder: where an `ActivationWriter` wrote.

    Raises:
        CorruptFile: if the store is half written, or a shard is missing or cut short.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise CorruptFile(f"expected a store in {folder}; it has no {INDEX}, so it is no store or half written")
        index = read_json(self.folder / INDEX)
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise CorruptFile(f"expected a store of format {FORMAT} in {folder}; its index is of another")
        self.axes: dict[str, tuple[str, ...]] = {site: tuple(names) for site, names in index["axes"].items()}
        self.shards: list[dict[str, Any]] = index["shards"]
        for shard in self.shards:
            path = self.folder / shard["file"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise CorruptFile(f"expected {shard['bytes']} bytes in {path}; it is missing or cut short")

    @property
    def n_rows(self) -> int:
        """Rows of all shards."""
        return sum(shard["rows"] for shard in self.shards)

    def batches(self, site: str) -> Iterator[Tensor]:
        """The tensor of a site, batch by batch, in the order written."""
        if site not in self.axes:
            raise UnknownName.among("stored site", site, self.axes)
        for shard in self.shards:
            path = self.folder / shard["file"]
            try:
                with safe_open(path, framework="pt") as file:
                    yield file.get_tensor(site)
            except SafetensorError as error:
                raise CorruptFile(f"expected safetensors in {path}; it is damaged ({error})") from error

    def __getitem__(self, site: str) -> Tensor:
        """All rows of a site as one tensor, padded with zeros at the end of every other axis where lengths differ."""
        batches = list(self.batches(site))
        longest = [max(sizes) for sizes in zip(*(batch.shape[1:] for batch in batches), strict=True)]
        whole = batches[0].new_zeros((self.n_rows, *longest))
        start = 0
        for batch in batches:
            part = (slice(start, start + len(batch)), *(slice(0, size) for size in batch.shape[1:]))
            whole[part] = batch
            start += len(batch)
        return whole
