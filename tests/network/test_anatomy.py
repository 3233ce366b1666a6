"""What is found: blocks of every build, gains, and certificates that a broken or dead part does not get."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from openwork import network
from openwork.edit import Add
from openwork.errors import SiteRefused
from openwork.network import Network
from openwork.network.ports import MidPort, ModulePort

from .conftest import Opener
from .oracle import logits_of
from .tiny import CAUSAL, HEAD, HEADS, WIDTH, build, example, token_ids

FULL = {"resid_pre", "norm1.scale", "attn.in", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.z"}
FULL |= {"attn.out", "resid_mid", "norm2.scale", "mlp.in", "mlp.hidden", "mlp.out", "resid_post"}
PARALLEL = FULL - {"resid_mid"}
MISSING = {
    "gpt-oss": {"mlp.hidden"},  # experts as one fused operation
    "falcon": {"resid_mid", "norm2.scale"},  # parallel sub-layers behind one norm
    "neox": {"resid_mid"},
    "attention-only": {"resid_mid", "norm2.scale", "mlp.in", "mlp.hidden", "mlp.out"},
}


@pytest.mark.parametrize("kind", [*CAUSAL, "bert", "vit", "encoder"])
def test_every_block_has_every_site_of_its_kind(opened: Opener, kind: str) -> None:
    net = opened(kind)
    for block in range(net.n_blocks):
        certified = {n.removeprefix(f"blocks.{block}.") for n, s in net.sites.items() if f"blocks.{block}." in n}
        assert FULL - MISSING.get(kind, set()) <= certified
        assert not MISSING.get(kind, set()) & certified
    assert net.n_blocks == {"attention-only": 2, "encoder": 2}.get(kind, 3)


@pytest.mark.parametrize("kind", [*CAUSAL, "bert", "vit", "encoder", "t5"])
def test_no_site_is_inert_without_reason(opened: Opener, kind: str) -> None:
    net = opened(kind)
    inert = {n for n, s in net.sites.items() if s.status == "inert"}
    assert all(n.endswith("mlp.router") for n in inert)


@pytest.mark.parametrize("kind", [*CAUSAL, "bert", "t5", "vit"])
def test_only_causal_networks_count_as_causal(opened: Opener, kind: str) -> None:
    assert opened(kind).causal is (kind in CAUSAL)


def test_an_encoder_decoder_has_two_towers(opened: Opener) -> None:
    net = opened("t5")
    towers = {".".join(n.split(".")[:3]) for n in net.sites if "blocks." in n}
    assert towers == {f"{tower}.blocks.{b}" for tower in ("encoder", "decoder") for b in range(2)}
    assert {"decoder.blocks.1.cross.z", "decoder.blocks.1.attn.z", "encoder.blocks.1.attn.z"} <= set(net.sites)
    assert "encoder.blocks.1.cross.z" not in net.sites
    assert net.n_blocks == 2


def gain(net: Network, site: str) -> float:
    port = net.map.port(site)
    port = port.added if isinstance(port, MidPort) else port
    assert isinstance(port, ModulePort)
    return port.gain


@pytest.mark.parametrize("block", range(3))
def test_a_residual_multiplier_is_found(opened: Opener, block: int) -> None:
    for part in ("attn", "mlp"):
        assert gain(opened("granite"), f"blocks.{block}.{part}.out") == pytest.approx(0.22, rel=1e-5)
        assert gain(opened("llama"), f"blocks.{block}.{part}.out") == 1.0


@pytest.mark.parametrize("kind", [*CAUSAL, "vit"])
def test_contributions_add_up_to_the_stream(opened: Opener, kind: str) -> None:
    net = opened(kind)
    parts = ["resid_pre", "attn.out", *(["mlp.out"] if kind != "attention-only" else []), "resid_post"]
    for block in range(net.n_blocks):
        names = [f"blocks.{block}.{part}" for part in parts]
        run = net.run(example(kind), keep=names)
        pre, *added, post = (run[n] for n in names)
        torch.testing.assert_close(pre + sum(added), post, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "encoder"])
def test_post_norm_contributions_add_up_within_the_norm(opened: Opener, kind: str) -> None:
    net = opened(kind)
    norms = ("encoder.layers.1.norm1", "encoder.layers.1.norm2")
    if kind == "bert":
        norms = ("bert.encoder.layer.1.attention.output.LayerNorm", "bert.encoder.layer.1.output.LayerNorm")
    first, second = (net.module.get_submodule(path) for path in norms)
    names = [f"blocks.1.{p}" for p in ("resid_pre", "attn.out", "resid_mid", "mlp.out", "resid_post")]
    run = net.run(example(kind), keep=names)
    pre, attn, mid, mlp, post = (run[n] for n in names)
    with torch.no_grad():
        torch.testing.assert_close(first(pre + attn), mid, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(second(mid + mlp), post, rtol=1e-5, atol=1e-5)


# -- built by hand, with a known anatomy --


class Part(nn.Module):
    """A block whose sub-layers add up in the way that `rule` says."""

    def __init__(self, rule: Callable[[Tensor, nn.Module, nn.Module], Tensor]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.second = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x, self.first, self.second)


class Stack(nn.Module):
    def __init__(self, rule: Callable[[Tensor, nn.Module, nn.Module], Tensor], depth: int = 3) -> None:
        super().__init__()
        self.read = nn.Linear(5, 16)
        self.blocks = nn.ModuleList(Part(rule) for _ in range(depth))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def sequential(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    x = x + first(x)
    return x + second(x)


def scaled(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    x = x + 0.3 * first(x)
    return x - 1.7 * second(x)


def parallel(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    return x + first(x) + second(x)


def multiplied(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    return x * (1 + torch.tanh(first(x)))


def stack(rule: Callable[[Tensor, nn.Module, nn.Module], Tensor]) -> Network:
    torch.manual_seed(3)
    return network.open(Stack(rule).eval(), example={"x": torch.randn(2, 6, 5)})


@pytest.mark.parametrize(("rule", "gains"), [(sequential, [1.0, 1.0]), (scaled, [0.3, -1.7]), (parallel, [1.0, 1.0])])
def test_gains_of_known_sums(rule: Callable[[Tensor, nn.Module, nn.Module], Tensor], gains: list[float]) -> None:
    net = stack(rule)
    assert net.n_blocks == 3
    outs = [n for n in net.sites if n.startswith("blocks.1.") and n.endswith(".out")]
    assert len(outs) == 2
    assert [gain(net, n) for n in outs] == pytest.approx(gains, rel=1e-5)
    middle = "blocks.1.resid_mid" in net.sites
    assert middle is (rule is not parallel)
    x = {"x": torch.randn(2, 6, 5)}
    run = net.run(x, keep=[*outs, "blocks.1.resid_pre", "blocks.1.resid_post"])
    total = run["blocks.1.resid_pre"] + run[outs[0]] + run[outs[1]]
    torch.testing.assert_close(total, run["blocks.1.resid_post"], rtol=1e-5, atol=1e-5)


def test_a_stream_that_is_no_sum_gets_no_contributions_and_says_so() -> None:
    net = stack(multiplied)
    assert "blocks.1.resid_post" in net.sites
    assert not [n for n in net.sites if n.endswith(".out")]
    assert "no sum" in net.refused["blocks.1.*.out"]
    with pytest.raises(SiteRefused, match="no sum"):
        net.run({"x": torch.randn(2, 6, 5)}, keep="blocks.1.mlp.out")


# -- certificates --


def test_an_attention_whose_output_projection_is_zero_is_inert(gpt2: Network) -> None:
    module = build("gpt2")
    with torch.no_grad():
        module.transformer.h[1].attn.c_proj.weight.zero_()
    net = network.open(module)
    inert = {n for n, s in net.sites.items() if s.status == "inert"}
    assert inert == {f"blocks.1.attn.{part}" for part in ("in", "q", "k", "v", "z", "scores", "pattern")} | {
        "blocks.1.norm1.scale"
    }
    run = net.run(token_ids(), edits=Add("blocks.1.attn.z", vector=5.0))
    assert torch.equal(run.logits, net.run(token_ids()).logits)
    assert all(s.status == "certified" for s in gpt2.sites.values())


def test_a_single_dead_head_leaves_the_site_certified() -> None:
    module = build("gpt2")
    with torch.no_grad():
        module.transformer.h[1].attn.c_proj.weight[2 * HEAD : 3 * HEAD].zero_()
    net = network.open(module)
    assert net.sites["blocks.1.attn.z"].status == "certified"
    dead = net.run(token_ids(), edits=Add("blocks.1.attn.z[2]", vector=5.0)).logits
    alive = net.run(token_ids(), edits=Add("blocks.1.attn.z[1]", vector=5.0)).logits
    plain = net.run(token_ids()).logits
    assert torch.equal(dead, plain)
    assert not torch.allclose(alive, plain)


def test_a_dead_mlp_is_inert() -> None:
    module = build("llama")
    with torch.no_grad():
        module.model.layers[2].mlp.down_proj.weight.zero_()
    net = network.open(module)
    inert = {n for n, s in net.sites.items() if s.status == "inert"}
    assert {"blocks.2.mlp.in", "blocks.2.mlp.hidden", "blocks.2.norm2.scale"} <= inert
    assert "blocks.2.resid_mid" not in inert
    assert not {n for n in inert if not n.startswith("blocks.2.")}


@pytest.mark.parametrize(("factor", "shown"), [(1e-6, True), (1e-12, False)])
def test_an_mlp_that_adds_hardly_anything_has_its_sites_or_is_refused(factor: float, shown: bool) -> None:
    module = build("llama")
    with torch.no_grad():
        module.model.layers[2].mlp.down_proj.weight.mul_(factor)
    net = network.open(module)
    added = net.run(token_ids(), keep=("blocks.2.resid_mid", "blocks.2.resid_post") if shown else "blocks.2.resid_post")
    assert ("blocks.2.mlp.out" in net.sites) == shown
    assert ("blocks.2.mlp.*" in net.refused) != shown
    if shown:
        assert (added["blocks.2.resid_post"] - added["blocks.2.resid_mid"]).abs().max() < 1e-5
        pushed = net.run(token_ids(), edits=Add("blocks.2.mlp.out", vector=5.0)).logits
        assert not torch.allclose(pushed, added.logits)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "t5", "bert"])
def test_every_certificate_holds_what_it_says(opened: Opener, kind: str) -> None:
    for site in opened(kind).sites.values():
        assert site.checks, site.name
        assert all(check.residual <= check.tolerance for check in site.checks)
        assert len(site.axes) == len(site.shape)
        names = {check.name for check in site.checks}
        assert "identity write" in names
        if site.name.endswith((".pattern", ".z", ".q", ".k", ".v")):
            assert "pattern @ v == z" in names


class Treacherous(nn.Module):
    """A network that remembers how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build("attention-only")
        self.calls = 0

    def forward(self, input_ids: Tensor) -> Tensor:
        self.calls += 1
        return logits_of(self.inner(input_ids)) + (0.0 if self.calls < 3 else float(self.calls))


def test_a_network_that_answers_differently_every_time_is_not_certified() -> None:
    net = network.open(Treacherous().eval())
    assert not net.sites
    assert "off by" in net.refused["logits"]
    with pytest.raises(SiteRefused, match="off by"):
        net.run(token_ids(), keep="blocks.0.attn.z")


@pytest.mark.extended
@pytest.mark.parametrize(
    "kind", ["gpt2", "llama", "gemma2", "gpt-oss", "bloom", "neox", "bert", "attention-only", "t5"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_certifies_the_same_sites(opened: Opener, kind: str, dtype: torch.dtype) -> None:
    module = build(kind).to(dtype)
    net = network.open(module, example=example(kind) if kind == "t5" else None)
    assert set(net.sites) == set(opened(kind).sites)
    kwargs = example(kind)
    run = net.run(kwargs, keep=list(net.sites))
    with torch.no_grad():
        assert torch.equal(run.logits, module(**kwargs).logits)
    assert run["decoder.blocks.1.attn.z" if kind == "t5" else "blocks.1.attn.z"].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_edits_in_half_precision(dtype: torch.dtype) -> None:
    net = network.open(build("llama").to(dtype))
    vector = torch.linspace(-1, 1, WIDTH)
    run = net.run(token_ids(), edits=Add("blocks.1.resid_post", 4, vector=vector), keep="blocks.1.resid_post")
    plain = net.run(token_ids(), keep="blocks.1.resid_post")["blocks.1.resid_post"]
    assert run["blocks.1.resid_post"].dtype == run.logits.dtype == dtype
    assert torch.equal(run["blocks.1.resid_post"][:, 4], plain[:, 4] + vector.to(dtype))
    assert net.parts("blocks.1.attn.z") == HEADS
