"""A small residual network of convolutions that says what a picture is of.

Its modules are named by what they are, so that sites read well: ``module:stages.1.0.conv2.out`` is what the second
convolution of the first block of the second stage returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from openwork.errors import BadInput


@dataclass(frozen=True)
class ResidualConfig:
    """The shape of a `Residual`.

    Args:
        classes: number of classes.
        size: side of the images that it is made for, in pixels; it reads others.
        widths: channels of each stage; each stage halves height and width.
        blocks: residual blocks of each stage, as many entries as `widths`.

    Raises:
        BadInput: for sizes that no network has.
    """

    classes: int
    size: int = 64
    widths: Sequence[int] = (32, 64, 96)
    blocks: Sequence[int] = (1, 2, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        sizes = (self.classes, self.size, *self.widths, *self.blocks)
        if not self.widths or len(self.widths) != len(self.blocks) or min(sizes) < 1:
            raise BadInput(f"expected positive sizes, and a width and a number of blocks for each stage; got {self}")


@dataclass(frozen=True)
class ResidualOutput:
    """What a `Residual` returns.

    Attributes:
        logits: unnormalised log-probabilities of the classes, (image, class).
    """

    logits: Float[Tensor, "image class"]


class Block(nn.Module):
    """Two convolutions of 3 x 3 with batch norm, added to what they read.

    Args:
        inputs: channels that it reads.
        width: channels that it returns.
        stride: by which it shrinks height and width.
    """

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.act2 = nn.ReLU()

    def forward(self, x: Float[Tensor, "image channel y x"]) -> Float[Tensor, "image width row column"]:
        """The sum, rectified."""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(y + self.shortcut(x))


class Stem(nn.Module):
    """From colours to channels at full resolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()

    def forward(self, x: Float[Tensor, "image 3 y x"]) -> Float[Tensor, "image width y x"]:
        """One convolution, rectified."""
        return self.act(self.norm(self.conv(x)))


class Residual(nn.Module):
    """A residual network with a mean over places before its linear readout.

    Args:
        config: its shape.

    Source:
        He et al. 2016, Deep Residual Learning (section 4.2, of small images).
    """

    main_input_name = "pixel_values"

    def __init__(self, config: ResidualConfig):
        super().__init__()
        self.config = config
        self.stem = Stem(config.widths[0])
        inputs, stages = config.widths[0], []
        for width, blocks in zip(config.widths, config.blocks, strict=True):
            stages.append(nn.Sequential(*(Block(width if i else inputs, width, 1 if i else 2) for i in range(blocks))))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(inputs, config.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixel_values: Float[Tensor, "image 3 y x"]) -> ResidualOutput:
        """Say what images are of.

        Args:
            pixel_values: normalised as the network was trained.
        """
        return ResidualOutput(self.head(self.flatten(self.pool(self.stages(self.stem(pixel_values))))))
