# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""A network made by hand in which one class is decided by one channel of each layer, and images for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openwork import network
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.worlds.picture_array import PictureArray

CHAIN = (2, 5, 7)
"""The channel of each layer that red goes through."""
WIDTH, SIDE = 10, 12


class Chain(nn.Module):
    """Three layers of channels; class 0 is what the chain carries, 1 and 2 the opposite sums of all others."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.layers = nn.ModuleList()
        self.acts = nn.ModuleList(nn.ReLU() for _ in CHAIN)
        before = None
        for i, channel in enumerate(CHAIN):
            conv = nn.Conv2d(3 if i == 0 else WIDTH, WIDTH, 3 if i == 0 else 1, padding=int(i == 0))
            with torch.no_grad():
                weight = 0.3 * torch.randn(conv.weight.shape, generator=generator)
                weight[channel] = 0
                if before is None:
                    weight[channel, :, 1, 1] = torch.tensor([1.0, -0.5, -0.5])
                else:
                    weight[:, before] = 0
                    weight[channel, before] = 2.0
                conv.weight.copy_(weight)
                conv.bias.copy_(0.3 * torch.rand(WIDTH, generator=generator))
                conv.bias[channel] = 0
            self.layers.append(conv)
            before = channel
        self.head = nn.Linear(WIDTH, 3)
        with torch.no_grad():
            rest = 0.05 * torch.randn(WIDTH, generator=generator)
            rest[CHAIN[-1]] = 0
            self.head.weight.copy_(torch.stack((torch.zeros(WIDTH), rest, -rest)))
            self.head.weight[0, CHAIN[-1]] = 20.0
            self.head.bias.copy_(torch.tensor([-0.4, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return self.head(x.mean((2, 3)))


SITES = tuple(f"module:acts.{i}.out" for i in range(3))
EDGES = {(f"{SITES[i]}[{CHAIN[i]}]", f"{SITES[i + 1]}[{CHAIN[i + 1]}]") for i in range(2)}


def opened() -> Network:
    return network.open(Chain().eval(), example={"x": torch.zeros(2, 3, SIDE, SIDE)}, images=ImageFormat())


def images(count: int = 120, seed: int = 0) -> PictureArray:
    """A square of red, green or blue on grey noise, with its mask."""
    generator = torch.Generator().manual_seed(seed)
    values = 0.4 + 0.05 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % 3
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    for i, label in enumerate(labels.tolist()):
        y, x = (int(n) for n in torch.randint(1, SIDE - 5, (2,), generator=generator))
        values[i, :, y : y + 4, x : x + 4] = 0.1
        values[i, label, y : y + 4, x : x + 4] = 0.8 + 0.2 * float(torch.rand((), generator=generator))
        mask[i, y : y + 4, x : x + 4] = label + 1
    pixels = (255 * values).round().to(torch.uint8)
    names = ("red", "green", "blue")
    return PictureArray(pixels, "squares", {"object": names}, {"object": mask}, labels, names)
