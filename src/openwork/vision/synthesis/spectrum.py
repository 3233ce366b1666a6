"""The mean magnitude of the frequencies of pictures: what phases are hung on by MACO.

Spectrum.of(pictures)            # of a corpus of your own
shapes_spectrum()                # the default: of the scenes of `openwork.worlds.shapes`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Array
from openwork.errors import BadInput
from openwork.pictures import Pictures
from openwork.vision.synthesis.colour import IMAGENET, Colour
from openwork.vision.synthesis.parameterisation import spectrum_of

SCENES = 256
BATCH = 64


@dataclass(frozen=True)
class Spectrum:
    """Mean magnitudes over a corpus, of its components of colour before the sigmoid.

    Args:
        magnitude: (channel, fy, fx) as a real transform gives them, an `Array`.
        width: of the pictures in pixels, which the number of columns leaves open.
        colour: the colours whose components they are of.
        name: of the corpus.
    """

    magnitude: Any
    width: int
    colour: Colour
    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "magnitude", Array.of(self.magnitude))
        shape = self.magnitude.shape
        if len(shape) != 3 or shape[2] != self.width // 2 + 1 or float(self.magnitude.numpy().min()) < 0:
            raise BadInput(f"expected magnitudes (channel, y, {self.width // 2 + 1}) of at least 0; got {shape}")

    @classmethod
    def of(cls, pictures: Pictures, colour: Colour = IMAGENET, rows: Sequence[int] | None = None) -> Spectrum:
        """The spectrum of a corpus, or of some of its rows.

        Raises:
            BadInput: if there are no pictures.
        """
        rows = range(len(pictures)) if rows is None else rows
        if not len(rows):
            raise BadInput(f"expected pictures in {pictures.name}; there are none")
        total, width = 0, 0
        for first in range(0, len(rows), BATCH):
            pixels = pictures.pixels(rows[first : first + BATCH]).double() / 255
            total = total + spectrum_of(colour.of(pixels.shape[1]).components(pixels)).abs().sum(0)
            width = pixels.shape[-1]
        return cls(Array.of(total / len(rows)), width, colour, pictures.name)

    def at(self, height: int, width: int) -> Float[Tensor, "channel fy fx"]:
        """The magnitudes of pictures of another size: at each frequency in cycles a pixel what this one has there.

        Frequencies between two of this one get what lies between the logarithms of their magnitudes. Magnitudes grow
        with the number of pixels as those of noise do; a picture that is standardised loses their scale anyway.
        """
        return _resized(self, height, width)


@lru_cache(maxsize=16)
def _resized(spectrum: Spectrum, height: int, width: int) -> Float[Tensor, "channel fy fx"]:
    from scipy.interpolate import RegularGridInterpolator

    given = spectrum.magnitude.numpy().astype(np.float64)
    rows = np.fft.fftshift(np.fft.fftfreq(given.shape[1]))
    columns = np.fft.rfftfreq(spectrum.width)
    logs = np.log(np.fft.fftshift(given, axes=1) + 1e-12)
    if given.shape[1] % 2 == 0:  # half a cycle upwards is half a cycle downwards
        rows, logs = np.append(rows, 0.5), np.concatenate((logs, logs[:, :1]), 1)
    wanted = np.stack(np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij"), -1)
    wanted[..., 0] = wanted[..., 0].clip(rows[0], rows[-1])
    wanted[..., 1] = wanted[..., 1].clip(columns[0], columns[-1])
    found = [np.exp(RegularGridInterpolator((rows, columns), channel)(wanted)) for channel in logs]
    scale = np.sqrt(height * width / (given.shape[1] * spectrum.width))
    return torch.tensor(np.stack(found) * scale, dtype=torch.float32)


@cache
def shapes_spectrum() -> Spectrum:
    """The spectrum of scenes of the world of shapes, computed once in a process."""
    from openwork.worlds.shapes import Shapes

    return Spectrum.of(Shapes(split="train", count=SCENES))
