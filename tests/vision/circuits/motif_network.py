# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""A network made by hand with one motif of each kind, and images for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from openwork import network
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.vision.circuits.turns import Turn, turned
from openwork.worlds.picture_array import PictureArray

SIDE, FIELD = 25, 9
ANGLES = (0.0, 45.0, 90.0, 135.0)
CONCEPTS = ("red", "blue", "bars")


def gabor(phase: float = 0.0) -> Tensor:
    """(1, 1, y, x): an even or odd grating in a round window that sums to nothing."""
    r = torch.arange(FIELD) - FIELD // 2
    window = torch.exp(-(r[:, None] ** 2 + r[None] ** 2) / 8.0)
    wave = window * torch.cos(2 * math.pi * 0.2 * r[None] + phase)
    wave = wave - window * wave.sum() / window.sum()
    return (wave / wave.norm())[None, None]


class Motifs(nn.Module):
    """Channels 0-3 are one Gabor at four angles, 4 is red minus blue, 5 a blob, 6-11 are random.

    Of the second layer, unit 0 is the union of 0-3, 1 detects red and reads 4 with a positive weight, 2 detects blue
    and reads 4 with a negative weight, 3-5 are random readers of the random channels.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = nn.Conv2d(3, 12, FIELD, padding=FIELD // 2, padding_mode="reflect")  # so that ends are no edges
        self.act = nn.ReLU()
        self.second = nn.Conv2d(12, 6, 1)
        self.last = nn.ReLU()
        self.head = nn.Linear(6, 2)
        with torch.no_grad():
            weight = 0.15 * torch.randn(12, 3, FIELD, FIELD, generator=generator)
            for i, angle in enumerate(ANGLES):
                weight[i] = turned(gabor(), Turn(angle))[0].expand(3, -1, -1)
            blob = torch.exp(-((torch.arange(FIELD) - FIELD // 2) ** 2) / 6.0)
            blob = blob[:, None] * blob[None] / 4
            weight[4] = torch.stack((blob, 0 * blob, -blob))
            weight[5] = blob / 3
            self.first.weight.copy_(weight)
            self.first.bias.zero_()
            self.first.bias[4] = 3.0  # so that both its signs come through
            mixed = torch.zeros(6, 12)
            mixed[0, :4] = 1.0
            mixed[1, 4], mixed[2, 4] = 1.0, -1.0
            mixed[3:, 6:] = torch.randn(3, 6, generator=generator)
            self.second.weight.copy_(mixed[:, :, None, None])
            self.second.bias.copy_(torch.tensor([0.0, -3.0, 3.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.second(self.act(self.first(x)))).mean((2, 3)))


def opened(module: nn.Module | None = None, side: int = SIDE) -> Network:
    """The network, which reads pixels as they are."""
    module = (module or Motifs()).eval()
    return network.open(module, example={"x": torch.zeros(2, 3, side, side)}, images=ImageFormat())


def images(count: int, seed: int = 0) -> PictureArray:
    """A patch of bars at one of four angles, or of red, or of blue, on faint noise; with masks of which."""
    generator = torch.Generator().manual_seed(seed)
    values = 0.5 + 0.02 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    kinds = torch.randint(0, 6, (count,), generator=generator)
    for i, kind in enumerate(kinds.tolist()):
        y, x = (int(n) for n in torch.randint(5, SIDE - 5 - 1, (2,), generator=generator))
        spot = (slice(y - 4, y + 5), slice(x - 4, x + 5))
        if kind < 4:
            values[(i, slice(None), *spot)] += turned(gabor(), Turn(ANGLES[kind]))[0, 0]
        else:
            values[(i, 0 if kind == 4 else 2, *spot)] += 0.4
        mask[(i, *spot)] = {4: 1, 5: 2}.get(kind, 3)
    pixels = (255 * values.clamp(0, 1)).round().to(torch.uint8)
    return PictureArray(pixels, "patches", {"thing": CONCEPTS}, {"thing": mask})
