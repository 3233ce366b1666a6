"""Where the real tokens of a batch lie, and which of them a `Where` selects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openwork.errors import BadInput, UnknownName
from openwork.site import Where

if TYPE_CHECKING:
    from openwork.network.grid import Grid


def place_axes(axes: Sequence[str]) -> tuple[int, ...]:
    """The axes that hold the positions of a site: one, or rows and columns, which count as one flat index."""
    for name in ("position", "query"):
        if name in axes:
            return (list(axes).index(name),)
    y = list(axes).index("y") if "y" in axes else -1
    if y < 0 or tuple(axes[y : y + 2]) != ("y", "x"):
        return ()
    return (y - 1, y, y + 1) if y and axes[y - 1] == "time" else (y, y + 1)


def width_of(value: Tensor) -> int:
    """The number of positions of an input; images have none of their own, for every map has others."""
    return value.shape[1] if 1 < value.ndim < 4 else 1


class RegionGroups(Mapping[str, tuple[tuple[int, ...], ...]]):
    """Regions of images as the positions of one site, resolved when they are asked for.

    Args:
        regions: see `Layout`.
        grid: of the site.
        rows: of the site's value.
    """

    def __init__(self, regions: Mapping[str, Tensor], grid: Callable[[], Grid], rows: int):
        self._regions, self._grid, self._rows = regions, grid, rows
        self._found: dict[str, tuple[tuple[int, ...], ...]] = {}

    def __getitem__(self, name: str) -> tuple[tuple[int, ...], ...]:
        if name not in self._found:
            masks = self._regions[name]
            if len(masks) != self._rows:
                raise BadInput(f"expected a site with one row for each of {len(masks)} images; got {self._rows} rows")
            grid = self._grid()
            self._found[name] = tuple(tuple(grid.positions(mask)) for mask in masks)
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._regions

    def __iter__(self) -> Iterator[str]:
        return iter(self._regions)

    def __len__(self) -> int:
        return len(self._regions)


@dataclass(eq=False)
class Layout:
    """The real tokens of each row of a batch.

    Args:
        offsets: the column of each row's first real token.
        lengths: how many real tokens each row has.
        width: the number of columns.
        groups: token groups: name -> positions of each row.
        regions: parts of an image: name -> (row, y, x) bool, in pixels. Each site resolves them through its grid.
    """

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    width: int
    groups: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    regions: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def full(cls, rows: int, width: int) -> Layout:
        """A batch without padding."""
        return cls((0,) * rows, (width,) * rows, width)

    @classmethod
    def from_mask(cls, mask: Tensor) -> Layout:
        """The layout that an attention mask (batch, position) of zeros and ones describes.

        Raises:
            BadInput: if a row has no real token, or real tokens on both sides of padding.
        """
        mask = mask.bool().cpu()
        lengths = mask.sum(1)
        offsets = mask.int().argmax(1)
        columns = torch.arange(mask.shape[1])
        expected = (columns >= offsets[:, None]) & (columns < (offsets + lengths)[:, None])
        if not bool((lengths > 0).all()) or not torch.equal(mask, expected):
            row = int(torch.nonzero((lengths == 0) | (mask != expected).any(1))[0])
            raise BadInput(f"expected one unbroken span of real tokens in each row of the mask; row {row} has none")
        return cls(tuple(offsets.tolist()), tuple(lengths.tolist()), mask.shape[1])

    def take(self, rows: Sequence[int]) -> Layout:
        """The layout of the given rows, in that order."""
        groups = {name: tuple(group[r] for r in rows) for name, group in self.groups.items()}
        offsets, lengths = (tuple(values[r] for r in rows) for values in (self.offsets, self.lengths))
        return Layout(offsets, lengths, self.width, groups, {k: v[list(rows)] for k, v in self.regions.items()})

    @property
    def padded(self) -> bool:
        return any(n != self.width for n in self.lengths)

    @property
    def rows(self) -> int:
        return len(self.lengths)

    def positions(self, where: Where, row: int, step: int = 0) -> list[int]:
        """The positions that `where` selects in one row, whatever it says of rows and steps.

        A token that was the last one when it came in (of the prompt, or at a decoding step) counts as position -1.

        Raises:
            UnknownName: if the group does not exist.
            BadInput: if a negative position lies before the row.
        """
        length = self.lengths[row]
        written = list(range(length, length + step))
        if where.group in self.groups:
            return list(self.groups[where.group or ""][row])
        if where.group is not None:
            if where.group == "first":
                return [0]
            if where.group == "last":
                return [length - 1, *written]
            raise UnknownName.among("token group", where.group, [*self.groups, "first", "last"])
        if where.positions is None:
            return [*range(length), *written]
        out = [p + length if p < 0 else p for p in where.positions]
        if min(out, default=0) < 0:
            raise BadInput(f"expected positions within a row of {length} tokens; got {list(where.positions)}")
        out = [p for p in out if p < length + step]  # rows that are shorter are not reached
        return sorted({*out, *written}) if -1 in where.positions else out

    def mask(self, where: Where, size: int, step: int) -> Tensor | None:
        """Which columns of a tensor `where` selects.

        The last column is the newest token, so the same holds for whole sequences, for the one token of a cached step,
        and for keys with or without those of the cache. ``steps`` are the decoding steps at which a token came in.

        Args:
            where: the part.
            size: the tensor's number of columns.
            step: the decoding step, 0 for the prefill.

        Returns:
            (batch, size) bool on the CPU, or None for everything.
        """
        if where == Where():
            return None
        if where.rows is not None and any(not 0 <= r < self.rows for r in where.rows):
            raise BadInput(f"expected rows within a batch of {self.rows}; got {list(where.rows)}")
        first = self.width + step - size
        mask = torch.zeros(self.rows, size, dtype=torch.bool)
        held = [where.holds_at(max(0, first + c - self.width + 1)) for c in range(size)]
        for row in range(self.rows) if where.rows is None else where.rows:
            if where.positions is None and where.group is None:
                mask[row] = True
                continue
            for position in self.positions(where, row, step):
                column = position + self.offsets[row] - first
                if 0 <= column < size:
                    mask[row, column] = True
        return mask & torch.tensor(held)
