"""The residual networks of He et al. 2016 for CIFAR-10, trained, and test images (``vis_resnet_cifar10``).

Stages of 16, 32 and 64 channels, each of n basic blocks, after a 3×3 convolution; where a stage halves the picture, the
shortcut takes every second pixel and fills the new channels with zeros (option A of the paper). Then average pooling
and a linear map.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from openwork.network import Network
from openwork.task import Task

FOLDER, PICTURES = "vis_resnet_cifar10", "data_cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.new = stride, after - before

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and not self.new:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new // 2))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """6n + 2 layers."""

    def __init__(self, n: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(BasicBlock(before if i == 0 else after, after, stride if i == 0 else 1) for i in range(n)))
            for before, after, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def load(data: Path, layers: int = 20) -> ResNet:
    """The trained network of 20 or 56 layers."""
    path = next((data / FOLDER / "pretrained_models").glob(f"resnet{layers}-*.th"))
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module = ResNet((layers - 2) // 6)
    module.load_state_dict({name.removeprefix("module."): value for name, value in saved.items()})
    return module.eval()


def images_and_labels(data: Path) -> tuple[Tensor, Tensor]:
    """1,000 test images as the network reads them, (image, 3, 32, 32), and their classes, (image,)."""
    folder = data / PICTURES / "cifar10"
    pixels = np.array(Image.open(folder / "cifar10_batch_50.png").convert("RGB"))
    images = torch.from_numpy(pixels).reshape(-1, 32, 32, 3).permute(0, 3, 1, 2).float() / 255
    mean, sd = (torch.tensor(v)[:, None, None] for v in (MEAN, SD))
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    return (images - mean) / sd, torch.tensor(labels[-len(images) :])


def classes(net: Network, images: Tensor, labels: Tensor, clean: str, corrupted: str) -> Task:
    """Pairs of pictures of two classes, of those that the network classifies rightly."""
    right = net.run({"images": images}).logits.argmax(-1) == labels
    names = [CLASSES.index(name) for name in (clean, corrupted)]
    rows = [torch.nonzero(right & (labels == name)).flatten() for name in names]
    n = min(len(r) for r in rows)
    pair = [images[r[:n]] for r in rows]
    answers = ([name] * n for name in names)
    return Task.from_tensors(*pair, *answers, argument="images", name=f"{clean} or {corrupted}")
