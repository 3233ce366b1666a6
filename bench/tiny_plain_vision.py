"""Small vision families of plain torch modules without global attention: convolutions, windows, mixers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10


def _conv(inside: int, outside: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, with in-place addition and in-place ReLU."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inside, outside, stride=stride), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv(outside, outside), nn.BatchNorm2d(outside)
        changes = stride != 1 or inside != outside
        self.downsample = nn.Sequential(_conv(inside, outside, 1, stride), nn.BatchNorm2d(outside)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += shortcut
        return self.relu(out)


class Bottleneck(nn.Module):
    """Narrow, convolve, widen; the same ReLU module is called three times."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        middle = outside // 4
        self.conv1, self.bn1 = _conv(inside, middle, 1), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = _conv(middle, middle, stride=stride), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = _conv(middle, outside, 1), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(_conv(inside, outside, 1, stride), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """Stem, three stages of two blocks, mean over space."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck]) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = _conv(3, 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(block(16, 16, 1), block(16, 16, 1))
        self.layer2 = nn.Sequential(block(16, 32, 2), block(32, 32, 1))
        self.layer3 = nn.Sequential(block(32, 64, 2), block(64, 64, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(images))))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VGG(nn.Module):
    """Everything in two Sequentials."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(64 * 16, 48), nn.ReLU(True), nn.Dropout(), nn.Linear(48, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


class DenseBlock(nn.Module):
    """Each layer reads all earlier ones: the stream grows by concatenation."""

    def __init__(self, inside: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(inside + i * growth), nn.ReLU(), _conv(inside + i * growth, growth))
            for i in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet() -> nn.Module:
    """Two dense blocks with a transition, named in one Sequential."""
    parts = OrderedDict[str, nn.Module](
        conv0=_conv(3, 16),
        denseblock1=DenseBlock(16, 8, 3),
        transition1=nn.Sequential(nn.BatchNorm2d(40), nn.ReLU(), _conv(40, 24, 1), nn.AvgPool2d(2)),
        denseblock2=DenseBlock(24, 8, 3),
        norm5=nn.BatchNorm2d(48),
    )
    return Reader(nn.Sequential(parts), 48)


class Reader(nn.Module):
    """Features, mean over space, a linear classifier."""

    def __init__(self, features: nn.Module, width: int) -> None:
        super().__init__()
        self.features, self.classifier = features, nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, then a channels-last MLP with a scale for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(0.5 + 0.1 * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Patchify, three blocks, halve, two blocks."""
    first = [nn.Conv2d(3, 24, 4, 4), *(ConvNeXtBlock(24) for _ in range(3))]
    return Reader(nn.Sequential(*first, nn.Conv2d(24, 48, 2, 2), ConvNeXtBlock(48), ConvNeXtBlock(48)), 48)


class SqueezeExcite(nn.Module):
    """A gate for each channel from the mean over space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, gate, project; added to its input where the shape stays."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        wide = 3 * inside
        self.conv = nn.Sequential(
            nn.Sequential(_conv(inside, wide, 1), nn.BatchNorm2d(wide), nn.SiLU(inplace=True)),
            nn.Sequential(_conv(wide, wide, 3, stride, groups=wide), nn.BatchNorm2d(wide), nn.SiLU(inplace=True)),
            SqueezeExcite(wide),
            nn.Sequential(_conv(wide, outside, 1), nn.BatchNorm2d(outside)),
        )
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


def efficientnet() -> nn.Module:
    """A stem and six inverted residuals in three widths."""
    widths = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 40, 1)]
    stem = nn.Sequential(_conv(3, 16, 3, 2), nn.BatchNorm2d(16), nn.SiLU(inplace=True))
    return Reader(nn.Sequential(stem, *(InvertedResidual(*sizes) for sizes in widths)), 40)


class MixerBlock(nn.Module):
    """One MLP over tokens, one over channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_mixing = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channel_mixing = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mixing(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mixing(self.norm2(x))


class Mixer(nn.Module):
    """Patches, three mixer blocks, mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 8, 8)
        self.blocks = nn.Sequential(*(MixerBlock(16, 48) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(images).flatten(2).transpose(1, 2))).mean(1))


class WindowAttention(nn.Module):
    """Attention within square windows with a learned bias for each pair of places."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(0.3 * torch.randn(heads, window**2, window**2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pattern = (q @ k.mT * q.shape[-1] ** -0.5 + self.bias).softmax(-1)
        return self.proj((pattern @ v).transpose(1, 2).flatten(2))


class WindowBlock(nn.Module):
    """Shifted windows over a channels-last grid."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        n = self.window
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = y.view(b, h // n, n, w // n, n, c).transpose(2, 3).reshape(-1, n * n, c)
        y = self.attn(y).view(b, h // n, w // n, n, n, c).transpose(2, 3).reshape(b, h, w, c)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class WindowTransformer(nn.Module):
    """Patches on a grid, plain and shifted windows in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.blocks = nn.ModuleList(WindowBlock(32, 4, 4, 0 if i % 2 == 0 else 2) for i in range(4))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean((1, 2)))


VISION_FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet-basic": lambda: ResNet(BasicBlock),
    "resnet-bottleneck": lambda: ResNet(Bottleneck),
    "vgg": VGG,
    "densenet": densenet,
    "convnext": convnext,
    "efficientnet": efficientnet,
    "mixer": Mixer,
    "windows": WindowTransformer,
}
