"""First layers of networks that others trained: oriented edges and blobs of colour, against their shuffled selves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import openwork as ow
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.responses.tuning import Tuning, tune

from .pictures import MEAN, SD, load

pytestmark = pytest.mark.extended
DARKNET = "vis_tinydarknet_imagenet/darknettiny"
METHOD = Tuning(claims=16, size=(16, 16))


class FirstLayer(nn.Module):
    """A first convolution, and the mean of each of its maps."""

    def __init__(self, kernel: Tensor):
        super().__init__()
        self.conv1 = nn.Conv2d(3, len(kernel), kernel.shape[-1], padding=1, bias=False)
        with torch.no_grad():
            self.conv1.weight.copy_(kernel)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv1(images).mean((2, 3))


def darknet(data: Path) -> Tensor:
    """The first kernel of Tiny Darknet, (channel, colour, y, x)."""
    folder = data / DARKNET
    groups = json.loads((folder / "model.json").read_text(encoding="utf-8"))["weightsManifest"]
    group = next(g for g in groups if any("conv2d_1/kernel" in w["name"] for w in g["weights"]))
    raw = b"".join((folder / path).read_bytes() for path in group["paths"])
    start = 0
    for weight in group["weights"]:
        size = int(np.prod(weight["shape"]))
        if "conv2d_1/kernel" in weight["name"]:
            values = np.frombuffer(raw, "<f4", size, start).reshape(weight["shape"])
            return torch.from_numpy(values.copy()).permute(3, 2, 0, 1)
        start += 4 * size
    raise AssertionError("no first kernel")


@pytest.fixture(scope="module", params=["ResNet-20", "Tiny Darknet"])
def net(request: pytest.FixtureRequest, data: Path) -> Network:
    ours = request.param == "ResNet-20"
    module = load(data) if ours else FirstLayer(darknet(data)).eval()
    images = ImageFormat((32, 32), MEAN, SD) if ours else ImageFormat()
    example = {"images": torch.rand(2, 3, *((32, 32) if ours else (16, 16)))}
    return ow.open(module, example=example, images=images, name=request.param)


def tuned(net: Network, feature: str) -> Result:
    """The first layer's channels against channels of shuffled weights."""
    method = METHOD if net.images is not None and net.images.size is None else Tuning(claims=16)
    return tune(net, "module:conv1.out", feature, method)


def test_first_filters_are_oriented_edges(net: Network) -> None:
    """Published of both, as of nearly every network."""
    result = tuned(net, "edge")
    assert sum(finding.verdict == "supported" for finding in result.findings) >= 3


def test_some_first_filters_are_blobs_of_colour(net: Network) -> None:
    table = tuned(net, "hue").table
    largest = np.sort(table["gain"].to_numpy().mean(1))[-2:]
    assert (largest > np.quantile(table["untrained_gain"].to_numpy()[0], 0.95)).all()
