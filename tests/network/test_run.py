"""One run: outputs are the bare module's bit for bit, kept values are what hand-placed hooks see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.edit import Ablate, Add, Custom, Scale, Set
from openwork.errors import BadInput, EditMissed, UnknownName
from openwork.network import Network, Run
from openwork.site import Where

from .conftest import Opener
from .oracle import PLACES, forward, hooks, logits_of, places, watch
from .tiny import BUILDERS, example, token_ids

BLOCKS = {"attention-only": 2, "t5": 2, "encoder": 2}
KINDS = list(BUILDERS)


def bare(net: Network, kwargs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return logits_of(net.module(**kwargs)).clone()


@pytest.mark.parametrize("kind", KINDS)
def test_output_without_keep_is_that_of_the_bare_module_bit_for_bit(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, seed=3)
    assert torch.equal(net.run(kwargs).logits, bare(net, kwargs))


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("encoder",)])
def test_output_with_every_site_kept_is_that_of_the_bare_module_bit_for_bit(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, seed=3)
    run = net.run(kwargs, keep=list(net.sites))
    assert len(run.values) == len(net.sites)
    assert torch.equal(run.logits, bare(net, kwargs))


def test_torchs_own_fused_encoder_layer_steps_aside_for_hooks_within_rounding(opened: Opener) -> None:
    net, kwargs = opened("encoder"), example("encoder", seed=3)
    run = net.run(kwargs, keep=list(net.sites))
    torch.testing.assert_close(run.logits, bare(net, kwargs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", list(PLACES))
def test_kept_values_are_what_hand_placed_hooks_see(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, seed=5)
    by_hand = places(kind, BLOCKS.get(kind, 3))
    assert set(by_hand) <= set(net.sites)
    run = net.run(kwargs, keep=list(by_hand))
    seen = watch(net.module, kwargs, by_hand.values())
    for site, place in by_hand.items():
        value = run[site]
        value = value.flatten(2) if site.endswith(".z") else value
        assert torch.equal(value, seen[place].view_as(value)), site


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("looped",)])
def test_module_sites_are_what_hand_placed_hooks_see(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, seed=5)
    names = [n for n in net.map.modules if n.endswith(".out") and "#" not in n]
    names = [n for n in names if n.removesuffix(".out") + "#1.out" not in net.map.modules]
    assert len(names) > 2 or kind == "perceptron"
    wanted = {n: (n.removeprefix("module:").removesuffix(".out"), "out") for n in names}
    seen = watch(net.module, kwargs, wanted.values())
    run = net.run(kwargs, keep=names)
    for name, place in wanted.items():
        assert torch.equal(run[name], seen[place]), name


def test_calls_of_a_module_that_runs_several_times_are_told_apart(opened: Opener) -> None:
    net, kwargs = opened("looped"), example("looped", seed=5)
    seen: list[Tensor] = []
    forward(net.module, kwargs, {("layer", "out"): lambda value: seen.append(value.clone())})
    names = ["module:layer.out", "module:layer#1.out", "module:layer#2.out"]
    run = net.run(kwargs, keep=names)
    for name, value in zip(names, seen, strict=True):
        assert torch.equal(run[name], value)

    calls: list[int] = []

    def second(value: Tensor) -> Tensor | None:
        calls.append(1)
        return value * 2 if len(calls) == 2 else None

    expected = forward(net.module, kwargs, {("layer", "out"): second})
    got = net.run(kwargs, edits=Scale("module:layer#1.out", factor=2.0)).logits
    assert torch.equal(got, expected)
    assert not torch.equal(got, net.run(kwargs).logits)


def test_in_place_activations_do_not_change_what_was_kept(opened: Opener) -> None:
    net, kwargs = opened("pictures"), example("pictures", seed=5)
    run = net.run(kwargs, keep=["module:stem.out", "module:stages.0.norm.out", "module:stages.0.second.out"])
    assert bool((run["module:stem.out"] < 0).any())
    assert bool((run["module:stages.0.norm.out"] < 0).any())
    seen = watch(net.module, kwargs, [("stages.0.second", "out")])
    assert torch.equal(run["module:stages.0.second.out"], seen["stages.0.second", "out"])


@pytest.mark.parametrize(
    ("kind", "norm", "site", "centred"),
    [
        ("gpt2", "transformer.h.1.ln_1", "blocks.1.norm1.scale", True),
        ("gpt2", "transformer.h.1.ln_2", "blocks.1.norm2.scale", True),
        ("llama", "model.layers.1.input_layernorm", "blocks.1.norm1.scale", False),
        ("gemma2", "model.layers.1.pre_feedforward_layernorm", "blocks.1.norm2.scale", False),
        ("bert", "bert.encoder.layer.1.attention.output.LayerNorm", "blocks.1.norm1.scale", True),
        ("t5", "decoder.block.1.layer.2.layer_norm", "decoder.blocks.1.norm2.scale", False),
    ],
)
def test_norm_scale_is_the_divisor_and_writing_it_replaces_the_divisor(
    opened: Opener, kind: str, norm: str, site: str, centred: bool
) -> None:
    net, kwargs = opened(kind), example(kind, seed=5)
    module: Any = net.module.get_submodule(norm)
    x = watch(net.module, kwargs, [(norm, "in")])[norm, "in"].double()
    x = x - x.mean(-1, keepdim=True) if centred else x
    eps = next(float(e) for n in ("eps", "variance_epsilon") if isinstance(e := getattr(module, n, None), float))
    divisor = (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(net.run(kwargs, keep=site)[site].double(), divisor, rtol=1e-6, atol=1e-6)

    weight, bias = module.weight.double(), getattr(module, "bias", None)
    if kind == "gemma2":
        weight = weight + 1
    frozen = x / 1.7 * weight + (0 if bias is None else bias.double())
    expected = forward(net.module, kwargs, {(norm, "out"): lambda value: frozen.float()})
    got = net.run(kwargs, edits=Set(site, value=1.7)).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_kept_indices_are_slices_of_the_whole(gpt2: Network) -> None:
    ids = token_ids()
    run = gpt2.run(
        ids, keep=["blocks.1.attn.z", "blocks.1.attn.z[2]", "blocks.1.attn.z[0,3]", "blocks.2.mlp.hidden[5]"]
    )
    whole = run["blocks.1.attn.z"]
    assert torch.equal(run["blocks.1.attn.z[2]"], whole[:, :, [2]])
    assert torch.equal(run["blocks.1.attn.z[0,3]"], whole[:, :, [0, 3]])
    assert run["blocks.2.mlp.hidden[5]"].shape == (3, 9, 1)
    assert run.axes("blocks.1.attn.z[2]") == ("batch", "position", "head", "channel")
    assert run.to_xarray("blocks.1.attn.z").dims == ("batch", "position", "head", "channel")


# -- stopping early --


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "attention-only"])
def test_until_stops_there_and_keeps_the_same_values(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind)
    whole = net.run(kwargs, keep=["blocks.0.attn.z", "blocks.1.resid_post"])
    blocks = net.n_blocks
    ran: list[int] = []
    last = places(kind, blocks)[f"blocks.{blocks - 1}.resid_post"][0]
    with hooks(net.module, {(last, "out"): lambda value: ran.append(1)}):
        run = net.run(kwargs, keep=["blocks.0.attn.z", "blocks.0.resid_post"], until="blocks.0.resid_post")
    assert ran == []
    assert torch.equal(run["blocks.0.attn.z"], whole["blocks.0.attn.z"])
    assert run.output is None
    with pytest.raises(BadInput, match="until"):
        _ = run.logits


def test_a_keep_behind_until_never_fires(gpt2: Network) -> None:
    with pytest.raises(EditMissed, match=r"blocks\.2\.mlp\.out"):
        gpt2.run(token_ids(), keep=["blocks.2.mlp.out"], until="blocks.1.resid_post")
    with pytest.raises(EditMissed, match=r"blocks\.2\.mlp\.out"):
        gpt2.run(token_ids(), edits=Ablate("blocks.2.mlp.out"), until="blocks.1.resid_post")


# -- gradients --


def margin(run: Run) -> Tensor:
    return run.logits[:, -1, 7] - run.logits[:, -1, 11]


@pytest.mark.parametrize(
    ("kind", "site"),
    [
        ("gpt2", "blocks.0.resid_pre"),
        ("gpt2", "blocks.1.resid_mid"),
        ("gpt2", "blocks.1.attn.out"),
        ("gpt2", "blocks.1.mlp.hidden"),
        ("gpt2", "blocks.2.resid_post"),
        ("llama", "blocks.1.mlp.hidden"),
        ("llama", "embed"),
        ("gemma2", "blocks.1.attn.out"),
        ("neox", "blocks.1.mlp.out"),
        ("bert", "blocks.1.resid_mid"),
        ("attention-only", "blocks.0.attn.out"),
    ],
)
def test_gradients_are_those_of_autograd_by_hand(opened: Opener, kind: str, site: str) -> None:
    net, kwargs = opened(kind), example(kind)
    path, side = places(kind, 3)[site]
    held: list[Tensor] = []

    def hold(value: Tensor) -> Tensor:
        value = value if value.requires_grad else value.detach().requires_grad_()
        held.append(value)
        return value

    if kind == "gpt2" and site.endswith("resid_mid"):  # ln_2 reads it, and so does the sum that follows
        path, side = "transformer.h.1.attn", "out"
    with hooks(net.module, {(path, side): hold}):
        logits = logits_of(net.module(**kwargs))
    by_hand = torch.autograd.grad((logits[:, -1, 7] - logits[:, -1, 11]).sum(), held[0])[0]
    run = net.run(kwargs, keep=site, grads=margin)
    torch.testing.assert_close(run.grads[site], by_hand, rtol=1e-4, atol=1e-6)
    assert bool((run.grads[site] != 0).any())
    assert not run[site].requires_grad
    assert torch.equal(run.logits, bare(net, kwargs))
    assert not run.logits.requires_grad


@pytest.mark.parametrize(
    ("kind", "site", "cell"),
    [
        ("gpt2", "blocks.1.attn.q[2]", (1, 4, 0, 3)),
        ("gpt2", "blocks.1.attn.z", (1, 4, 2, 3)),
        ("gpt2", "blocks.1.attn.pattern", (1, 2, 6, 3)),
        ("gpt2", "blocks.1.attn.scores[1]", (1, 0, 6, 3)),
        ("gpt2", "blocks.1.norm2.scale", (1, 4, 0)),
        ("gpt2", "blocks.1.resid_mid", (1, 4, 9)),
        ("llama", "blocks.1.attn.k", (1, 4, 1, 3)),
        ("llama", "blocks.1.attn.v[1]", (1, 4, 0, 3)),
        ("llama", "blocks.1.norm1.scale", (1, 4, 0)),
        ("gpt-oss", "blocks.1.attn.pattern", (1, 2, 6, 5)),
        ("bloom", "blocks.1.attn.pattern", (1, 2, 6, 3)),
        ("bloom", "blocks.1.attn.q", (1, 2, 3, 3)),
        ("t5", "decoder.blocks.1.cross.pattern", (1, 2, 6, 3)),
        ("attention-only", "blocks.0.attn.pattern", (1, 2, 6, 3)),
        ("granite", "blocks.1.mlp.out", (1, 4, 9)),
    ],
)
def test_gradients_agree_with_finite_differences_of_written_values(
    opened: Opener, kind: str, site: str, cell: tuple[int, ...]
) -> None:
    net, kwargs = opened(kind), example(kind)
    run = net.run(kwargs, keep=site, grads=margin)
    ends = []
    for sign in (-1.0, 1.0):

        def nudge(value: Tensor, sign: float = sign) -> Tensor:
            value = value.clone()
            value[cell] += sign * 1e-2
            return value

        ends.append(margin(net.run(kwargs, edits=Custom(site, fn=nudge))).sum())
    slope = (ends[1] - ends[0]) / 2e-2
    torch.testing.assert_close(run.grads[site][cell], slope, rtol=3e-2, atol=2e-3)
    assert abs(float(slope)) > 1e-5


def test_gradients_hold_with_edits_and_leave_parameters_alone(gpt2: Network) -> None:
    ids = token_ids()
    edit = Ablate("blocks.0.attn.z[1]")
    run = gpt2.run(ids, keep="blocks.1.resid_pre", edits=edit, grads=margin)
    held: list[Tensor] = []

    def hold(value: Tensor) -> Tensor:
        held.append(value)
        return value

    def cut(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., 8:16] = 0
        return value

    at = {("transformer.h.0.attn.c_proj", "in"): cut, ("transformer.h.1", "in"): hold}
    with hooks(gpt2.module, at):
        logits = logits_of(gpt2.module(input_ids=ids))
    by_hand = torch.autograd.grad((logits[:, -1, 7] - logits[:, -1, 11]).sum(), held[0])[0]
    torch.testing.assert_close(run.grads["blocks.1.resid_pre"], by_hand, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in gpt2.module.parameters())


def test_gradients_of_several_sites_of_one_run(gpt2: Network) -> None:
    sites = ["blocks.0.resid_pre", "blocks.1.attn.z[0,2]", "blocks.1.attn.pattern", "blocks.2.norm1.scale"]
    together = gpt2.run(token_ids(), keep=sites, grads=margin)
    for site in sites:
        alone = gpt2.run(token_ids(), keep=site, grads=margin)
        torch.testing.assert_close(together.grads[site], alone.grads[site], rtol=1e-4, atol=1e-6)
        # a differentiated pattern is a written one, for which its layer runs eager
        torch.testing.assert_close(together[site], gpt2.run(token_ids(), keep=site)[site], rtol=1e-5, atol=1e-6)
    assert together.grads["blocks.1.attn.z[0,2]"].shape == (3, 9, 2, 8)


@pytest.mark.parametrize(
    "metric",
    [lambda run: run.logits[0, 0, 0], lambda run: 1.0, lambda run: run.logits[:, 0, 0] * torch.nan],
    ids=["scalar", "float", "nan"],
)
def test_a_metric_of_the_wrong_shape_or_value_is_refused(gpt2: Network, metric: Any) -> None:
    with pytest.raises(BadInput):
        gpt2.run(token_ids(), keep="embed", grads=metric)


# -- the ledger --


def test_every_edit_says_how_many_rows_it_reached(gpt2: Network) -> None:
    edits = [
        Ablate("blocks.0.attn.z[1]"),
        Add("blocks.1.resid_post", where=Where(positions=(2,), rows=(0, 2)), vector=1.0),
        Scale("blocks.*.mlp.out", factor=0.5, where=Where(rows=(1,))),
    ]
    run = gpt2.run(token_ids(), edits=edits)
    reached = {(type(x.edit).__name__, x.site): x.rows for x in run.ledger}
    assert reached == {
        ("Ablate", "blocks.0.attn.z"): 3,
        ("Add", "blocks.1.resid_post"): 2,
        ("Scale", "blocks.0.mlp.out"): 1,
        ("Scale", "blocks.1.mlp.out"): 1,
        ("Scale", "blocks.2.mlp.out"): 1,
    }
    assert all(x.fired == 1 for x in run.ledger)


@pytest.mark.parametrize("where", [Where(steps=(3,)), Where(since=1), Where(positions=()), Where(rows=())])
def test_an_edit_that_reaches_nothing_is_an_error(gpt2: Network, where: Where) -> None:
    with pytest.raises(EditMissed, match=r"Ablate at blocks\.1\.attn\.z"):
        gpt2.run(token_ids(), edits=Ablate("blocks.1.attn.z", where=where))


def test_a_module_that_this_input_does_not_go_through(opened: Opener) -> None:
    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x: Tensor, short: bool = False) -> Tensor:
            return self.first(x) if short else self.second(self.first(x))

    from openwork import network

    x = torch.randn(2, 3, 4)
    net = network.open(Forked().eval(), example={"x": x})
    with pytest.raises(EditMissed, match=r"module:second\.out"):
        net.run({"x": x, "short": True}, keep="module:second.out")
    with pytest.raises(EditMissed, match=r"Scale at module:second\.out"):
        net.run({"x": x, "short": True}, edits=Scale("module:second.out"))


# -- asking a run for what it does not have --


def test_a_site_that_was_not_kept_names_those_that_were(gpt2: Network) -> None:
    run = gpt2.run(token_ids(), keep="blocks.1.resid_post")
    with pytest.raises(UnknownName, match=r"blocks\.1\.resid_post"):
        _ = run["blocks.1.resid_pst"]
    assert "blocks.1.resid_post" in run
    assert "blocks.0.resid_post" not in run
    assert "blocks.1.resid_post (3, 9, 32)" in repr(run)


def test_something_that_is_no_edit_is_refused(gpt2: Network) -> None:
    with pytest.raises(BadInput, match="expected edits"):
        gpt2.run(token_ids(), edits=["blocks.1.attn.z"])  # pyright: ignore[reportArgumentType]
