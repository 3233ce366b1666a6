"""What is optimised: the numbers that a picture is made of. Each row has its own; none depends on its neighbours.

Source: Olah, Mordvintsev and Schubert 2017, Feature Visualization; Mordvintsev et al. 2018, Differentiable Image
Parameterizations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional as F

from openwork.errors import BadInput
from openwork.vision.synthesis.objective import Rows

Numbers = dict[str, Tensor]
LUCID_DIVISOR = 4.0
"""What Lucid divides a picture by, so that its first steps stay where the sigmoid is steep."""


@dataclass(frozen=True)
class Shape:
    """Of the pictures that are made.

    Args:
        channels: colours, and one more for alpha if there is one.
        height: pixels.
        width: pixels.
    """

    channels: int
    height: int
    width: int


class Parameterisation(ABC):
    """How numbers become components of colour, before the colours are mixed and the sigmoid."""

    @abstractmethod
    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        """The numbers to begin with, one row each.

        Args:
            draws: one generator a row.
            rows: which of them are of one unit.
            shape: of the pictures.
        """

    @abstractmethod
    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        """The components that they stand for."""


def frequencies(height: int, width: int) -> Float[Tensor, "fy fx"]:
    """The frequency of each coefficient of a real transform, in cycles a pixel."""
    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])


def spectrum_of(picture: Float[Tensor, "*any y x"]) -> Complex[Tensor, "*any fy fx"]:
    """The coefficients of which `picture_of` makes the picture again, whether its sides are odd or even."""
    return torch.fft.rfft2(picture)


def picture_of(spectrum: Complex[Tensor, "*any fy fx"], height: int, width: int) -> Float[Tensor, "*any y x"]:
    """The picture of coefficients; its size must be said, for 2k and 2k + 1 columns have as many."""
    return torch.fft.irfft2(spectrum, s=(height, width))


@dataclass(frozen=True)
class Fourier(Parameterisation):
    """Coefficients of a Fourier transform, scaled down by frequency so that a step changes all scales alike.

    Args:
        decay: the power of the frequency that they are divided by.
        sd: of the coefficients to begin with.

    Source:
        Lucid, `fft_image`: scale 1 / max(f, 1 / max(H, W))^decay times sqrt(HW), picture divided by 4.
    """

    decay: float = 1.0
    sd: float = 0.01

    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        size = (shape.channels, shape.height, shape.width // 2 + 1, 2)
        return {"spectrum": self.sd * torch.stack([torch.randn(size, generator=g) for g in draws])}

    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        scaled = torch.view_as_complex(numbers["spectrum"]) * self.scale(shape).to(numbers["spectrum"])
        return picture_of(scaled, shape.height, shape.width) / LUCID_DIVISOR

    def scale(self, shape: Shape) -> Float[Tensor, "fy fx"]:
        """What each coefficient is multiplied by."""
        f = frequencies(shape.height, shape.width).clamp_min(1 / max(shape.height, shape.width))
        return math.sqrt(shape.height * shape.width) / f**self.decay


@dataclass(frozen=True)
class Pixels(Parameterisation):
    """The pixels themselves.

    Args:
        sd: of them to begin with.
    """

    sd: float = 0.01

    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        return {"pixels": self.sd * _normal(draws, shape.channels, shape.height, shape.width)}

    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        return numbers["pixels"]


@dataclass(frozen=True)
class Pyramid(Parameterisation):
    """A Laplacian pyramid: the sum of pictures each half as large as the one before, all brought to one size.

    Args:
        levels: how many.
        sd: of their pixels to begin with.

    Source:
        Lucid, `laplacian_pyramid`.
    """

    levels: int = 4
    sd: float = 0.1

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise BadInput(f"expected at least one level; got {self.levels}")

    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        return {
            f"level{k}": self.sd * _normal(draws, shape.channels, -(-shape.height // 2**k), -(-shape.width // 2**k))
            for k in range(self.levels)
        }

    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        levels = [_resized(numbers[f"level{k}"], shape) for k in range(self.levels)]
        return torch.stack(levels).sum(0)


@dataclass(frozen=True)
class Shared(Parameterisation):
    """Each picture's own numbers plus coarse pictures that all variants of a unit have in common, so that they agree.

    Args:
        own: what each has for itself.
        factors: how many times smaller the common ones are.
        sd: of their pixels to begin with.

    Source:
        Mordvintsev et al. 2018, section on aligned interpolation; Lucid, `lowres_tensor`.
    """

    own: Parameterisation = field(default_factory=Fourier)
    factors: tuple[int, ...] = (2, 4, 8)
    sd: float = 0.01

    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        own = {f"own.{name}": value for name, value in self.own.start(draws, rows, shape).items()}
        first = [draws[group[0]] for group in rows.groups()]
        common = {
            f"common{f}": self.sd * _normal(first, shape.channels, -(-shape.height // f), -(-shape.width // f))
            for f in self.factors
        }
        return {**own, **common}

    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        own = {name.removeprefix("own."): value for name, value in numbers.items() if name.startswith("own.")}
        picture = self.own.components(own, rows, shape)
        unit = torch.zeros(len(picture), dtype=torch.long, device=picture.device)
        for number, group in enumerate(rows.groups()):
            unit[group] = number
        return picture + torch.stack([_resized(numbers[f"common{f}"], shape)[unit] for f in self.factors]).sum(0)


@dataclass(frozen=True)
class Cppn(Parameterisation):
    """A network of its own from places to colours: pictures without pixels, smooth at every size.

    Args:
        layers: hidden ones.
        width: their units.

    Source:
        Mordvintsev et al. 2018, CPPN section: 8 layers of 24, each a = atan(x) passed on as (a / 0.67, a² / 0.6), the
        last one zero to begin with; places within ±sqrt(3).
    """

    layers: int = 8
    width: int = 24

    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        numbers: Numbers = {}
        inputs = 2
        for layer in range(self.layers):
            numbers[f"weight{layer}"] = _normal(draws, inputs, self.width) / math.sqrt(inputs)
            numbers[f"bias{layer}"] = torch.zeros(len(draws), 1, self.width)
            inputs = 2 * self.width
        numbers["last"] = torch.zeros(len(draws), inputs, shape.channels)
        numbers["offset"] = torch.zeros(len(draws), 1, shape.channels)
        return numbers

    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        some = numbers["last"]
        side = math.sqrt(3.0)
        axes = (torch.linspace(-side, side, n).to(some) for n in (shape.height, shape.width))
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 2)
        value = places.expand(len(some), -1, -1)
        for layer in range(self.layers):
            value = torch.atan(torch.baddbmm(numbers[f"bias{layer}"], value, numbers[f"weight{layer}"]))
            value = torch.cat([value / 0.67, value.square() / 0.6], -1)
        out = torch.baddbmm(numbers["offset"], value, some)
        return out.transpose(1, 2).reshape(len(out), shape.channels, shape.height, shape.width)


@dataclass(frozen=True, eq=False)
class Moved(Parameterisation):
    """A given picture plus what another parameterisation adds to it; with ``sd=0`` it begins as the picture itself.

    Args:
        added: what is added.
        given: components of the picture, or of one for each row.
    """

    added: Parameterisation
    given: Float[Tensor, "*row channel y x"]

    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        return self.added.start(draws, rows, shape)

    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        added = self.added.components(numbers, rows, shape)
        given, more = self.given.to(added), added.shape[1] - self.given.shape[-3]
        if more:  # alpha begins at one half
            given = F.pad(given, (0, 0, 0, 0, 0, more))
        return given + added


def _normal(draws: Sequence[torch.Generator], *size: int) -> Tensor:
    return torch.stack([torch.randn(size, generator=g) for g in draws])


def _resized(picture: Tensor, shape: Shape) -> Tensor:
    if picture.shape[-2:] == (shape.height, shape.width):
        return picture
    return F.interpolate(picture, (shape.height, shape.width), mode="bilinear", align_corners=False)
