"""Backward rules at work: torch functions are met one by one, and some get another derivative for one forward pass.

Only what depends on a site that gradients are asked for is met; parameters, and all that is made of them alone, count
as constants. What a function returns stays the same tensor value: a rule adds ``s - s.detach()``, which is zero, for a
surrogate s that has the wanted derivative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from openwork.errors import SiteRefused
from openwork.network.attention import MATMUL, SOFTMAX, Visits, eager_sdpa, unfused_mha
from openwork.network.paths import leaves, replaced
from openwork.network.ports import norm_scale
from openwork.network.session import Session
from openwork.rule import BackwardRule, Freeze, Rule

if TYPE_CHECKING:
    from openwork.network.network import Network

POINTWISE: frozenset[Any] = frozenset(
    getattr(space, name)
    for space in (F, torch, Tensor)
    for name in (
        *("relu", "gelu", "silu", "elu", "celu", "selu", "mish", "softplus", "hardswish", "hardsigmoid", "hardtanh"),
        *("relu6", "leaky_relu", "tanh", "sigmoid", "logsigmoid", "softsign", "tanhshrink", "square", "exp", "expm1"),
        *("erf", "sin", "cos", "abs", "clamp", "clamp_min", "clamp_max", "pow", "__pow__"),
    )
    if hasattr(space, name)
)
"""Functions of each element alone."""
NORMS = {F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm}
GROUPED = {F.group_norm, torch.group_norm, F.instance_norm, torch.instance_norm}
DIVISORS = {
    *(torch.rsqrt, Tensor.rsqrt, torch.sqrt, Tensor.sqrt, torch.std, Tensor.std, torch.norm, Tensor.norm),
    *(torch.linalg.vector_norm, torch.linalg.norm),
}
POWERS = {torch.pow, Tensor.pow, Tensor.__pow__}
PRODUCTS = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply, Tensor.multiply}
PRODUCTS_IN_PLACE = {Tensor.mul_, Tensor.__imul__}
BILINEAR = {*PRODUCTS, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum}
LINEAR = {F.linear, torch.addmm, Tensor.addmm, F.conv1d, F.conv2d, F.conv3d}
POOLS: dict[str, Any] = {
    **{f"max_pool{n}d": getattr(F, f"avg_pool{n}d") for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": getattr(F, f"adaptive_avg_pool{n}d") for n in (1, 2, 3)},
    "amax": torch.mean,
}
"""Name of a maximum over windows or places -> the average over the same ones."""
WINDOWED = {name for name in POOLS if name.startswith("max_pool")}
WINDOW = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
MADE_LIVE = {Tensor.requires_grad_, Tensor.detach, Tensor.requires_grad.__set__}  # type: ignore[attr-defined]


def depends(value: Any) -> bool:
    """Whether a value depends on what gradients are asked for: differentiable, and no parameter."""
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a function of each element alone: it has no weights, and a part of its input gives that part.

    It is called on a few numbers to see.
    """
    if any(True for _ in module.children()) or any(True for _ in module.parameters()):
        return False
    x = torch.linspace(-2.0, 2.5, 8)[None, None]
    try:
        with torch.no_grad():
            whole, part, again = (module.forward(y.clone()) for y in (x, x[..., :3], x))
    except Exception:  # whatever it wants, it is not one tensor
        return False
    if not isinstance(whole, Tensor) or whole.shape != x.shape or not isinstance(part, Tensor):
        return False
    return torch.equal(whole[..., :3], part) and torch.equal(whole, again) and not torch.equal(whole, x)


def pointwise_modules(root: nn.Module) -> list[nn.Module]:
    """The activation modules of a network, whatever they are called."""
    return [module for module in root.modules() if is_pointwise(module)]


def overwrites(module: nn.Module) -> bool:
    """Whether an activation module writes into its input."""
    return bool(getattr(module, "inplace", False))


class Rules(TorchFunctionMode):
    """Meets torch functions while the network runs.

    Args:
        rules: what to replace, one rule a thing.
    """

    def __init__(self, rules: tuple[Rule, ...]):
        super().__init__()
        self.frozen = {rule.of for rule in rules if isinstance(rule, Freeze)}
        self.of = {rule.of: rule for rule in rules if isinstance(rule, BackwardRule)}
        self.fired: Counter[str] = Counter()
        self.running = False
        self.inside = 0

    def attach(self, session: Session, root: nn.Module) -> None:
        """Run within a session, from the beginning to the end of each call of the network."""

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.running, self.inside = True, 0
            self.fired.clear()

        def end(module: nn.Module, args: Any, output: Any) -> None:
            self.running = False

        session.on_input(root, begin)
        session.on_output(root, end)
        if "activation" in self.of:
            for module in pointwise_modules(root):
                self._attach_activation(session, module)
        session.enter(self)

    def _attach_activation(self, session: Session, module: nn.Module) -> None:
        """Rule the module as a whole: what it computes inside is no business of the other rules."""
        before: list[Tensor | None] = []

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.inside += 1
            ruled = self.running and bool(args) and depends(args[0])
            before.append((args[0].clone() if overwrites(module) else args[0]) if ruled else None)

        def end(module: nn.Module, args: Any, output: Any) -> Any:
            self.inside -= 1
            x = before.pop()
            if x is None or not isinstance(output, Tensor):
                return None
            return self._activation(module.forward, x, output)

        session.on_input(module, begin)
        session.on_output(module, end)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.running or self.inside or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if not any(depends(leaf) for _, leaf in leaves((args, kwargs))):
            return func(*args, **kwargs) if func in MADE_LIVE else constant(func(*args, **kwargs))
        return self._ruled(func, args, kwargs)

    def _ruled(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.multi_head_attention_forward:
            with self:  # its own matmul and softmax are what the rules are about
                return unfused_mha(*args, **kwargs)
        if func in SOFTMAX and "pattern" in self.frozen:
            return self._held("pattern", func, args, kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attention(func, args, kwargs)
        if func in NORMS and "norm" in self.frozen:
            self.fired["norm"] += 1
            return through(func(*args, **kwargs), _normed(func, *args, **kwargs))
        if func in GROUPED and "norm" in self.frozen:
            self.fired["norm"] += 1
            return through(func(*args, **kwargs), _grouped(func, args, kwargs))
        if "norm" in self.frozen and (func in DIVISORS or (func in POWERS and _exponent(args, kwargs) in (0.5, -0.5))):
            return self._held("norm", func, args, kwargs)
        if func in POINTWISE and "activation" in self.of and args:
            rest, named = args[1:], kwargs
            x = args[0].clone() if kwargs.get("inplace") or any(value is True for value in rest) else args[0]
            return self._activation(lambda x: func(x, *rest, **named), x, func(*args, **kwargs))
        if func in PRODUCTS_IN_PLACE and "product" in self.of and all(map(depends, args[:2])):
            raise SiteRefused(
                "a product of two activations is taken in place, where its backward rule cannot be replaced; "
                "use a method without rules, such as integrated gradients"
            )
        if (func in BILINEAR or func in MATMUL) and "product" in self.of:
            return self._product(func, args, kwargs)
        if "pool" in self.of and getattr(func, "__name__", "") in POOLS:
            return self._pool(func, args, kwargs)
        if func in LINEAR and "linear" in self.of:
            return self._linear(func(*args, **kwargs))
        return func(*args, **kwargs)

    def _held(self, thing: str, func: Any, args: Any, kwargs: Any) -> Any:
        self.fired[thing] += 1
        with torch.no_grad():
            return func(*args, **kwargs)

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Attention in one kernel: linear in the values for a frozen pattern, else spelled out for the other rules."""
        self.fired["pattern"] += "pattern" in self.frozen
        names = ("query", "key", "value")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        q, k, v = (given.pop(name) for name in names)
        more = args[3:]
        if "pattern" in self.frozen:
            return func(q.detach(), k.detach(), v, *more, **given)
        if "product" not in self.of:
            return func(q, k, v, *more, **given)
        with torch.no_grad():
            out = func(q, k, v, *more, **given)
        with self:
            spelled = eager_sdpa(Visits(), q, k, v, *more, **given)
        return through(out, spelled)

    def _activation(self, f: Callable[[Tensor], Tensor], x: Tensor, out: Tensor) -> Tensor:
        self.fired["activation"] += 1
        how = self.of["activation"].how
        if how == "positive":
            return through(out, _Guided.apply(f(x.clone()), x))
        if how == "identity":
            return through(out, x)
        if how == "mean":
            return through(out, x * self._mean_slope(f, x.detach()))
        with torch.no_grad():
            slope = secant(f, x.detach(), out.detach())
        return through(out, x * slope)

    def _mean_slope(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The derivative of each channel, averaged over rows and places."""
        self.inside += 1
        try:
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(f(leaf.clone()).sum(), leaf)
        finally:
            self.inside -= 1
        channel = 1 if x.ndim == 4 else x.ndim - 1
        return slope.mean([axis for axis in range(x.ndim) if axis != channel], keepdim=True)

    def _pool(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """A maximum with the gradient of the average over the same places.

        Raises:
            SiteRefused: where there is no such average.
        """
        given = dict(kwargs)
        indices = given.pop("return_indices", False)
        if func.__name__ in WINDOWED:
            given |= dict(zip(WINDOW, args[1:], strict=False))
            args = args[:1]
            indices = given.pop("return_indices", indices)
            if any(n != 1 for n in torch.as_tensor(given.pop("dilation", 1)).flatten().tolist()):
                raise SiteRefused("max pooling with dilation has no average pooling that could stand for it")
        if indices:
            raise SiteRefused("max pooling that returns indices has no average pooling that could stand for it")
        self.fired["pool"] += 1
        return through(func(*args, **given), POOLS[func.__name__](*args, **given))

    def _product(self, func: Any, args: Any, kwargs: Any) -> Any:
        live = [(path, leaf) for path, leaf in leaves((args, kwargs)) if depends(leaf)]
        if len(live) != 2:
            return func(*args, **kwargs)
        self.fired["product"] += 1
        first, second = (replaced((args, kwargs), path, leaf.detach()) for path, leaf in live)
        half = 0.5 * (func(*first[0], **first[1]) + func(*second[0], **second[1]))
        with torch.no_grad():
            out = func(*args, **kwargs)
        return through(out, half)

    def _linear(self, out: Tensor) -> Tensor:
        self.fired["linear"] += 1
        strength = self.of["linear"].strength
        z = out.detach()
        return through(out, out * (z / (z + strength * torch.where(z < 0, -1.0, 1.0).to(z))))


def through(out: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one tensor with the derivative of another."""
    return out.detach() + (surrogate - surrogate.detach())


def secant(f: Callable[[Tensor], Tensor], x: Tensor, out: Tensor) -> Tensor:
    """The slope of the line from (0, f(0)) to (x, f(x)); at zero that of the nearest point of double precision."""
    tiny = 1e-6
    near = x.abs() < tiny
    base = f(torch.zeros_like(x))
    plain = (out - base) / torch.where(near, torch.ones_like(x), x)
    if not bool(near.any()):
        return plain
    step = torch.full_like(x, tiny, dtype=torch.float64)
    wide = (f(step.clone()) - f(-step)) / (2 * tiny)  # some overwrite what they are given
    return torch.where(near, wide.to(x.dtype), plain)


class _Guided(torch.autograd.Function):
    """An activation whose gradient passes where it is positive and the input was."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0].clamp_min(0) * (x > 0), None


def _normed(func: Any, x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: Any = None) -> Tensor:
    """LayerNorm or RMSNorm with its divisor held."""
    centred = func in (F.layer_norm, torch.layer_norm)
    default = 1e-5 if centred else torch.finfo(x.dtype).eps
    axes = tuple(range(-len(tuple(shape)), 0))
    flat = x.detach().flatten(axes[0])
    scale = (
        norm_scale(flat, centred, default if eps is None else eps)
        .to(x.dtype)
        .reshape(*x.shape[: axes[0]], *(1,) * len(axes))
    )
    y = (x - x.mean(axes, keepdim=True) if centred else x) / scale
    y = y if weight is None else y * weight.detach()
    return y if bias is None else y + bias.detach()


def _grouped(func: Any, args: Any, kwargs: Any) -> Tensor:
    """A norm over groups or channels of an image with its divisor held: linear, so its own derivative at a scaled copy.

    With the divisor s held, y = w (x - mean) / s + b. The mean is linear, and s is read off the output.
    """
    x = args[0]
    groups = args[1] if func in (F.group_norm, torch.group_norm) else x.shape[1]
    weight, bias, eps = (kwargs.get(name) for name in ("weight", "bias", "eps"))
    if func in (F.group_norm, torch.group_norm):
        weight, bias, eps = (*args[2:5], *(None,) * (3 - len(args[2:5]))) if len(args) > 2 else (weight, bias, eps)
    else:
        given = dict(zip(("running_mean", "running_var", "weight", "bias"), args[1:5], strict=False)) | kwargs
        weight, bias = given.get("weight"), given.get("bias")
    parts = x.reshape(x.shape[0], int(groups), -1)
    held = norm_scale(parts.detach(), True, 1e-5 if eps is None else eps).to(x.dtype)
    y = ((parts - parts.mean(-1, keepdim=True)) / held).reshape(x.shape)
    spread = (1, -1, *(1,) * (x.ndim - 2))
    y = y if weight is None else y * weight.detach().reshape(spread)
    return y if bias is None else y + bias.detach().reshape(spread)


def _exponent(args: Any, kwargs: Any) -> Any:
    return kwargs.get("exponent", args[1] if len(args) > 1 else None)


def constant(value: Any) -> Any:
    """What a function of parameters alone returned, cut off from them."""
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad else value
    if type(value) in (tuple, list):
        return type(value)(constant(item) for item in value)
    return value


def require_seen(net: Network, rules: Rules) -> None:
    """Refuse a network whose attention ran where no rule could see it.

    Raises:
        SiteRefused: naming what was asked for.
    """
    attends = any(name.endswith("attn.q") for name in net.sites)
    if "pattern" in rules.frozen and attends and not rules.fired["pattern"]:
        raise SiteRefused(
            f"the attention of {net.name} ran in a kernel that backward rules cannot see, so its patterns were not "
            "frozen; load the model with attn_implementation='sdpa' or 'eager'"
        )
