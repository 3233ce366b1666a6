"""Kernels between distant layers: against convolutions composed with loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openwork import network
from openwork.errors import BadInput, UnknownName
from openwork.network import Network
from openwork.vision.circuits.kernels import kernels


class Chain(nn.Module):
    """Two convolutions with a batch norm, a shortcut around the second, and a read-out."""

    def __init__(self, act: nn.Module | None = None, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act = act or nn.Identity()
        self.second = nn.Conv2d(4, 4, 3, padding=1, stride=stride, bias=False)
        self.sum = nn.Identity()
        self.head = nn.Linear(4, 2)
        self.stride = stride
        with torch.no_grad():
            self.norm.running_mean.uniform_(-0.2, 0.2)  # pyright: ignore
            self.norm.running_var.uniform_(0.5, 2.0)  # pyright: ignore
            self.norm.weight.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.first(x)))
        return self.head(self.sum(h[:, :, :: self.stride, :: self.stride] + self.second(h)).mean((2, 3)))


def opened(module: nn.Module, size: int = 9) -> tuple[Network, Tensor]:
    x = torch.randn(3, 3, size, size)
    return network.open(module.eval(), example={"x": x}), x


def composed(chain: Chain, slope: Any = None) -> np.ndarray:
    """(out, in, 5, 5): the second convolution and the shortcut after the first one, entry by entry."""
    a, b = (c.weight.detach().numpy() for c in (chain.first, chain.second))
    scale = (chain.norm.weight / (chain.norm.running_var + chain.norm.eps).sqrt()).detach().numpy()  # pyright: ignore
    slope = np.ones(4) if slope is None else slope
    out = np.zeros((4, 3, 5, 5))
    for o in range(4):
        for m in range(4):
            middle = b[o, m].copy()
            middle[1, 1] += o == m
            for i in range(3):
                for y in range(3):
                    for x in range(3):
                        for v in range(3):
                            for u in range(3):
                                weight = middle[y, x] * slope[m] * scale[m] * a[m, i, v, u]
                                out[o, i, y + v, x + u] += weight
    return out


def test_kernels_of_a_linear_network_are_its_convolutions_composed_by_loops() -> None:
    chain = Chain()
    net, x = opened(chain)
    found = kernels(net, "module:first.in", "module:sum.out", x, "one")
    np.testing.assert_allclose(found.values.numpy(), composed(chain), atol=1e-5)
    assert found.dy == found.dx == (-2, -1, 0, 1, 2)
    assert not found.clipped


def test_strides_are_in_the_kernels() -> None:
    chain = Chain(stride=2)
    net, x = opened(chain)
    found = kernels(net, "module:first.in", "module:sum.out", x, "one")
    np.testing.assert_allclose(found.values.numpy(), composed(chain), atol=1e-5)
    assert found.dy == (-2, -1, 0, 1, 2)


def test_mean_slopes_scale_each_channel_by_how_often_it_is_on() -> None:
    chain = Chain(nn.ReLU())
    net, x = opened(chain)
    on = (net.run({"x": x}, keep="module:act.out")["module:act.out"] > 0).float().mean((0, 2, 3)).numpy()
    found = kernels(net, "module:first.in", "module:sum.out", x)
    np.testing.assert_allclose(found.values.numpy(), composed(chain, on), atol=1e-5)


def test_units_that_are_named_are_those_of_the_whole() -> None:
    net, x = opened(Chain(nn.ReLU()))
    whole = kernels(net, "module:first.in", "module:sum.out", x)
    some = kernels(net, "module:first.in[2]", "module:sum.out[3,1]", x)
    torch.testing.assert_close(some.values, whole.values[[3, 1]][:, [2]])
    assert (some.out_units, some.in_units) == ((3, 1), (2,))


def test_units_in_more_passes_than_images_are_the_same() -> None:
    net, x = opened(Chain())
    whole = kernels(net, "module:first.in", "module:sum.out", x, "one")
    torch.testing.assert_close(kernels(net, "module:first.in", "module:sum.out", x[:1], "one").values, whole.values)


def test_a_logit_has_a_weight_for_every_place() -> None:
    chain = Chain()
    net, x = opened(chain)
    found = kernels(net, "module:sum.out", "logits", x, "one")
    expected = chain.head.weight.detach()[:, :, None, None].expand(2, 4, 9, 9) / 81
    torch.testing.assert_close(found.values, expected)
    assert found.dy == tuple(range(9))


def test_excitation_and_inhibition_are_the_two_signs() -> None:
    net, x = opened(Chain())
    found = kernels(net, "module:first.in", "module:sum.out", x, "one")
    torch.testing.assert_close(found.excitation - found.inhibition, found.values.sum((2, 3)))
    assert bool((found.excitation >= 0).all() and (found.inhibition >= 0).all())


def test_a_kernel_that_reaches_the_end_of_the_map_is_called_clipped() -> None:
    net, x = opened(Chain(), size=4)
    assert kernels(net, "module:first.in", "module:sum.out", x, "one").clipped


class Grouped(nn.Module):
    """A norm whose divisor differs between images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x)).mean((2, 3)))


def test_where_norms_divide_each_image_by_its_own_number_kernels_are_the_mean_over_images() -> None:
    net, x = opened(Grouped())
    whole = kernels(net, "module:first.in", "module:norm.out", x, "one").values
    each = [kernels(net, "module:first.in", "module:norm.out", x[[i]], "one") for i in range(len(x))]
    wide = [torch.zeros_like(whole) for _ in each]
    for out, one in zip(wide, each, strict=True):
        out.copy_(one.values)
    torch.testing.assert_close(whole, torch.stack(wide).mean(0))
    assert not torch.allclose(wide[0], wide[1])


@pytest.mark.parametrize(
    ("sender", "receiver", "error", "match"),
    [
        ("module:sum.out", "module:first.out", BadInput, "no weight leads"),
        ("module:head.out", "logits", BadInput, "a map of channels"),
        ("module:first.*", "module:sum.out", BadInput, "one site"),
        ("module:frist.out", "module:sum.out", UnknownName, "first"),
    ],
)
def test_sites_that_do_not_fit_are_refused(sender: str, receiver: str, error: Any, match: str) -> None:
    net, x = opened(Chain())
    with pytest.raises(error, match=match):
        kernels(net, sender, receiver, x)


def test_other_slopes_are_refused() -> None:
    net, x = opened(Chain())
    with pytest.raises(BadInput, match="slopes"):
        kernels(net, "module:first.in", "module:sum.out", x, "steep")
