"""Which axes of a recorded tensor are examples and positions, told from how it grows with the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from openwork.errors import OpenworkError
from openwork.network.paths import Path, leaves, replaced


class NotSpread(OpenworkError):
    """A recorded tensor cannot be cut to some of its tokens."""


@dataclass(frozen=True)
class Spread:
    """The axes of one tensor.

    Args:
        batch: the axis of examples, or None if it has none.
        position: the axis of positions.
        flat: whether both are one axis, `batch`, examples outermost.
        square: whether it has two axes of positions, as masks have.
    """

    batch: int | None = None
    position: int | None = None
    flat: bool = False
    square: bool = False

    @classmethod
    def of(cls, shape: torch.Size, more_rows: torch.Size, fewer_positions: torch.Size) -> Spread:
        """Tell the axes from the shapes in three runs: the second on twice the rows, the third on shorter ones."""
        if not len(shape) == len(more_rows) == len(fewer_positions):
            raise NotSpread(f"its number of axes changes with the inputs: {tuple(shape)}, {tuple(more_rows)}")
        rows = [i for i, (a, b) in enumerate(zip(shape, more_rows, strict=True)) if a != b]
        positions = [i for i, (a, b) in enumerate(zip(shape, fewer_positions, strict=True)) if a != b]
        if len(rows) > 1 or any(more_rows[i] != 2 * shape[i] for i in rows) or len(positions) > 2:
            raise NotSpread(f"its axes cannot be told: {tuple(shape)}, {tuple(more_rows)}, {tuple(fewer_positions)}")
        batch = rows[0] if rows else None
        if len(positions) == 2:
            return cls(batch, None, square=True)
        position = positions[0] if positions else None
        return cls(batch, None, flat=True) if batch is not None and batch == position else cls(batch, position)

    @property
    def along(self) -> int | None:
        """The axis that tokens lie along in what `tokens` gives, or None if it has none."""
        return self.batch if self.flat else self.position

    def rows(self, value: Tensor, examples: Tensor, count: int, shared: bool = False) -> Tensor:
        """The value for some of the `count` examples.

        Args:
            value: the tensor.
            examples: (example,) which.
            count: how many it holds.
            shared: whether a view of the tensor will do where one can be had, since nobody writes to it.
        """
        if self.batch is None:
            return value
        width = value.shape[self.batch] // count if self.flat else 1
        if shared and (self.batch == 0 or len(examples) == count) and bool((examples.diff() == 1).all()):
            return value.narrow(self.batch, width * int(examples[0]), width * len(examples))
        examples = examples.to(value.device)
        if not self.flat:
            return value.index_select(self.batch, examples)
        index = (examples[:, None] * width + torch.arange(width, device=value.device)).flatten()
        return value.index_select(self.batch, index)

    def tokens(self, value: Tensor, example: Tensor, position: Tensor, width: int) -> Tensor | None:
        """The value for single tokens, as if they were one long row; None for what has no meaning then (masks).

        Args:
            value: the tensor.
            example: (token,) which example each is of.
            position: (token,) its position there.
            width: the number of positions.

        Raises:
            NotSpread: if it differs by example but not by position.
        """
        if self.square:
            return None
        example, position = example.to(value.device), position.to(value.device)
        if self.flat:
            assert self.batch is not None
            return value.index_select(self.batch, example * width + position)
        if self.position is None:
            if self.batch is not None and value.shape[self.batch] > 1:
                raise NotSpread(f"a tensor of shape {tuple(value.shape)} differs by example but not by position")
            return value
        if self.batch is None:
            return value.index_select(self.position, position)
        picked = value.movedim((self.batch, self.position), (0, 1))[example, position]
        return picked.unsqueeze(0).movedim((0, 1), (self.batch, self.position))


def spreads(value: Any, more_rows: Any, fewer_positions: Any) -> dict[Path, Spread]:
    """The axes of every tensor in a nested value, from the same value in three runs (see `Spread.of`)."""
    others = [dict(leaves(other)) for other in (more_rows, fewer_positions)]
    out: dict[Path, Spread] = {}
    for path, leaf in leaves(value):
        shapes = [other[path].shape for other in others if path in other]
        if len(shapes) < 2:
            raise NotSpread(f"the tensor at {path} is not there in every run")
        out[path] = Spread.of(leaf.shape, *shapes)
    return out


def for_rows(value: Any, axes: Mapping[Path, Spread], examples: Tensor, count: int, shared: bool = False) -> Any:
    """A nested value for some of the examples; see `Spread.rows`."""
    for path, leaf in list(leaves(value)):
        value = replaced(value, path, axes[path].rows(leaf, examples, count, shared))
    return value


def for_tokens(value: Any, axes: Mapping[Path, Spread], example: Tensor, position: Tensor, width: int) -> Any:
    """A nested value for single tokens, as one long row."""
    for path, leaf in list(leaves(value)):
        spread = axes.get(path)
        if spread is None:
            if leaf.ndim < 2 or leaf.shape[-1] != width or leaf.shape[-2] not in (1, width):
                raise NotSpread(f"the tensor at {path} was not there when the axes were told")
            spread = Spread(square=True)  # a mask that short inputs do without
        value = replaced(value, path, spread.tokens(leaf, example, position, width))  # type: ignore[arg-type]
    return value
