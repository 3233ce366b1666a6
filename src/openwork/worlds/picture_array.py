"""Images in memory as a corpus, with masks and classes where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from openwork.errors import BadInput
from openwork.pictures import Rows
from openwork.store.hashing import hash_json, hash_state


@dataclass(frozen=True, eq=False)
class PictureArray:
    """Images in memory; `Masked` if masks and labels are given.

    Args:
        values: bytes (image, channel, y, x).
        name: what to call them in results.
        concepts: category -> names of its concepts.
        regions: category -> (image, y, x), see `Masked.masks`.
        labels: (image,) classes.
        class_names: their names.

    Raises:
        BadInput: if shapes, dtypes or ids do not fit.
    """

    values: UInt8[Tensor, "image channel y x"]
    name: str = "images"
    concepts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, _, *size = self.values.shape
        if not n:
            raise BadInput("expected at least one image; got none")
        if set(self.regions) != set(self.concepts):
            raise BadInput(f"expected masks for {sorted(self.concepts)}; got them for {sorted(self.regions)}")
        for category, mask in self.regions.items():
            if tuple(mask.shape) != (n, *size):
                raise BadInput(f"expected masks of {category} of shape {(n, *size)}; got {tuple(mask.shape)}")
            low, high = (int(v) for v in torch.aminmax(mask))
            if low < 0 or high > len(self.concepts[category]):
                raise BadInput(f"expected ids of {category} from 0 to {len(self.concepts[category])}; got {low}–{high}")
        if self.labels is not None and len(self.labels) != n:
            raise BadInput(f"expected {n} labels; got {len(self.labels)}")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def digest(self) -> str:
        """sha256 of all that it holds."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        held = {"values": self.values, **{f"mask {name}": mask for name, mask in self.regions.items()}}
        if self.labels is not None:
            held["labels"] = self.labels
        return hash_json([hash_state(held), {k: list(v) for k, v in self.concepts.items()}, list(self.class_names)])

    def pixels(self, rows: Rows) -> UInt8[Tensor, "image channel y x"]:
        """See `Pictures`."""
        return self.values[list(rows)]

    def masks(self, rows: Rows) -> dict[str, Int[Tensor, "image y x"]]:
        """See `Masked`."""
        return {category: mask[list(rows)] for category, mask in self.regions.items()}

    def classes(self, rows: Rows) -> Int[Tensor, " image"]:
        """See `Masked`.

        Raises:
            BadInput: if there are no classes.
        """
        if self.labels is None:
            raise BadInput(f"expected {self.name} to say what class each image is of; it has no labels")
        return self.labels[list(rows)]
