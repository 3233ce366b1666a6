"""Images as a network's input: what it wants at its door (`ImageFormat`) and where images come from (`Pictures`).

Everywhere but at that door, images are RGB in [0, 1] with axes (image, channel, y, x), or the same as bytes. So a user
sees what a camera saw, never what a model's normalisation made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from openwork.errors import BadInput

Rows = Sequence[int]


@dataclass(frozen=True)
class ImageFormat:
    """What a network wants of an image: the pixels minus `mean`, over `sd`, its channels in `order`.

    Args:
        size: (height, width) that it reads; None if it reads any.
        mean: of each channel in RGB order, for pixels in [0, 1].
        sd: likewise.
        order: of the channels that it reads.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    sd: tuple[float, ...] = (1.0, 1.0, 1.0)
    order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.sd) != len(self.mean) or min(self.sd) <= 0:
            raise BadInput(f"expected a mean and a positive sd for 1 or 3 channels; got {self.mean} and {self.sd}")
        if self.order not in ("RGB", "BGR"):
            raise BadInput(f"expected the order RGB or BGR; got {self.order!r}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise BadInput(f"expected a size as (height, width); got {self.size}")

    @property
    def channels(self) -> int:
        """The number of channels that the network reads: 3, or 1 of grey images."""
        return len(self.mean)

    def encode(self, pixels: Float[Tensor, "image channel y x"]) -> Float[Tensor, "image channel y x"]:
        """What the network reads for these pixels; differentiable.

        Args:
            pixels: RGB (or grey) in [0, 1], of the network's size.

        Raises:
            BadInput: if the axes, the range, or the size do not fit. Nothing is resized in silence.
        """
        if pixels.shape[1] != self.channels:
            last = " The channels seem to be the last axis." if pixels.shape[-1] == self.channels else ""
            raise BadInput(f"expected images (image, {self.channels}, y, x); got {tuple(pixels.shape)}.{last}")
        if self.size is not None and tuple(pixels.shape[-2:]) != tuple(self.size):
            raise BadInput(
                f"expected images of {self.size[0]} x {self.size[1]} pixels; got {pixels.shape[-2]} x "
                f"{pixels.shape[-1]}. Crop or resize them yourself, or give Photographs(..., size=)"
            )
        low, high = (float(x) for x in torch.aminmax(pixels.detach()))
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # also where NaN
            raise BadInput(
                f"expected pixels in [0, 1]; got {low:.3g} to {high:.3g}. Divide bytes by 255, and leave the "
                "network's own normalisation to this format"
            )
        mean, sd = (torch.tensor(v).to(pixels)[:, None, None] for v in (self.mean, self.sd))
        values = (pixels - mean) / sd
        return values.flip(1) if self.order == "BGR" else values

    def decode(self, values: Float[Tensor, "image channel y x"]) -> Float[Tensor, "image channel y x"]:
        """The pixels that `encode` makes these values of, for display; in [0, 1] only where they came from there."""
        if values.shape[1] != self.channels:
            raise BadInput(f"expected values (image, {self.channels}, y, x); got {tuple(values.shape)}")
        values = values.flip(1) if self.order == "BGR" else values
        mean, sd = (torch.tensor(v).to(values)[:, None, None] for v in (self.mean, self.sd))
        return values * sd + mean

    def to_json(self) -> dict[str, Any]:
        """A record for `from_json`."""
        return {
            "size": list(self.size) if self.size else None,
            "mean": list(self.mean),
            "sd": list(self.sd),
            "order": self.order,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ImageFormat:
        """Read a record of `to_json`.

        Raises:
            BadInput: if it is none.
        """
        try:
            size = tuple(int(n) for n in record["size"]) if record["size"] else None
            mean, sd = (tuple(float(v) for v in record[key]) for key in ("mean", "sd"))
            return cls(size, mean, sd, record["order"])  # pyright: ignore[reportArgumentType]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"expected an image format (size, mean, sd, order); got {dict(record)!r:.200}") from error


@runtime_checkable
class Pictures(Protocol):
    """A corpus of images of one size, read row by row so that it need not fit into memory."""

    @property
    def name(self) -> str:
        """What to call it in results."""
        ...

    @property
    def digest(self) -> str:
        """A sha256 that changes when any pixel does."""
        ...

    def __len__(self) -> int: ...

    def pixels(self, rows: Rows) -> UInt8[Tensor, "image channel y x"]:
        """RGB bytes of some images."""
        ...


@runtime_checkable
class Masked(Pictures, Protocol):
    """A corpus that says of every pixel what it shows, and of every image its class."""

    @property
    def concepts(self) -> Mapping[str, tuple[str, ...]]:
        """Category -> the names of its concepts."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        ...

    def masks(self, rows: Rows) -> Mapping[str, Int[Tensor, "image y x"]]:
        """Category -> what each pixel shows: k for ``concepts[category][k - 1]``, 0 where nothing is said."""
        ...

    def classes(self, rows: Rows) -> Int[Tensor, " image"]:
        """The class of each image."""
        ...
