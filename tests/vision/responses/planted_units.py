"""Networks whose units are known: filters made by hand, a detector of one colour, a unit that is noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import openwork as ow
from openwork.pictures import ImageFormat
from openwork.vision.responses.stimuli import draw
from openwork.worlds.picture_array import PictureArray

FIELD, SIZE = 11, 16
GABORS = ((0.0, 0.14), (30.0, 0.14), (75.0, 0.23))
HUES = (0.0, 120.0)
BEND, RADIUS = 135.0, 4.0


def gabor(angle: float, frequency: float) -> Tensor:
    """A grating under a bump, its bars at an angle counter-clockwise from the right."""
    reach = torch.arange(FIELD).float() - FIELD // 2
    up, right = torch.meshgrid(-reach, reach, indexing="ij")
    turn = np.radians(angle + 90)
    across = right * np.cos(turn) + up * np.sin(turn)
    wave = torch.exp(-(right**2 + up**2) / 18) * torch.cos(2 * torch.pi * frequency * across)
    return wave - wave.mean()


class Filters(nn.Module):
    """Three Gabors, two colours against the rest, and one curve, each through a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, FIELD, padding=FIELD // 2)
        self.act = nn.ReLU()
        self.head = nn.Linear(6, 2)
        with torch.no_grad():
            assert self.conv.bias is not None
            self.conv.bias.zero_()
            for i, one in enumerate(GABORS):
                self.conv.weight[i] = gabor(*one)
            for i, colour in enumerate([(1.0, -0.5, -0.5), (-0.5, 1.0, -0.5)], 3):
                self.conv.weight[i] = torch.tensor(colour)[:, None, None] * torch.ones(FIELD, FIELD)
            where = (FIELD // 2 * 1.0, FIELD // 2 * 1.0)
            arc = draw("arc", {"orientation": [BEND], "radius": [RADIUS], "width": [2.0]}, (FIELD, FIELD), where)[0]
            self.conv.weight[5] = arc - arc.mean()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.conv(images)).mean((2, 3)))


class Detectors(nn.Module):
    """Units that answer to the mean red, green, blue and grey of 3 x 3 pixels; the second output is a hash."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.noise = Hash()
        self.head = nn.Linear(5, 2)
        self.broken = broken
        with torch.no_grad():
            assert self.conv.bias is not None
            self.conv.bias.zero_()
            self.conv.weight.zero_()
            for i in range(3):
                self.conv.weight[i] = -1 / 18
                self.conv.weight[i, i] = 1 / 9
            self.conv.weight[3] = 1 / 27
            self.head.weight.zero_()
            self.head.weight[0, 0] = self.head.weight[1, 4] = 1.0

    def forward(self, images: Tensor) -> Tensor:
        hashed = self.noise(images)
        if self.broken:
            hashed = hashed / (images.mean((1, 2, 3))[:, None] > 0.01)
        return self.head(torch.cat([self.conv(images).mean((2, 3)), hashed], 1))


class Hash(nn.Module):
    """A number in [0, 1) that any change of the image changes at random."""

    def forward(self, images: Tensor) -> Tensor:
        weights = torch.linspace(1.0, 2.0, images[0].numel(), dtype=torch.float64).view_as(images[0])
        total = (images.double() * weights).sum((1, 2, 3))[:, None] * 54321.0
        return (total - total.floor()).to(images.dtype)


def opened(module: nn.Module, size: int = SIZE) -> ow.Network:
    """A network of images in [0, 1]."""
    example = {"images": torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))}
    return ow.open(module.eval(), example=example, images=ImageFormat((size, size)), name="planted")


def squares(n: int, seed: int = 0) -> PictureArray:
    """Dark noise, and in each image one square of a colour and brightness of its own."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 40, (n, 3, SIZE, SIZE)).astype(np.uint8)
    for image in values:
        y, x = rng.integers(1, SIZE - 6, 2)
        image[:, y : y + 5, x : x + 5] = rng.integers(30, 256, 3)[:, None, None]
    return PictureArray(torch.tensor(values), "squares")
