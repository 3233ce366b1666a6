"""Colours whose components are uncorrelated over pictures, so that one step size suits all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.pictures import Pictures

NEAR = 1e-3
"""Pixels this near to 0 or 1 have no finite value before the sigmoid."""


@dataclass(frozen=True)
class Colour:
    """Pixels are the sigmoid of `matrix` times components.

    Args:
        name: what to call it.
        matrix: (channel, component).
    """

    name: str
    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        square = all(len(row) == len(self.matrix) for row in self.matrix)
        if not square or abs(np.linalg.det(np.array(self.matrix))) < 1e-9:
            raise BadInput(f"expected a square matrix that can be inverted; got {self.matrix}")

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.matrix)

    def mix(self, components: Float[Tensor, "row channel y x"]) -> Float[Tensor, "row channel y x"]:
        """What stands before the sigmoid."""
        return torch.einsum("dc,rcyx->rdyx", torch.tensor(self.matrix).to(components), components)

    def pixels(self, components: Float[Tensor, "row channel y x"]) -> Float[Tensor, "row channel y x"]:
        """Pixels in [0, 1]."""
        return torch.sigmoid(self.mix(components))

    def components(self, pixels: Float[Tensor, "row channel y x"]) -> Float[Tensor, "row channel y x"]:
        """What `pixels` makes these of; values within `NEAR` of 0 or 1 are moved there."""
        inverse = torch.tensor(np.linalg.inv(np.array(self.matrix))).to(pixels)
        return torch.einsum("dc,rcyx->rdyx", inverse, torch.logit(pixels.clamp(NEAR, 1 - NEAR)))

    def of(self, channels: int) -> Colour:
        """This one, or the single component of grey images.

        Raises:
            BadInput: if it is of another number of channels.
        """
        if channels == 1:
            return GREY
        if channels != self.channels:
            raise BadInput(f"expected colours of {channels} channels; {self.name} has {self.channels}")
        return self


def _scaled(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Divided by its largest column norm, as Lucid does."""
    return tuple(tuple(float(x) for x in row) for row in matrix / np.linalg.norm(matrix, axis=0).max())


GREY = Colour("grey", ((1.0,),))
PLAIN = Colour("plain", ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
"""Red, green and blue as they are."""
IMAGENET = Colour("ImageNet", _scaled(np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])))
"""The square root of the colour covariance of ImageNet (Lucid, `color_correlation_svd_sqrt`)."""
I1I2I3 = Colour(
    "I1I2I3", _scaled(np.linalg.inv(np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0, -0.5], [-0.25, 0.5, -0.25]])))
)
"""Source: Ohta, Kanade and Sakai 1980, Color information for region segmentation."""


def colours_of(pictures: Pictures, count: int = 512) -> Colour:
    """The square root of the colour covariance of a corpus, over the pixels of its first pictures.

    Args:
        pictures: the corpus.
        count: how many pictures are read.

    Raises:
        BadInput: if it is empty, or has fewer colours than channels.
    """
    if not len(pictures):
        raise BadInput(f"expected pictures in {pictures.name}; there are none")
    pixels = pictures.pixels(range(min(count, len(pictures)))).double() / 255
    flat = pixels.transpose(0, 1).flatten(1).numpy()
    if len(flat) == 1:
        return GREY
    vectors, values, _ = np.linalg.svd(np.cov(flat))
    if values[-1] < 1e-9:
        raise BadInput(f"expected colours that vary in every channel; those of {pictures.name} do not")
    return Colour(f"of {pictures.name}", _scaled(vectors * np.sqrt(values)))
