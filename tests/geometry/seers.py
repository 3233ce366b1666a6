# pyright: reportCallIssue=false, reportOptionalMemberAccess=false
"""Networks that see whose channels are known because they were made so, and images for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from openwork import network
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.worlds.picture_array import PictureArray

SIDE, CHANNELS, CLASSES = 16, 6, 5
MAP = "module:act.out"
FORMAT = ImageFormat((SIDE, SIDE), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@cache
def pictures(n: int = 32, scale: int = 1) -> PictureArray:
    """White noise; each pixel `scale` times as wide and high."""
    drawn = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    return PictureArray(drawn.repeat_interleave(scale, 2).repeat_interleave(scale, 3), name="noise")


@cache
def kernels(side: int = 3) -> Tensor:
    """(kernel, 3, y, x): no two alike, so that what they answer to white noise is not either."""
    generator = torch.Generator().manual_seed(1)
    square = torch.linalg.qr(torch.randn(3 * side * side, 3 * side * side, generator=generator)).Q
    return square.view(-1, 3, side, side)


class Seer(nn.Module):
    """One convolution, rectified, and a readout of the mean of each channel."""

    def __init__(self, weight: Tensor, readout: Tensor, stride: int = 1, shrink: int = 1):
        super().__init__()
        side = weight.shape[-1]
        self.shrink = nn.AvgPool2d(shrink)
        self.conv = nn.Conv2d(3, len(weight), side, stride, side // 2 if side % 2 else 0)
        self.act = nn.ReLU()
        self.head = nn.Linear(len(weight), len(readout))
        with torch.no_grad():
            self.conv.weight.copy_(weight)
            assert self.conv.bias is not None
            self.conv.bias.fill_(0.1)
            self.head.weight.copy_(readout)
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.conv(self.shrink(images))).mean((2, 3)))


@cache
def readout() -> Tensor:
    return 6 * torch.randn(CLASSES, CHANNELS, generator=torch.Generator().manual_seed(2))


@cache
def seer(
    chosen: Sequence[int] = tuple(range(CHANNELS)), stride: int = 1, scale: int = 1, loud: tuple[int, float] = (0, 1.0)
) -> Network:
    """A network whose channel i has kernel `chosen[i]`, read out as `readout` reads that kernel.

    Args:
        chosen: kernels; those from `CHANNELS` on stand in the place of another.
        stride: of the convolution.
        scale: it reads images so many times as large, and shrinks them first.
        loud: a channel, and what it is multiplied by; the readout undoes it.
    """
    order = list(chosen)
    weight, out = kernels()[order].clone(), readout()[:, [k % CHANNELS for k in order]].clone()
    module = Seer(weight, out, stride, scale).eval()
    with torch.no_grad():
        module.conv.weight[loud[0]] *= loud[1]
        assert module.conv.bias is not None
        module.conv.bias[loud[0]] *= loud[1]
        module.head.weight[:, loud[0]] /= loud[1]
    form = ImageFormat((SIDE * scale, SIDE * scale), FORMAT.mean, FORMAT.sd)
    name = f"seer {'-'.join(map(str, order))}, {stride}, {scale}"
    return network.open(module, name=name, images=form)


PATCH = 4


@cache
def patches() -> tuple[Network, Network]:
    """A vision transformer, and a CNN whose channels are the transformer's patch embedding in reverse order."""
    torch.manual_seed(3)
    config = ViTConfig(
        hidden_size=CHANNELS, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=SIDE,
        patch_size=PATCH, num_labels=CLASSES,
    )  # fmt: skip
    vit = ViTForImageClassification(config).eval()
    weight = kernels(PATCH)[:CHANNELS]
    embeddings = vit.vit.embeddings
    with torch.no_grad():
        embeddings.position_embeddings.zero_()
        embeddings.cls_token.fill_(9.0)
        embeddings.patch_embeddings.projection.weight.copy_(weight)
        embeddings.patch_embeddings.projection.bias.zero_()
    cnn = Seer(weight.flip(0), readout(), stride=PATCH).eval()
    assert cnn.conv.bias is not None
    with torch.no_grad():
        cnn.conv.bias.zero_()
    return network.open(vit, name="vit", images=FORMAT), network.open(cnn, name="cnn", images=FORMAT)


class Deep(nn.Module):
    """Three convolutions of one width."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.blocks = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, 2 if i == 1 else 1, 1) for i in range(3))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        for block in self.blocks:
            images = torch.tanh(block(images))
        return self.head(images.mean((2, 3)))


@cache
def deep() -> Network:
    """Opened; its maps are of two grids."""
    return network.open(Deep().eval(), name="deep", images=FORMAT)
