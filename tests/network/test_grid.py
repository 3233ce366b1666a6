"""Where positions lie in the image, against the pixels that reach them one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openwork import network
from openwork.errors import BadInput
from openwork.network import Network
from openwork.network.grid import Grid
from openwork.pictures import ImageFormat

from .seeing import images, see


def reached(net: Network, site: str, size: int) -> Tensor:
    """Which places each pixel reaches, (y, x, place): those that turn NaN with it.

    Kernels that mix places by a transform (Winograd, FFT) would spread a NaN further than the sum they stand for.
    """
    value = torch.zeros(size * size, 3, size, size)
    pixels = torch.arange(size * size)
    value[pixels, :, pixels // size, pixels % size] = float("nan")
    seen: list[Tensor] = []
    info = net.map.info(site)
    grid = net.grid(site, (size, size))

    def see_value(module: nn.Module, args: object, output: Tensor) -> None:
        seen.append(output)

    module = net.root.get_submodule(site.removeprefix("module:").removesuffix(".out"))
    handle = module.register_forward_hook(see_value)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        net.root(value)
    handle.remove()
    bad = seen[0].isnan()
    if "position" in info.axes:
        return bad.any(2)[:, grid.prefix :].reshape(size, size, -1)
    channel = info.axes.index("channel")
    return bad.any(channel).reshape(size, size, -1)


def boxes(seen: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """The smallest box that holds the pixels that reach each place."""
    for place in range(seen.shape[2]):
        y, x = torch.nonzero(seen[:, :, place], as_tuple=True)
        yield int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1


def wrapped(*layers: nn.Module) -> nn.Module:
    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.layers(pixels).mean((2, 3))

    return Only().eval()


PLAIN = {
    "stride": lambda: (nn.Conv2d(3, 2, 3, stride=2),),
    "padding": lambda: (nn.Conv2d(3, 2, 5, padding=2),),
    "one side": lambda: (nn.ZeroPad2d((2, 0, 1, 0)), nn.Conv2d(3, 2, 3)),
    "unequal": lambda: (nn.Conv2d(3, 2, (3, 5), stride=(1, 2), padding=(0, 1)),),
    "pool": lambda: (nn.Conv2d(3, 2, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1)),
    "overlapping pool": lambda: (nn.Conv2d(3, 2, 3, stride=2, padding=1), nn.MaxPool2d(3, stride=2, padding=1)),
    "mean pool": lambda: (nn.AvgPool2d(3, stride=2, padding=1), nn.Conv2d(3, 2, 1)),
    "same": lambda: (nn.Conv2d(3, 2, 3, padding="same"), nn.ReLU(), nn.BatchNorm2d(2)),
    "reflected": lambda: (nn.Conv2d(3, 2, 5, padding=2, padding_mode="reflect"),),
    "adaptive": lambda: (nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(4)),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_box_is_what_reaches_its_place(kind: str) -> None:
    size = 12
    net = network.open(wrapped(*PLAIN[kind]()), example={"pixels": images(size=size)})
    site = "module:layers.out"
    grid = net.grid(site)
    found = list(boxes(reached(net, site, size)))
    assert found == [grid.box(p) for p in range(len(grid))]


def test_a_dilated_kernel_reaches_no_further_than_its_box_and_fills_it_inside() -> None:
    size = 16
    net = network.open(wrapped(nn.Conv2d(3, 2, 3, dilation=3, padding=3)), example={"pixels": images(size=size)})
    grid = net.grid("module:layers.out")
    for place, (top, left, bottom, right) in enumerate(boxes(reached(net, "module:layers.out", size))):
        box = grid.box(place)
        assert all(outer <= inner for outer, inner in zip(box[:2], (top, left), strict=True))
        assert all(inner <= outer for outer, inner in zip(box[2:], (bottom, right), strict=True))
        y, x = grid.place(place)
        if 3 <= y < 13 and 3 <= x < 13:
            assert (top, left, bottom, right) == box


@pytest.mark.parametrize(
    ("kind", "site"), [("cnn", "pool"), ("cnn", "stages.0"), ("resnet", "resnet.encoder.stages.0")]
)
def test_residual_networks_with_strides_and_pools(kind: str, site: str) -> None:
    net = network.open(see(kind), example={"pixels": images()} if kind == "cnn" else None)
    grid = net.grid(f"module:{site}.out")
    assert list(boxes(reached(net, f"module:{site}.out", 32))) == [grid.box(p) for p in range(len(grid))]


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (nn.Conv2d(3, 2, 3, stride=2), nn.ConvTranspose2d(2, 2, 3, stride=2)),
        lambda: (nn.Conv2d(3, 2, 3, stride=2), nn.Upsample(scale_factor=2, mode="bilinear")),
        lambda: (nn.Conv2d(3, 2, 3, stride=2), nn.Upsample(scale_factor=2)),
        lambda: (nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(5)),
        lambda: (nn.Conv2d(3, 2, 3), nn.GroupNorm(1, 2)),
        lambda: (nn.Conv2d(3, 4, 1), nn.PixelShuffle(2), nn.Conv2d(1, 2, 1)),
    ],
)
def test_no_pixel_outside_its_box_reaches_a_place(layers) -> None:
    size = 12
    net = network.open(wrapped(*layers()), example={"pixels": images(size=size)})
    site = "module:layers.out"
    try:
        grid = net.grid(site)
    except BadInput:  # refused rather than wrong: places that cannot be told
        assert any(isinstance(m, nn.PixelShuffle) for m in net.root.modules())
        return
    for place, (top, left, bottom, right) in enumerate(boxes(reached(net, site, size))):
        box = grid.box(place)
        assert all(outer <= inner for outer, inner in zip(box[:2], (top, left), strict=True))
        assert all(inner <= outer for outer, inner in zip(box[2:], (bottom, right), strict=True))


def test_behind_attention_a_token_sees_everything_and_its_cell_is_its_patch() -> None:
    net = network.open(see("vit"))
    before, after = net.grid("blocks.0.resid_pre"), net.grid("blocks.1.resid_pre")
    assert (before.height, before.width, before.prefix) == (4, 4, 1)
    assert before.box(1) == (0, 0, 8, 8)
    assert after.box(1) == (0, 0, 32, 32)
    assert after.cell(6) == before.box(6) == (8, 8, 16, 16)
    assert after.centre(1) == (3.5, 3.5)
    seen = reached(
        net, "module:vit.layers.0.out" if hasattr(net.root.vit, "layers") else "module:vit.encoder.layer.0.out", 32
    )
    assert bool(seen.all())


def test_heads_lie_where_their_tokens_do() -> None:
    net = network.open(see("vit"))
    for site in ("blocks.1.attn.z", "blocks.1.attn.pattern", "blocks.1.mlp.hidden"):
        assert net.grid(site) == net.grid("blocks.1.resid_pre")


def test_a_gate_that_has_seen_the_map_makes_every_place_see_the_image() -> None:
    net = network.open(see("mobile"), example={"pixels": images()})
    assert not net.grid("module:c1.out").everywhere
    grid = net.grid("module:blocks.0.out")
    assert grid.everywhere
    assert bool(reached(net, "module:blocks.0.out", 32).all())
    assert grid.centre(0) == (0.0, 0.0)


def test_turned_axes_and_windows_keep_their_places() -> None:
    last = network.open(see("last"), example={"pixels": images(last=True)})
    assert last.grid("module:norm.out") == last.grid("module:c1.out")
    swin = network.open(see("swin"))
    assert swin.grid("blocks.2.resid_pre").stride == (8.0, 8.0)
    with pytest.raises(BadInput, match="cannot be told"):
        swin.grid("blocks.0.attn.z")


def test_any_size_that_the_network_takes_has_its_grid() -> None:
    net = network.open(see("cnn"), example={"pixels": images()})
    assert net.grid("module:pool.out").height == 8
    grid = net.grid("module:pool.out", (48, 20))
    assert (grid.height, grid.width, grid.image) == (12, 5, (48, 20))
    assert net.grid("module:pool.out", (48, 20)) is grid


def test_a_size_that_it_does_not_take_is_our_error() -> None:
    with pytest.raises(BadInput, match="takes no images"):
        network.open(see("vit")).grid("blocks.0.resid_pre", (40, 40))


def test_a_network_of_tokens_has_no_grid() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.head(self.embed(input_ids))

    net = network.open(Words().eval())
    with pytest.raises(BadInput, match="reads images"):
        net.grid("module:head.out")


def test_the_grid_is_that_of_the_format() -> None:
    net = network.open(see("cnn"), images=ImageFormat((24, 16)))
    assert net.grid("module:pool.out").image == (24, 16)


# -- places, cells and masks --


GRID = Grid(4, 4, 1, (8.0, 8.0), (3.5, 3.5), (8.0, 8.0), (32, 32))


def test_positions_of_a_mask_are_the_places_that_lie_mostly_in_it() -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:8, :13] = True  # all of the first cell, 5 of 8 columns of the second
    assert GRID.positions(mask) == [1, 2]
    mask[:8, 12:] = False  # just half of the second
    assert GRID.positions(mask) == [1]


def test_positions_of_a_mask_are_those_that_counting_finds() -> None:
    mask = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.5
    slow = []
    for position in range(1, 17):
        top, left, bottom, right = GRID.cell(position)
        if mask[top:bottom, left:right].float().mean() > 0.5:
            slow.append(position)
    assert GRID.positions(mask) == slow


def test_a_class_token_lies_nowhere() -> None:
    with pytest.raises(BadInput, match="lie nowhere"):
        GRID.centre(0)
    with pytest.raises(BadInput, match="from 1 to 16"):
        GRID.box(17)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(BadInput, match="32 x 32"):
        GRID.positions(torch.zeros(16, 16, dtype=torch.bool))


def test_functional_resizing_is_followed() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1 = nn.Conv2d(3, 2, 1)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.c1(F.interpolate(pixels, scale_factor=0.5, mode="bilinear")).mean((2, 3))

    net = network.open(Half().eval(), example={"pixels": images(size=8)})
    assert net.grid("module:c1.out").stride == (2.0, 2.0)
    assert net.grid("module:c1.out").offset == (0.5, 0.5)
