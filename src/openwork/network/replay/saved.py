"""What a measurement has computed so far, on disk, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from openwork.edit import Edit
from openwork.errors import BadInput, CorruptFile, OutputOccupied
from openwork.store.files import read_arrays, read_json, write_arrays, write_json
from openwork.store.hashing import hash_json

EVERY = 5.0
"""Seconds between two writes."""


@dataclass(eq=False)
class Saved:
    """Values of cells and examples in a folder.

    Args:
        folder: where.
        values: (cell, example).
        done: (cell, example) which of them were computed.
    """

    folder: Path
    values: Float[np.ndarray, "cell example"]
    done: Bool[np.ndarray, "cell example"]

    @classmethod
    def at(cls, folder: str | Path, key: Mapping[str, Any], shape: tuple[int, int]) -> Saved:
        """Begin in an empty folder, or go on with the same measurement.

        Raises:
            OutputOccupied: if the folder holds something else, or cannot be written.
            CorruptFile: if what it holds is damaged.
        """
        folder = Path(folder)
        name = hash_json(dict(key))
        if (folder / "measurement.json").is_file():
            if read_json(folder / "measurement.json").get("key") != name:
                raise OutputOccupied(f"{folder} holds another measurement; choose another folder, or delete it")
            if not (folder / "values.npz").is_file():
                return cls(folder, np.zeros(shape), np.zeros(shape, dtype=bool))
            arrays = read_arrays(folder / "values.npz")
            if {"values", "done"} - set(arrays) or any(arrays[x].shape != shape for x in ("values", "done")):
                raise CorruptFile(f"expected values and done of shape {shape} in {folder / 'values.npz'}; delete it")
            return cls(folder, arrays["values"], arrays["done"].astype(bool))
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputOccupied(f"{folder} holds files that are no measurement; choose an empty folder")
        write_json(folder / "measurement.json", {"key": name, "of": json.loads(json.dumps(dict(key)))})
        return cls(folder, np.zeros(shape), np.zeros(shape, dtype=bool))

    @contextmanager
    def writing(self) -> Iterator[Saved]:
        """Write now and then, and when the block ends, however it ends."""
        self._last = time.monotonic()
        try:
            yield self
        finally:
            self.write()

    def put(self, cell: int, examples: Sequence[int], values: Float[np.ndarray, " example"]) -> None:
        """Take values in."""
        self.values[cell, list(examples)] = values
        self.done[cell, list(examples)] = True
        if time.monotonic() - self._last > EVERY:
            self.write()
            self._last = time.monotonic()

    def write(self) -> None:
        """Write what there is."""
        write_arrays(self.folder / "values.npz", {"values": self.values, "done": self.done})


def cells_as_json(cells: Sequence[Sequence[Edit]]) -> list[str]:
    """A short name for each cell.

    Raises:
        BadInput: for an edit that holds a function, which cannot be told from another one.
    """
    for edit in (edit for cell in cells for edit in cell):
        if not edit.serialisable:
            raise BadInput(f"expected edits that are data, to go on with them later; got {edit!r}: leave out to=")
    return [hash_json([edit.to_json() for edit in cell]) for cell in cells]
