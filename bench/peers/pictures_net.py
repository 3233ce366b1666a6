"""The residual network of `shapes-cnn` in torch alone, so that all tools run the same module with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same = stride == 1 and inputs == width
        down = (nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity() if same else nn.Sequential(*down)
        self.act2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(y + self.shortcut(x))


class Stem(nn.Module):
    """One convolution at full resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rectified."""
        return self.act(self.norm(self.conv(x)))


class PlainResidual(nn.Module):
    """Stem, stages, mean over places, linear readout.

    Args:
        classes: of the readout.
        widths: channels of each stage.
        blocks: of each stage.
    """

    def __init__(self, classes: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = Stem(widths[0])
        inputs, stages = widths[0], []
        for width, count in zip(widths, blocks, strict=True):
            stages.append(nn.Sequential(*(Block(width if i else inputs, width, 1 if i else 2) for i in range(count))))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(inputs, classes)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.flatten(self.pool(self.stages(self.stem(pixel_values)))))


def loaded(record: Mapping[str, Any]) -> PlainResidual:
    """The network of a case: its shape and the file of its weights."""
    net = PlainResidual(record["classes"], record["widths"], record["blocks"])
    net.load_state_dict(torch.load(record["weights"], weights_only=True))
    return net.eval()
