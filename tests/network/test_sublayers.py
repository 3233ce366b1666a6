"""Sub-layers told apart: what reads the stream, whose norm is whose, and which attention has heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openwork import network
from openwork.edit import Custom, Scale
from openwork.errors import SiteRefused
from openwork.network import Network
from openwork.site import Site

WIDTH, HEADS, ROWS, POSITIONS = 16, 2, 2, 7


def feed_forward() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH))


def split(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        z = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(x)), split(self.v(x)))
        return self.o(z.transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(WIDTH), nn.Conv1d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2))


class Conformer(nn.Module):
    """Two half feed-forwards around attention and convolution, and one norm behind them all."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_a, self.a = nn.LayerNorm(WIDTH), feed_forward()
        self.norm_b, self.b = nn.LayerNorm(WIDTH), Attention()
        self.c = Convolution()
        self.norm_d, self.d = nn.LayerNorm(WIDTH), feed_forward()
        self.final = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.a(self.norm_a(x))
        x = x + self.b(self.norm_b(x))
        x = x + self.c(x)
        return self.final(x + 0.5 * self.d(self.norm_d(x)))


class NormedStream(nn.Module):
    """The stream itself goes through the norm before each sub-layer, as in MiniMax."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.second, self.mlp = nn.LayerNorm(WIDTH), feed_forward()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.second(1.5 * x + self.attention(x))
        return 1.5 * x + self.mlp(x)


class Parallel(nn.Module):
    """Both norms read one stream, so that their scales are equal numbers, as in GPT-NeoX."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.second, self.mlp = nn.LayerNorm(WIDTH), feed_forward()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.first(x)) + self.mlp(self.second(x))


class Bare(nn.Module):
    """Linear maps that lie in the block itself: query, key and value, gate and up."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gate_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        z = F.scaled_dot_product_attention(split(self.q(y)), split(self.k(y)), split(self.v(y)))
        x = x + self.o(z.transpose(1, 2).flatten(2))
        y = self.gate_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class PostNormBare(nn.Module):
    """Query, key and value maps in a module that holds its own norm behind the sum, as in Funnel."""

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.norm = nn.LayerNorm(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            scores = torch.einsum("bqd,bkd->bqk", self.q(x), self.k(x)) / 4
            return self.norm(x + self.o(torch.einsum("bqk,bkd->bqd", torch.softmax(scores, -1), self.v(x))))

    def __init__(self) -> None:
        super().__init__()
        self.mixing, self.norm, self.mlp = self.Mixing(), nn.LayerNorm(WIDTH), feed_forward()

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixing(x)
        return self.norm(x + self.mlp(x))


class Flat(nn.Module):
    """The MLP and its norm see batch and position as one axis, as in OPT."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.second, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        flat = x.flatten(0, 1)
        return (flat + self.down(torch.relu(self.up(self.second(flat))))).view(x.shape)


class OverLayers(nn.Module):
    """Before its MLP, every position attends to what earlier points of the block held there, as in Inkling 2."""

    class Choose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.randn(WIDTH))

        def forward(self, x: Tensor, before: Tensor) -> Tensor:
            held = torch.stack([x, before], 2)
            query = self.query.expand(*held.shape[:2], 1, -1)
            return F.scaled_dot_product_attention(query, held, held).squeeze(2)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.choose, self.second, self.mlp = self.Choose(), nn.LayerNorm(WIDTH), feed_forward()

    def forward(self, x: Tensor) -> Tensor:
        after = x + self.attention(self.first(x))
        return after + self.mlp(self.second(self.choose(after, x)))


class Stack(nn.Module):
    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.read = nn.Linear(5, WIDTH)
        self.blocks = nn.ModuleList(block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def inputs() -> dict[str, Tensor]:
    return {"x": torch.randn(ROWS, POSITIONS, 5, generator=torch.Generator().manual_seed(1))}


def stack(block: Callable[[], nn.Module]) -> Network:
    torch.manual_seed(0)
    module = Stack(block).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name or "first" in name or "second" in name or "final" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return network.open(module, example=inputs())


def by_hook(net: Network, modules: list[str], change: Callable[[Tensor], Tensor], side: str) -> Tensor:
    """The output with a plain hook at each of the modules."""
    handles = []
    for name in modules:
        module = net.root.get_submodule(name)
        if side == "in":
            handles.append(module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:])))
        else:
            handles.append(module.register_forward_hook(lambda m, args, out: m.bias + (out - m.bias) / 2))
    with torch.no_grad():
        output = net.module(**inputs())
    for handle in handles:
        handle.remove()
    return output


@pytest.mark.parametrize(
    ("block", "norms"),
    [
        (Conformer, {"norm1": "norm_b", "norm2": "norm_a"}),
        (NormedStream, {"norm1": "first", "norm2": "second"}),
        (Parallel, {"norm1": "first", "norm2": "second"}),
        (Bare, {"norm1": "norm", "norm2": "gate_norm"}),
        (PostNormBare, {"norm1": "mixing.norm", "norm2": "norm"}),
        (Flat, {"norm1": "first", "norm2": "second"}),
        (OverLayers, {"norm1": "first"}),
    ],
)
def test_each_norm_is_that_of_its_sub_layer(block: Callable[[], nn.Module], norms: dict[str, str]) -> None:
    net = stack(block)
    for norm, module in norms.items():
        site = f"blocks.1.{norm}.scale"
        assert net.sites[site].shape == (ROWS, POSITIONS, 1)
        expected = by_hook(net, [f"blocks.1.{module}"], lambda x: x, "out")
        doubled = net.run(inputs(), edits=Scale(Site(site), factor=2.0)).logits
        torch.testing.assert_close(doubled, expected)
        assert not torch.allclose(doubled, net.run(inputs()).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("block", "layer", "maps"),
    [
        (Bare, "attn", ["q", "k", "v"]),
        (Bare, "mlp", ["gate", "up"]),
        (PostNormBare, "mixer", ["mixing.q", "mixing.k", "mixing.v"]),
        (Flat, "mlp", ["up"]),
        (Conformer, "attn", ["b"]),
        (OverLayers, "attn", ["attention"]),
    ],
)
def test_what_a_sub_layer_reads_is_written_for_all_of_its_maps(
    block: Callable[[], nn.Module], layer: str, maps: list[str]
) -> None:
    net = stack(block)
    calls = 0

    def change(value: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return value.cos()

    got = net.run(inputs(), edits=Custom(Site(f"blocks.1.{layer}.in"), fn=change)).logits
    assert calls == 1, "one write, however many modules read it"
    expected = by_hook(net, [f"blocks.1.{name}" for name in maps], torch.cos, "in")
    torch.testing.assert_close(got, expected)


def test_gradients_of_what_several_maps_read_are_summed() -> None:
    net = stack(Bare)
    site = "blocks.1.mlp.in"
    grads = net.run(inputs(), keep=site, grads=lambda run: run.logits.sum((1, 2))).grads[site]
    step = 1e-2 * torch.randn(grads.shape, generator=torch.Generator().manual_seed(2))
    up, down = (
        net.run(inputs(), edits=Custom(Site(site), fn=lambda v, s=s: v + s * step)).logits.double().sum()
        for s in (1.0, -1.0)
    )
    assert float((up - down) / 2) == pytest.approx(float((grads * step).sum()), rel=1e-2)


def test_a_convolution_beside_attention_is_a_mixer() -> None:
    net = stack(Conformer)
    assert [n for n in net.sites if n.startswith("blocks.1.") and n.endswith(".out")] == [
        f"blocks.1.{layer}.out" for layer in ("mlp", "attn", "mixer", "mlp3")
    ]


def test_attention_over_layers_has_no_heads_and_says_so() -> None:
    net = stack(OverLayers)
    assert net.sites["blocks.1.attn.z"].shape == (ROWS, POSITIONS, HEADS, WIDTH // HEADS)
    assert "blocks.1.mlp.out" in net.sites
    assert not [n for n in net.sites if "attn2" in n or "cross" in n]
    with pytest.raises(SiteRefused, match="positions stand where the heads should"):
        net.run(inputs(), keep="blocks.1.choose.pattern")


def test_the_stream_between_is_found_where_the_next_sub_layer_flattens_it() -> None:
    net = stack(Flat)
    names = ("resid_pre", "attn.out", "resid_mid", "mlp.out", "resid_post")
    run = net.run(inputs(), keep=[f"blocks.1.{name}" for name in names])
    middle = run["blocks.1.resid_pre"] + run["blocks.1.attn.out"]
    torch.testing.assert_close(run["blocks.1.resid_mid"], middle)
    torch.testing.assert_close(run["blocks.1.resid_mid"] + run["blocks.1.mlp.out"], run["blocks.1.resid_post"])
