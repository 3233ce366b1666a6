"""A corpus of images on its way through a network."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openwork import network
from openwork.errors import BadInput
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.vision.passes import encoded, maps, passes
from openwork.worlds.picture_array import PictureArray

FORMAT = ImageFormat((16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "BGR")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.head = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.calls = 0

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.c2(F.relu(self.c1(pixels)))
        self.calls += 1
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net() -> Network:
    torch.manual_seed(0)
    return network.open(Small().eval(), images=FORMAT)


def corpus(count: int = 10) -> PictureArray:
    return PictureArray(
        torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    )


def test_the_batches_give_what_one_call_gives(net: Network) -> None:
    pictures = corpus()
    sites = ["module:c2.out", "module:c1.out"]
    found = list(passes(net, pictures, sites, batch=4))
    values = net.images.encode(pictures.values.float() / 255) if net.images else None
    whole = net.run(values, keep=sites)
    assert [p.rows for p in found] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    for site in sites:
        torch.testing.assert_close(torch.cat([p.values[site] for p in found]), whole[site])


def test_rows_come_in_the_order_asked_for(net: Network) -> None:
    pictures = corpus()
    (found,) = passes(net, pictures, "module:c1.out", rows=[7, 2])
    assert torch.equal(found.pixels, pictures.values[[7, 2]])


def test_a_pass_ends_at_the_deepest_site(net: Network) -> None:
    module = net.root
    assert isinstance(module, Small)
    before = module.calls
    list(passes(net, corpus(), "module:c1.out"))
    assert module.calls == before  # never got to its end
    list(passes(net, corpus(), ["logits", "module:c1.out"]))
    assert module.calls == before + 1


def test_nothing_of_a_batch_is_held_when_the_next_one_comes(net: Network) -> None:
    alive: list[weakref.ref[Tensor]] = []
    for found in passes(net, corpus(32), "module:c1.out", batch=4):
        gc.collect()
        assert sum(ref() is not None for ref in alive) == 0
        alive.append(weakref.ref(found.values["module:c1.out"]))
        assert not found.values["module:c1.out"].requires_grad
        del found


def test_what_does_not_fit_is_refused(net: Network) -> None:
    with pytest.raises(BadInput, match="from 0 to 9"):
        passes(net, corpus(), "module:c1.out", rows=[10])
    with pytest.raises(BadInput, match="at least one"):
        passes(net, corpus(), "module:c1.out", batch=0)
    with pytest.raises(BadInput, match="16 x 16"):
        list(passes(net, PictureArray(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), "module:c1.out"))


def test_a_network_without_a_format_says_what_to_pass() -> None:
    bare = network.open(Small().eval())
    with pytest.raises(BadInput, match=r"images=openwork\.ImageFormat"):
        passes(bare, corpus(), "module:c1.out")


def test_bytes_become_what_the_network_reads(net: Network) -> None:
    pixels = corpus().values
    want = (pixels.float() / 255 - torch.tensor(FORMAT.mean)[:, None, None]) / 0.2
    torch.testing.assert_close(encoded(net, pixels), want.flip(1))


def test_maps_of_a_convolution_are_as_they_are(net: Network) -> None:
    (found,) = passes(net, corpus(), "module:c1.out")
    value = found.values["module:c1.out"]
    assert torch.equal(maps(value, net.map.info("module:c1.out").axes, net.grid("module:c1.out")), value)


def test_maps_of_tokens_leave_the_prefix_out_and_join_heads() -> None:
    from openwork.network.grid import Grid

    grid = Grid(2, 3, 1, (1.0, 1.0), (0.0, 0.0), (1.0, 1.0), (2, 3))
    tokens = torch.randn(4, 7, 2, 5)
    out = maps(tokens, ("batch", "position", "head", "channel"), grid)
    assert out.shape == (4, 10, 2, 3)
    torch.testing.assert_close(out[1, 7, 1, 2], tokens[1, 6, 1, 2], rtol=0, atol=0)
    with pytest.raises(BadInput, match="at least 7 positions"):
        maps(tokens[:, :5], ("batch", "position", "head", "channel"), grid)
    with pytest.raises(BadInput, match="images and places"):
        maps(tokens[:, 0, 0], ("batch", "channel"), grid)
