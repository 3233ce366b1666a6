# pyright: reportArgumentType=false, reportCallIssue=false
"""Small networks that read images, each with some way of its own to hold their axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

CLASSES = 5


class Functional(nn.Module):
    """A residual block whose activations are functions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.norm(self.first(x)))))


class Convolutional(nn.Module):
    """A small residual CNN with a pool between its stem and its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList(Functional(8) for _ in range(2))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.pool(F.relu(self.c1(pixels)))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """An inverted residual with a depthwise convolution and a gate that has seen the whole map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * channels, 2 * channels, 1), nn.Sigmoid())
        self.shrink = nn.Conv2d(2 * channels, channels, 1)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.depthwise(self.act(self.expand(x))))
        return x + self.shrink(y * self.gate(y))


class Mobile(nn.Module):
    """A small network in the manner of MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Inverted(8) for _ in range(2)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.c1(pixels))).flatten(1))


class LastChannels(nn.Module):
    """Reads images with channels last, and turns them to and fro."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.c1(pixels.permute(0, 3, 1, 2))
        x = self.norm(x.permute(0, 2, 3, 1)).movedim(-1, 1)
        return self.head(self.c2(x).flatten(2).mean(2))


def resnet() -> nn.Module:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic", num_labels=CLASSES, image_size=32
    )
    return ResNetForImageClassification(config)


def convnext() -> nn.Module:
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2, num_labels=CLASSES, image_size=32)
    return ConvNextForImageClassification(config)


def swin() -> nn.Module:
    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=CLASSES
    )
    return SwinForImageClassification(config)


def vit() -> nn.Module:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=32, patch_size=8,
        num_labels=CLASSES,
    )  # fmt: skip
    return ViTForImageClassification(config)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "cnn": Convolutional,
    "last": LastChannels,
    "resnet": resnet,
    "convnext": convnext,
    "swin": swin,
    "vit": vit,
    "mobile": Mobile,
}


NEED_EXAMPLE = ("cnn", "last", "mobile")
"""Those whose only argument is no ``pixel_values`` of a configuration."""


def see(kind: str, seed: int = 0) -> nn.Module:
    """A network of one kind, with batch norms that do something."""
    torch.manual_seed(seed)
    module = KINDS[kind]().eval()
    for inner in module.modules():
        if isinstance(inner, nn.BatchNorm2d):
            nn.init.uniform_(inner.running_mean, -0.5, 0.5)
            nn.init.uniform_(inner.running_var, 0.5, 2)
    return module


def images(rows: int = 2, size: int = 32, seed: int = 0, last: bool = False) -> Tensor:
    """Values such as a network reads."""
    values = torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return values.permute(0, 2, 3, 1) if last else values
