"""Activations too large for memory: shards of safetensors, and an index that is written last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from openwork.errors import BadInput, CorruptFile, OutputOccupied, UnknownName
from openwork.store.cache import INDEX, CacheKey
from openwork.store.files import read_json, write_json, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
_SHARD = re.compile(r"^\.?\d{6}\.safetensors(\..+\.partial)?$")


@dataclass
class ActivationWriter:
    """Writes what a run keeps, one shard for each tensor that comes.

    The folder becomes a store with `close`. Until then it has no index, and no reader opens it. As a context manager
    it closes at the end of the block, and after an exception it takes its shards away.

    Args:
        folder: where to write; it may hold an unfinished store, which is replaced.
        axes: names of the axes of each site, kept with the tensors.
        key: what the values depend on, for a store that lies in the cache.

    Raises:
        OutputOccupied: if the folder holds a store or other files.
    """

    folder: Path
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key: CacheKey | None = None
    shards: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        if (self.folder / INDEX).exists():
            raise OutputOccupied(f"{self.folder} already holds a store; delete it or choose another folder")
        if self.folder.is_file():
            raise OutputOccupied(f"expected a folder at {self.folder}; it is a file")
        foreign = sorted(path.name for path in self.folder.glob("*") if not _SHARD.match(path.name))
        if foreign:
            raise OutputOccupied(f"{self.folder} holds other files ({foreign[0]}); choose another folder")
        self.abort()

    def append(self, site: str, tensor: Tensor) -> None:
        """Write the next rows of a site.

        Args:
            site: the site.
            tensor: its value, batch first.
        """
        count = sum(map(len, self.shards.values()))
        path = write_tensors(self.folder / f"{count:06d}.safetensors", {site: tensor})
        shard = {"file": path.name, "rows": tensor.shape[0], "bytes": path.stat().st_size}
        self.shards.setdefault(site, []).append(shard)

    def close(self) -> None:
        """Write the index: the store is whole.

        Raises:
            BadInput: if nothing came, or sites have different numbers of rows.
        """
        rows = {site: sum(shard["rows"] for shard in shards) for site, shards in self.shards.items()}
        if not rows:
            raise BadInput(f"expected at least one tensor before {self.folder} is closed; got none")
        if len(set(rows.values())) > 1:
            raise BadInput(f"expected as many rows of every site in {self.folder}; got {rows}")
        index = {
            "format": FORMAT,
            "axes": {site: list(names) for site, names in self.axes.items()},
            "shards": self.shards,
            "key": asdict(self.key) if self.key else None,
        }
        write_json(self.folder / INDEX, index)

    def abort(self) -> None:
        """Take away the shards written so far, and nothing else."""
        for path in self.folder.glob("*"):
            if _SHARD.match(path.name):
                path.unlink()
        self.shards.clear()

    def __enter__(self) -> ActivationWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


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
        self.shards: dict[str, list[dict[str, Any]]] = index["shards"]
        for shard in (shard for shards in self.shards.values() for shard in shards):
            path = self.folder / shard["file"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise CorruptFile(f"expected {shard['bytes']} bytes in {path}; it is missing or cut short")

    @property
    def sites(self) -> list[str]:
        """The sites that are stored."""
        return sorted(self.shards)

    @property
    def n_rows(self) -> int:
        """Rows of every site."""
        return sum(shard["rows"] for shard in next(iter(self.shards.values())))

    def batches(self, site: str) -> Iterator[Tensor]:
        """The value of a site, shard by shard, in the order written."""
        from safetensors import SafetensorError, safe_open

        if site not in self.shards:
            raise UnknownName.among("stored site", site, self.shards)
        for shard in self.shards[site]:
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
