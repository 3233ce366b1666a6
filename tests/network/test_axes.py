"""The axes of what networks compute from images, followed from the image through every function."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openwork import network
from openwork.errors import SiteRefused
from openwork.network import Network

from .seeing import KINDS, NEED_EXAMPLE, images, see


@cache
def opened(kind: str) -> Network:
    given = {"pixels": images(last=kind == "last")} if kind in NEED_EXAMPLE else None
    return network.open(see(kind), example=given, name=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_convolutions_read_and_return_has_its_channels_first(kind: str) -> None:
    net = opened(kind)
    convolutions = {name: m for name, m in net.root.named_modules() if isinstance(m, nn.Conv2d)}
    assert convolutions
    for name, module in convolutions.items():
        for side, count in (("in", module.in_channels), ("out", module.out_channels)):
            assert net.map.info(f"module:{name}.{side}").axes == ("batch", "channel", "y", "x")
            assert net.parts(f"module:{name}.{side}") == count


@pytest.mark.parametrize("kind", KINDS)
def test_what_batch_norms_and_pools_return_has_its_channels_first(kind: str) -> None:
    net = opened(kind)
    for name, module in net.root.named_modules():
        if isinstance(module, (nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)):
            info = net.map.info(f"module:{name}.out")
            assert len(info.shape) < 4 or info.axes == ("batch", "channel", "y", "x")


@pytest.mark.parametrize("kind", KINDS)
def test_what_linear_maps_return_has_its_channels_last(kind: str) -> None:
    net = opened(kind)
    for name, module in net.root.named_modules():
        if isinstance(module, nn.Linear):
            info = net.map.info(f"module:{name}.out")
            assert info.axes[-1] == "channel"
            assert info.parts == module.out_features


def test_a_block_that_turns_to_channels_last_inside_says_so() -> None:
    net = opened("convnext")
    layer = "module:convnext.encoder.stages.0.layers.0"
    assert net.map.info(f"{layer}.dwconv.out").axes == ("batch", "channel", "y", "x")
    assert net.map.info(f"{layer}.pwconv1.out").axes == ("batch", "y", "x", "channel")
    assert net.map.info(f"{layer}.out").axes == ("batch", "channel", "y", "x")


def test_an_image_may_have_its_channels_last() -> None:
    net = opened("last")
    assert net.preparer.axes == ("batch", "y", "x", "channel")
    assert net.map.info("module:c1.in").axes == ("batch", "channel", "y", "x")
    assert net.map.info("module:norm.out").axes == ("batch", "y", "x", "channel")


def test_an_index_of_a_convolution_selects_channels() -> None:
    net = opened("cnn")
    run = net.run(images(), keep=["module:c1.out", "module:c1.out[2,3]"])
    torch.testing.assert_close(run["module:c1.out[2,3]"], run["module:c1.out"][:, 2:4], rtol=0, atol=0)


def test_patch_tokens_have_positions() -> None:
    assert opened("vit").map.info("blocks.1.resid_pre").axes == ("batch", "position", "channel")
    assert opened("swin").map.info("blocks.1.resid_pre").axes == ("batch", "position", "channel")


def test_square_maps_of_as_many_channels_as_rows_are_told_apart() -> None:
    class Cube(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.c2(F.relu(self.c1(pixels)).transpose(1, 3).transpose(1, 3)).mean((2, 3))

    net = network.open(Cube().eval(), example={"pixels": images(size=8)})
    assert net.map.info("module:c2.in").axes == ("batch", "channel", "y", "x")


# -- the residual stream of convolutional networks --


@pytest.mark.parametrize("kind", ["resnet", "cnn"])
def test_behind_the_relu_of_a_block_lies_its_stream_and_before_it_the_sum(kind: str) -> None:
    net = opened(kind)
    names = ["blocks.1.resid_pre", "blocks.1.mixer.out", "blocks.1.resid_post"]
    pre, out, post = (net.run(images(), keep=names)[name] for name in names)
    torch.testing.assert_close(F.relu(pre + out), post)
    assert all(net.sites[name].status == "certified" for name in names)


def test_blocks_that_change_the_shape_of_the_stream_are_numbered_on() -> None:
    net = opened("resnet")
    assert net.n_blocks == 4
    assert net.sites["blocks.2.resid_pre"].shape[1] == 8
    assert net.sites["blocks.2.resid_post"].shape[1] == 16


def test_a_block_of_which_no_sum_is_found_still_has_its_stream_and_refuses_the_rest() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.second(torch.tanh(self.first(x)))) + 0.1

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1 = nn.Conv2d(3, 8, 1)
            self.stages = nn.ModuleList(Gated() for _ in range(2))

        def forward(self, pixels: Tensor) -> Tensor:
            x = self.c1(pixels)
            for stage in self.stages:
                x = stage(x)
            return x.mean((2, 3))

    torch.manual_seed(0)
    net = network.open(Stack().eval(), example={"pixels": images(size=8)})
    assert {"blocks.0.resid_pre", "blocks.1.resid_post"} <= set(net.sites)
    with pytest.raises(SiteRefused, match="no sum"):
        net.select("blocks.0.mlp.out")
