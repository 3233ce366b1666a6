"""Backward rules at work: against relevance propagated by hand, and gone when the call is over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openwork import network
from openwork.errors import BadInput, SiteRefused
from openwork.network import Network
from openwork.network.rules import Rules, is_pointwise, require_seen, secant
from openwork.rule import ATTN_LRP, AVERAGED, GUIDED, LINEARISED, RELP, BackwardRule, Freeze

from .tiny import build

FAST = ("gpt2", "llama")
SLOW = ("gemma2", "t5", "attention-only", "bert", "bloom", "falcon", "granite", "mistral", "neox", "vit")


class Gated(nn.Module):
    """An RMS norm, a gated MLP and a read-out: everything that a rule is about but attention."""

    def __init__(self, width: int = 4, hidden: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, 3, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.down(F.silu(self.gate(y)) * self.up(y))


class InPlace(nn.Module):
    """A product taken in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.a(x)
        y *= self.b(x)
        return y


X = torch.randn(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
FIRST = "module:norm.in"


def opened(module: nn.Module, name: str = "x") -> Network:
    return network.open(module.double().eval(), example={name: X})


def first_logit(run: Any) -> Tensor:
    return run.logits[:, 0] if run.logits.ndim == 2 else run.logits[:, -1, 0]


def relevance(net: Network, inputs: Any, site: str, rules: Any = RELP) -> Tensor:
    run = net.run(inputs, keep=site, grads=first_logit, rules=rules)
    return run[site] * run.grads[site]


def by_hand(module: Gated, x: list[float]) -> list[float]:
    """Relevance of the first output, propagated from layer to layer as the rules say, with loops."""
    norm, gate, up, down = (
        layer.weight.tolist() for layer in (module.norm, module.gate, module.up, module.down)
    )  # fmt: skip
    width, hidden = len(x), len(gate)
    scale = (sum(v * v for v in x) / width + 1e-5) ** 0.5
    y = [norm[i] * x[i] / scale for i in range(width)]
    a = [sum(gate[j][i] * y[i] for i in range(width)) for j in range(hidden)]
    b = [sum(up[j][i] * y[i] for i in range(width)) for j in range(hidden)]
    act = [v * torch.sigmoid(torch.tensor(v, dtype=torch.float64)).item() for v in a]
    product = [act[j] * b[j] * down[0][j] for j in range(hidden)]  # relevance of each hidden unit
    out = [0.0] * width
    for j in range(hidden):
        for i in range(width):
            out[i] += product[j] / 2 * gate[j][i] * y[i] / a[j]  # through the gate, whose activation passes it on
            out[i] += product[j] / 2 * up[j][i] * y[i] / b[j]
    return out  # the norm is a diagonal map: each channel keeps its relevance


def test_relevance_is_that_propagated_by_hand() -> None:
    module = Gated()
    found = relevance(opened(module), {"x": X}, FIRST)
    expected = torch.tensor([by_hand(module, row) for row in X.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_relevance_of_a_gated_network_adds_up_to_its_output() -> None:
    net = opened(Gated())
    torch.testing.assert_close(relevance(net, {"x": X}, FIRST).sum(1), net.run({"x": X}).logits[:, 0])


def test_plain_gradient_times_input_does_not_add_up_there() -> None:
    net = opened(Gated())
    plain = relevance(net, {"x": X}, FIRST, rules=()).sum(1)
    assert (plain - net.run({"x": X}).logits[:, 0]).abs().min() > 1e-3


@pytest.mark.parametrize("kind", [*FAST, *(pytest.param(kind, marks=pytest.mark.extended) for kind in SLOW)])
def test_relevance_without_biases_adds_up_to_the_output_and_leaves_it_as_it_is(kind: str) -> None:
    module = build(kind)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    net = network.open(module.double())
    site = next(name for name in ("blocks.0.resid_pre", "encoder.blocks.0.resid_pre") if name in net.sites)
    both = [site] if not site.startswith("encoder") else [site, site.replace("encoder", "decoder")]
    run = net.run(net.example, keep=both, grads=first_logit, rules=RELP)
    total = sum((run[name] * run.grads[name]).flatten(1).sum(1) for name in both)
    torch.testing.assert_close(total, run.metric, rtol=1e-4, atol=1e-5)
    assert torch.equal(run.logits, net.run(net.example).logits)


def test_rules_count_how_often_they_fired() -> None:
    net = network.open(build("llama"))
    run = net.run(net.example, keep="embed", grads=first_logit, rules=RELP)
    assert run.ruled == {"norm": 7, "pattern": 3, "activation": 3 + 7, "product": 3}  # the norms square, too


def test_a_call_without_rules_after_one_with_rules_has_plain_gradients() -> None:
    net = network.open(build("gpt2"))
    before = relevance(net, net.example, "embed", ())
    assert not torch.allclose(relevance(net, net.example, "embed", RELP), before)
    assert torch.equal(relevance(net, net.example, "embed", ()), before)


@pytest.mark.parametrize("where", ["metric", "forward"])
def test_rules_are_gone_after_an_error(where: str) -> None:
    net = network.open(build("gpt2"))
    hooks = {id(m): (len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules}

    def fail(*given: Any) -> Tensor:
        raise KeyError("on purpose")

    handle = net.modules[-1].register_forward_hook(fail) if where == "forward" else None
    with pytest.raises((KeyError, BadInput), match="on purpose"):
        net.run(net.example, keep="embed", grads=fail if where == "metric" else first_logit, rules=RELP)
    if handle is not None:
        handle.remove()
    x = torch.ones(3, requires_grad=True)
    (grad,) = torch.autograd.grad((x.softmax(0) * x * x.tanh()).sum(), x)
    assert (grad != 0).all()
    assert hooks == {id(m): (len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules}
    assert len(torch.overrides._get_current_function_mode_stack()) == 0


def test_epsilon_scales_the_gradient_of_a_linear_map() -> None:
    net = opened(nn.Sequential(nn.Linear(4, 3, bias=False)), "input")
    rule = BackwardRule("linear", "epsilon", 0.5)
    run = net.run({"input": X}, keep="module:0.in", grads=first_logit, rules=[rule])
    z = run.logits[:, :1]
    weight = net.module.get_parameter("0.weight")[0]
    torch.testing.assert_close(run.grads["module:0.in"], weight * z / (z + 0.5 * z.sign()))


def test_guided_backpropagation_drops_negative_gradients_and_inputs() -> None:
    torch.manual_seed(0)
    first, second, last = (nn.Linear(4, 4) for _ in range(3))
    net = opened(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(inplace=True), last), "input")
    run = net.run({"input": X}, keep="module:0.in", grads=first_logit, rules=GUIDED)
    a = first(X)
    b = second(a.clamp_min(0))
    g = last.weight[0].clamp_min(0) * (b > 0)
    g = (g @ second.weight).clamp_min(0) * (a > 0) @ first.weight
    torch.testing.assert_close(run.grads["module:0.in"], g)


@pytest.mark.parametrize("f", [F.silu, F.gelu, torch.tanh, torch.sigmoid])
def test_the_secant_at_zero_is_the_derivative(f: Any) -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(f(x), x)
    torch.testing.assert_close(secant(f, x.detach(), f(x).detach()), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("module", "expected"), [
    (nn.GELU(), True), (nn.ReLU(inplace=True), True), (nn.Softmax(-1), False), (nn.Identity(), False),
    (nn.Linear(8, 8), False), (nn.LayerNorm(8, elementwise_affine=False), False), (nn.Bilinear(2, 2, 2), False),
])  # fmt: skip
def test_pointwise_modules_are_found_by_calling_them(module: nn.Module, expected: bool) -> None:
    assert is_pointwise(module) is expected


def test_relevance_through_the_softmax_differs_from_a_frozen_pattern() -> None:
    net = network.open(build("gpt2"))
    frozen, through = (relevance(net, net.example, "embed", rules) for rules in (RELP, ATTN_LRP))
    run = net.run(net.example, keep="blocks.0.attn.q", grads=first_logit, rules=RELP)
    assert float(run.grads["blocks.0.attn.q"].abs().max()) == 0
    run = net.run(net.example, keep="blocks.0.attn.q", grads=first_logit, rules=ATTN_LRP)
    assert float(run.grads["blocks.0.attn.q"].abs().max()) > 0
    assert not torch.allclose(frozen, through)


def test_a_product_in_place_is_refused() -> None:
    net = opened(InPlace())
    with pytest.raises(SiteRefused, match="in place"):
        net.run({"x": X}, keep="module:first.in", grads=first_logit, rules=RELP)


def test_attention_that_no_rule_saw_is_refused() -> None:
    net = network.open(build("gpt2"))
    with pytest.raises(SiteRefused, match="sdpa"):
        require_seen(net, Rules((Freeze("pattern"),)))


def test_rules_without_gradients_are_refused() -> None:
    net = network.open(build("gpt2"))
    with pytest.raises(BadInput, match="grads="):
        net.run(net.example, keep="embed", rules=RELP)


class Pooled(nn.Module):
    """A convolution, a max pooling and a read-out of the largest place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(F.relu(self.conv(x))).amax((2, 3)))


def _pooled() -> tuple[Pooled, Tensor]:
    module = Pooled().double().eval()
    return module, torch.randn(3, 2, 6, 6, dtype=torch.float64)


def _logit(run: Any) -> Tensor:
    return run.logits[:, 1]


def test_without_its_nonlinearities_a_network_has_the_gradient_of_averages() -> None:
    module, x = _pooled()
    run = network.open(module, example={"x": x}).run({"x": x}, keep="module:conv.in", grads=_logit, rules=LINEARISED)
    leaf = x.clone().requires_grad_()
    module.head(F.avg_pool2d(module.conv(leaf), 2).mean((2, 3)))[:, 1].sum().backward()
    torch.testing.assert_close(run.grads["module:conv.in"], leaf.grad)
    assert torch.equal(run.logits, module(x))


def test_the_mean_slope_of_a_relu_is_how_often_each_channel_is_on() -> None:
    module, x = _pooled()
    run = network.open(module, example={"x": x}).run({"x": x}, keep="module:conv.in", grads=_logit, rules=AVERAGED)
    share = (module.conv(x) > 0).double().mean((0, 2, 3)).detach()
    leaf = x.clone().requires_grad_()
    slopes = share[:, None, None]
    module.head(F.avg_pool2d(slopes * module.conv(leaf), 2).mean((2, 3)))[:, 1].sum().backward()
    torch.testing.assert_close(run.grads["module:conv.in"], leaf.grad)


def test_max_pooling_with_dilation_is_refused() -> None:
    module, x = _pooled()
    module.pool = nn.MaxPool2d(2, dilation=2)
    with pytest.raises(SiteRefused, match="dilation"):
        network.open(module, example={"x": x}).run({"x": x}, keep="module:conv.in", grads=_logit, rules=LINEARISED)
