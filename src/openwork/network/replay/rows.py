"""Rows of a replay: one cell on one example each, and what is written where in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from openwork.network.replay.writes import Write
from openwork.network.timeline import Span


@dataclass(eq=False, frozen=True)
class Place:
    """Where a site lies in the order of a pass.

    Args:
        site: its base name.
        block: the number of the block that is first computed anew; the number of blocks if none is.
        stream: whether the site is the stream that this block reads.
        later: whether a write changes what other positions read within the block (keys and values).
        attends: whether the block's attention is still to come after the site.
        skipped: the calls within the block that were over when the site was reached.
    """

    site: str
    block: int
    stream: bool
    later: bool = False
    attends: bool = False
    skipped: tuple[Span, ...] = ()


@dataclass(eq=False)
class Entry:
    """Values written at one place in some rows.

    Args:
        place: where.
        row: (token,) which row.
        position: (token,) which position.
        part: (token,) which head, unit or channel, or None for all of them.
        value: (token, ...) what is written.
    """

    place: Place
    row: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    part: Int[Tensor, " token"] | None
    value: Tensor


@dataclass(eq=False)
class Rows:
    """All rows that are replayed together.

    Args:
        example: (row,) the example of each, ascending.
        cell: (row,) the cell of each.
        first: the block of the first write of each.
        entries: what is written.
    """

    example: Int[Tensor, " row"]
    cell: Int[Tensor, " row"]
    first: list[int]
    entries: list[Entry]

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, cells: Sequence[tuple[Sequence[int], Sequence[Write]]], places: Mapping[str, Place]) -> Rows:
        """Lay out cells, each given by its examples and its writes in order of execution."""
        found = []
        for number, (examples, writes) in enumerate(cells):
            starts = writes[0].where[list(examples)].int().argmax(1).tolist()
            found += [(e, start, number) for e, start in zip(examples, starts, strict=True)]
        found.sort()
        index = {(number, e): row for row, (e, _, number) in enumerate(found)}
        entries = []
        first = [0] * len(found)
        for number, (examples, writes) in enumerate(cells):
            rows = torch.tensor([index[number, e] for e in examples])
            for e in examples:
                first[index[number, e]] = min(places[w.site].block for w in writes)
            for write in writes:
                entries.append(_entry(write, torch.tensor(list(examples)), rows, places[write.site]))
        example, _, cell = (torch.tensor(x, dtype=torch.long) for x in zip(*found, strict=True))
        return cls(example, cell, first, entries)

    def streams(self, block: int) -> list[Entry]:
        """What is written into the stream that a block reads."""
        return [e for e in self.entries if e.place.block == block and e.place.stream]

    def inside(self, block: int) -> list[Entry]:
        """What is written within a block."""
        return [e for e in self.entries if e.place.block == block and not e.place.stream]

    def single(self, block: int) -> Bool[Tensor, " row"]:
        """Which rows write at no more than one place within a block."""
        count = torch.zeros(len(self), dtype=torch.long)
        for place in dict.fromkeys(e.place for e in self.inside(block)):
            here = torch.zeros(len(self), dtype=torch.bool)
            for entry in self.entries:
                if entry.place is place:
                    here[entry.row] = True
            count += here
        return count <= 1


def _entry(write: Write, examples: Int[Tensor, " chosen"], rows: Int[Tensor, " chosen"], place: Place) -> Entry:
    at, position = write.where[examples].nonzero(as_tuple=True)
    device = write.value.device
    value = write.value[examples[at].to(device), position.to(device)]
    row, part = rows[at], None
    if write.index:
        parts = len(write.index)
        part = torch.tensor(write.index).repeat(len(row))
        row, position, value = row.repeat_interleave(parts), position.repeat_interleave(parts), value.flatten(0, 1)
    return Entry(place, row, position, part, value)
