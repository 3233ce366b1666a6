"""Opening modules: in training, compiled, quantised, with and without an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork import network
from openwork.edit import Ablate, KnockOut, Scale
from openwork.errors import BadInput
from openwork.network.example import guess

from .conftest import Opener
from .oracle import forward, hooks_left, places
from .tiny import BUILDERS, HEAD, build, example, token_ids


def test_the_module_stays_the_users_own() -> None:
    module = build("gpt2")
    net = network.open(module)
    assert net.module is module
    assert net.name == "GPT2LMHeadModel"
    assert net.device == torch.device("cpu")
    assert net.vocabulary == 60


@pytest.mark.parametrize("kind", ["gpt2", "attention-only", "encoder"])
def test_a_module_in_training_mode(kind: str) -> None:
    with pytest.raises(BadInput, match=r"\.eval\(\) first"):
        network.open(build(kind).train())


def test_a_run_of_a_module_that_went_back_to_training() -> None:
    net = network.open(build("gpt2"))
    net.module.train()
    with pytest.raises(BadInput, match="eval"):
        net.run(token_ids(), keep="embed")


@pytest.mark.parametrize("kind", [k for k in BUILDERS if k not in ("looped", "perceptron")])
def test_an_example_can_be_guessed(kind: str) -> None:
    with torch.no_grad():
        build(kind)(**guess(build(kind)))


def test_an_example_that_cannot_be_guessed() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(BadInput, match="pass example="):
        network.open(Odd().eval())


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("gpt2", {"input_ids": torch.randn(2, 5)}),
        ("gpt2", {"inputs": torch.ones(2, 5, dtype=torch.long)}),
        ("perceptron", {"x": torch.randn(2, 5)}),
        ("pictures", {"pixels": torch.randn(2, 4, 8, 8)}),
    ],
)
def test_an_example_that_the_module_does_not_take(kind: str, given: dict[str, Tensor]) -> None:
    with pytest.raises(BadInput, match="example="):
        network.open(build(kind), example=given)


def test_a_module_that_returns_no_numbers() -> None:
    class Mute(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> str:
            return "nothing"

    with pytest.raises(BadInput, match="return a floating tensor"):
        network.open(Mute().eval(), example={"x": torch.ones(2, 3)})


def test_attention_that_keeps_its_mask_to_itself_is_read_without_weights() -> None:
    """An implementation that openwork does not know: q, k, v and z stay, scores and patterns are refused."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def secret(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *args: Any, **kwargs: Any) -> Any:
        return sdpa_attention_forward(module, query, key, value, None, *args, **kwargs)

    AttentionInterface.register("secret", secret)
    try:
        module = build("gpt2")
        module.set_attn_implementation("secret")
        net = network.open(module)
        assert "blocks.1.attn.z" in net.sites
        for block in range(3):
            for part in ("scores", "pattern"):
                assert "secret" in net.refused[f"blocks.{block}.attn.{part}"]
    finally:
        AttentionInterface._global_mapping.pop("secret")


# -- compiled --


class Backend:
    """A backend of torch.compile that counts the graphs it made and the calls they got."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1

        def call(*args: Any) -> Any:
            self.calls += 1
            return graph.forward(*args)

        return call


def compiled(in_place: bool) -> tuple[Any, Backend]:
    torch._dynamo.reset()
    backend, module = Backend(), build("gpt2")
    if not in_place:
        return torch.compile(module, backend=backend), backend
    module.compile(backend=backend)
    return module, backend


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile", "module.compile"])
def test_a_compiled_network_is_the_same_network(opened: Opener, in_place: bool) -> None:
    plain = opened("gpt2")
    module, backend = compiled(in_place)
    net = network.open(module)
    assert list(net.sites) == list(plain.sites)
    assert {n: s.status for n, s in net.sites.items()} == {n: s.status for n, s in plain.sites.items()}

    ids = token_ids()
    before = backend.calls
    assert torch.equal(net.run(ids).logits, plain.run(ids).logits)
    assert backend.calls > before  # without hooks it runs compiled

    sites = ["blocks.*.resid_post", "blocks.1.attn.pattern", "blocks.1.attn.z[1]"]
    edits = [Ablate("blocks.0.attn.z[2]", -1), KnockOut("blocks.1.attn", keys=0)]
    got, expected = (n.run(ids, keep=sites, edits=edits) for n in (net, plain))
    assert torch.equal(got.logits, expected.logits)
    assert all(torch.equal(got[name], expected[name]) for name in expected.values)

    graphs, before = backend.graphs, backend.calls
    assert torch.equal(net.run(ids).logits, plain.run(ids).logits)
    assert backend.calls > before
    assert backend.graphs == graphs  # nothing had to be compiled anew
    assert hooks_left(module) == []


def test_gradients_of_a_compiled_network(opened: Opener) -> None:
    module, _ = compiled(in_place=False)
    runs = [
        net.run(token_ids(), keep="blocks.1.mlp.hidden", grads=lambda run: run.logits[:, -1, 3])
        for net in (network.open(module), opened("gpt2"))
    ]
    torch.testing.assert_close(*(run.grads["blocks.1.mlp.hidden"] for run in runs))


def test_generation_of_a_compiled_network(opened: Opener) -> None:
    module, _ = compiled(in_place=False)
    edit = Scale("blocks.1.attn.z[1]", factor=-4.0)
    got, expected = (
        net.generate(token_ids(), max_new_tokens=4, edits=edit).ids for net in (network.open(module), opened("gpt2"))
    )
    assert got == expected


# -- quantised --


def quantised(kind: str) -> Any:
    """Dynamically quantised linears of torch, which hold their weights packed."""
    quantisation = pytest.importorskip("torch.ao.quantization", reason="torch without eager quantisation")
    if "fbgemm" not in torch.backends.quantized.supported_engines and not torch.backends.quantized.engine:
        pytest.skip("no engine for quantised linears on this machine")
    return quantisation.quantize_dynamic(build(kind), {nn.Linear}, dtype=torch.qint8)


quiet = pytest.mark.filterwarnings("ignore")


@quiet
def test_quantised_linears_of_a_plain_module() -> None:
    module = quantised("perceptron")
    net, kwargs = network.open(module, example=example("perceptron")), example("perceptron", seed=3)
    site = "module:up.out[3]"

    def scale(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., 3] *= -2
        return value

    expected = forward(module, kwargs, {("up", "out"): scale})
    assert torch.equal(net.run(kwargs, edits=Scale(site, factor=-2.0)).logits, expected)
    assert torch.equal(net.run(kwargs, keep=site).logits, forward(module, kwargs))


@quiet
def test_quantised_linears_of_a_decoder(opened: Opener) -> None:
    module = quantised("llama")
    net = network.open(module)
    assert set(net.sites) == set(opened("llama").sites)
    assert {s.status for s in net.sites.values()} == {"certified"}
    place = places("llama", 3)["blocks.1.attn.z"]

    def cut(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., HEAD : 2 * HEAD] = 0
        return value

    expected = forward(module, {"input_ids": token_ids()}, {place: cut})
    run = net.run(token_ids(), edits=Ablate("blocks.1.attn.z[1]"), keep="blocks.1.mlp.hidden")
    assert torch.equal(run.logits, expected)
    assert run["blocks.1.mlp.hidden"].shape == (3, 9, 40)
