"""Follows how tensors lie in the image through every function of one forward pass.

What is known of a function is in `RULES`. Of any other function only this is assumed: a result of the same shape has
the same axes, and may depend on the whole image. So a field is never stated smaller than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from openwork.network.attention import unfused_mha
from openwork.network.lie import MAP, Lie, Reach, merged, reshaped

Seen = Callable[["Follower", Mapping[str, Any], Tensor], Lie]
ONE = Reach()
PLACES = ("y", "x", "position")

POINTWISE = frozenset(
    """add sub mul div true_divide floor_divide iadd isub imul itruediv radd rsub rmul rtruediv rdiv truediv neg abs
    pow rpow square sqrt rsqrt exp expm1 log log1p sigmoid tanh relu relu6 leaky_relu elu selu celu gelu silu mish
    softplus softsign hardtanh hardswish hardsigmoid hardshrink prelu threshold logsigmoid erf sin cos reciprocal clamp
    clamp_min clamp_max clip maximum minimum where masked_fill lerp addcmul addcdiv sign round floor ceil nan_to_num
    dropout dropout2d feature_dropout alpha_dropout to float half double bfloat16 type type_as contiguous clone detach
    requires_grad copy batch_norm cpu cuda identity positive gt lt ge le eq ne logical_not logical_and logical_or
    isnan isfinite hypot atan2 erfinv rrelu tanhshrink""".split()  # noqa: SIM905 - as a list it would fill a page
)


class Follower:
    """What is known of every tensor of one forward pass.

    Args:
        root: the network, whose own tensors depend on no image.
        inputs: the arguments of the call.
    """

    def __init__(self, root: nn.Module, inputs: Mapping[str, Any]):
        self.lies: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.own = {id(t) for t in (*root.parameters(), *root.buffers())}
        for value in inputs.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                self.lies[value] = _image(root, value) if value.ndim == 4 else Lie.unknown(value.ndim)

    def of(self, value: Tensor) -> Lie | None:
        """How a tensor lies; None for what depends on no input."""
        if id(value) in self.own or isinstance(value, nn.Parameter):
            return None
        if value in self.lies:
            return self.lies[value]
        return Lie.unknown(value.ndim)

    def see(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        """Take in what a function made of its arguments."""
        if getattr(func, "__name__", "") == "__setitem__":
            self.lies[args[0]] = (self.of(args[0]) or Lie.unknown(args[0].ndim)).lost()
        outputs = [output] if isinstance(output, Tensor) else output
        if not isinstance(outputs, (list, tuple)):
            return
        tensors = [t for a in (*args, *kwargs.values()) for t in _tensors(a)]
        known = [(lie, t.shape) for t in tensors if (lie := self.of(t)) is not None]
        for number, out in enumerate(outputs):
            if isinstance(out, Tensor):
                self.lies[out] = self._lie(func, args, kwargs, known, tensors, out, number) if known else None

    def _lie(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        known: Sequence[tuple[Lie, Sequence[int]]],
        tensors: list[Tensor],
        out: Tensor,
        number: int,
    ) -> Lie:
        name = getattr(func, "__name__", "").strip("_")
        if name in POINTWISE:
            return merged(known, out.shape)
        rule = RULES.get(name)
        if rule is not None:
            try:
                lie = rule(self, _bound(name, args, {**kwargs, "output_number": number}), out)
            except (KeyError, IndexError, TypeError, ValueError):  # called in a way that is not foreseen
                lie = None
            if lie is not None and len(lie.axes) == out.ndim:
                return lie
        same = next((lie for lie, shape in known if tuple(shape) == tuple(out.shape)), None)
        return Lie.unknown(out.ndim) if same is None else same.globally()


class Following(TorchFunctionMode):
    """A forward pass under a `Follower`."""

    def __init__(self, follower: Follower):
        super().__init__()
        self.follower = follower

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return unfused_mha(*args, **kwargs)
        output = func(*args, **kwargs)
        self.follower.see(func, args, kwargs, output)
        return output


def image_axes(root: nn.Module, value: Tensor) -> tuple[str, ...]:
    """The axes of an input of four: channels stand where the first convolution, or a count of 1 or 3, puts them."""
    conv = next((m for m in root.modules() if isinstance(m, nn.Conv2d)), None)
    wanted = (conv.in_channels,) if conv is not None else (1, 3)
    last = value.shape[1] not in wanted and value.shape[-1] in wanted
    return ("batch", "y", "x", "channel") if last else MAP


def _image(root: nn.Module, value: Tensor) -> Lie:
    axes = image_axes(root, value)
    size = (value.shape[axes.index("y")], value.shape[axes.index("x")])
    return Lie(axes, ONE, ONE, size, 0, False)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, (list, tuple)) else []


_SIGNATURES: dict[str, tuple[str, ...]] = {
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "transposed": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "max_pool2d_with_indices": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "avg_pool2d": ("input", "kernel_size", "stride", "padding", "ceil_mode"),
    "pad": ("input", "pad", "mode", "value"),
    "transpose": ("input", "dim0", "dim1"),
    "movedim": ("input", "source", "destination"),
    "flatten": ("input", "start_dim", "end_dim"),
    "softmax": ("input", "dim"),
    "cat": ("tensors", "dim"),
    "mean": ("input", "dim", "keepdim"),
    "split": ("input", "split_size", "dim"),
    "narrow": ("input", "dim", "start", "length"),
    "select": ("input", "dim", "index"),
    "layer_norm": ("input", "normalized_shape"),
}
_ALIASES = {
    "conv1d": "conv", "conv2d": "conv", "conv3d": "conv", "conv_transpose2d": "transposed", "swapaxes": "transpose",
    "swapdims": "transpose", "moveaxis": "movedim", "log_softmax": "softmax", "concat": "cat", "concatenate": "cat",
    "sum": "mean", "amax": "mean", "amin": "mean", "std": "mean", "var": "mean", "split_with_sizes": "split",
    "chunk": "split", "rms_norm": "layer_norm",
}  # fmt: skip


def _bound(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    names = _SIGNATURES.get(_ALIASES.get(name, name), ("input",))
    bound = dict(zip(names, args, strict=False))
    bound["args"] = tuple(args)
    bound["name"] = name
    renamed = {"self": "input", "axis": "dim", "split_sizes": "split_size", "chunks": "split_size"}
    bound.update({renamed.get(k, k): v for k, v in kwargs.items()})
    if "input" not in bound and args:
        bound["input"] = args[0]
    return bound


def _pair(value: Any, default: int | None = None) -> tuple[int, int]:
    if value is None or (isinstance(value, (list, tuple)) and not value):
        assert default is not None
        return default, default
    return (int(value[0]), int(value[-1])) if isinstance(value, (list, tuple)) else (int(value), int(value))


def _given(follower: Follower, a: Mapping[str, Any], key: str = "input") -> tuple[Lie, Tensor]:
    value = a[key]
    return follower.of(value) or Lie.unknown(value.ndim), value


def _conv(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    names = {3: ("batch", "channel", "position"), 4: MAP, 5: ("batch", "channel", "time", "y", "x")}[out.ndim]
    if out.ndim != 4 or value.ndim != 4 or not lie.placed or lie.axes[2:] != ("y", "x"):
        return Lie(names)
    size, step = tuple(a["weight"].shape[2:]), _pair(a.get("stride", 1))
    dilation, padding = _pair(a.get("dilation", 1)), a.get("padding", 0)
    if isinstance(padding, str):
        spans = [(n - 1) * d for n, d in zip(size, dilation, strict=True)]
        padding = [span // 2 if padding == "same" else 0 for span in spans]
    early = _pair(padding)
    assert lie.y is not None
    assert lie.x is not None
    y, x = (r.window(size[i], step[i], early[i], dilation[i]) for i, r in enumerate((lie.y, lie.x)))
    return Lie(MAP, y, x, (out.shape[2], out.shape[3]), 0, lie.whole)


def _transposed(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    if value.ndim != 4 or not lie.placed or lie.axes[2:] != ("y", "x"):
        return Lie(MAP)
    size, step = tuple(a["weight"].shape[2:]), _pair(a.get("stride", 1))
    dilation, padding = _pair(a.get("dilation", 1)), _pair(a.get("padding", 0))
    assert lie.y is not None
    assert lie.x is not None
    y, x = (r.spread(size[i], step[i], padding[i], dilation[i]) for i, r in enumerate((lie.y, lie.x)))
    return Lie(MAP, y, x, (out.shape[2], out.shape[3]), 0, lie.whole)


def _pool(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, _ = _given(follower, a)
    if out.ndim != 4 or not lie.placed or lie.axes[2:] != ("y", "x"):
        return Lie(MAP) if out.ndim == 4 else Lie.unknown(out.ndim)
    size = _pair(a["kernel_size"])
    step = size if a.get("stride") in (None, [], ()) else _pair(a["stride"])
    padding, dilation = _pair(a.get("padding", 0)), _pair(a.get("dilation", 1))
    assert lie.y is not None
    assert lie.x is not None
    y, x = (r.window(size[i], step[i], padding[i], dilation[i]) for i, r in enumerate((lie.y, lie.x)))
    return Lie(MAP, y, x, (out.shape[2], out.shape[3]), 0, lie.whole)


def _adaptive(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    if out.ndim != 4 or not lie.placed or lie.axes[2:] != ("y", "x"):
        return Lie(MAP) if out.ndim == 4 else Lie.unknown(out.ndim)
    assert lie.y is not None
    assert lie.x is not None
    reaches = []
    for axis, reach in ((2, lie.y), (3, lie.x)):
        before, after = value.shape[axis], out.shape[axis]
        if before % after == 0:
            reaches.append(reach.window(before // after, before // after, 0))
        else:  # bins of unequal size: the largest, plus one place to either side of the mean
            wide = reach.resized(before, after)
            reaches.append(Reach(wide.stride, wide.offset, reach.field + reach.stride * (before // after + 3)))
    return Lie(MAP, reaches[0], reaches[1], (out.shape[2], out.shape[3]), 0, lie.whole)


def _resize(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    if out.ndim != 4 or not lie.placed or lie.axes[2:] != ("y", "x") or a.get("mode") in ("bicubic", "area"):
        return Lie(MAP) if out.ndim == 4 else Lie.unknown(out.ndim)
    assert lie.y is not None
    assert lie.x is not None
    y, x = lie.y.resized(value.shape[2], out.shape[2]), lie.x.resized(value.shape[3], out.shape[3])
    return Lie(MAP, y, x, (out.shape[2], out.shape[3]), 0, lie.whole or a.get("antialias") is True)


def _linear(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, _ = _given(follower, a)
    mixed = lie.axes[-1] in PLACES
    return Lie((*lie.axes[:-1], None)) if mixed else lie.named((*lie.axes[:-1], "channel"))


def _layer_norm(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, _ = _given(follower, a)
    if len(a["normalized_shape"]) > 1 or lie.axes[-1] in PLACES:
        return lie.globally()
    return lie.named((*lie.axes[:-1], "channel"))


def _global_norm(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    return _given(follower, a)[0].globally()


def _softmax(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, _ = _given(follower, a)
    dim = a.get("dim")
    return lie.globally() if dim is None or lie.axes[dim] in PLACES else lie


def _attention(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, _ = _given(follower, a)
    return lie.named((*lie.axes[:-1], None)).globally()


def _matmul(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    value, other = a["args"][:2]
    lie, right = follower.of(value), follower.of(other)
    if lie is None or value.ndim != out.ndim:
        return Lie.unknown(out.ndim)
    if right is None and lie.axes[-1] not in PLACES:
        return lie.named((*lie.axes[:-1], "channel"))
    return lie.named((*lie.axes[:-1], None)).globally()


def _permute(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    order = a["dims"] if "dims" in a else a["args"][1:]
    order = order[0] if len(order) == 1 and isinstance(order[0], (list, tuple)) else order
    return lie.ordered([d % value.ndim for d in order])


def _transpose(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    order = list(range(value.ndim))
    first, second = a["dim0"], a["dim1"]
    order[first], order[second] = order[second], order[first]
    return lie.ordered(order)


def _movedim(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    sources, targets = ([v] if isinstance(v, int) else list(v) for v in (a["source"], a["destination"]))
    sources, targets = [s % value.ndim for s in sources], [t % value.ndim for t in targets]
    rest = [i for i in range(value.ndim) if i not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        rest.insert(target, source)
    return lie.ordered(rest)


def _reshape(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    return reshaped(lie, value.shape, out.shape)


def _expand(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    return merged([(lie, value.shape)], out.shape)


def _slice(lie: Lie, axis: int, start: int, step: int, count: int, before: int) -> Lie:
    """Places `start`, `start + step` ... along one axis."""
    name = lie.axes[axis]
    if name not in PLACES or (start, step, count) == (0, 1, before) or not lie.placed:
        return lie
    assert lie.y is not None
    assert lie.x is not None
    if name == "y":
        return lie.moved(lie.y.sliced(start, step), lie.x, (count, lie.size[1]))
    if name == "x":
        return lie.moved(lie.y, lie.x.sliced(start, step), (lie.size[0], count))
    rest = lie.prefix - start
    if step == 1 and rest >= 0 and count >= rest + lie.size[0] * lie.size[1]:
        return Lie(lie.axes, lie.y, lie.x, lie.size, rest, lie.whole)
    return lie.lost()


def _getitem(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    value, index = a["args"][:2]
    lie = follower.of(value) or Lie.unknown(value.ndim)
    index = index if isinstance(index, tuple) else (index,)
    plain = sum(i is not None and i is not Ellipsis for i in index)
    if Ellipsis in [i for i in index if not isinstance(i, Tensor)]:
        at = next(n for n, i in enumerate(index) if i is Ellipsis)
        index = (*index[:at], *[slice(None)] * (value.ndim - plain), *index[at + 1 :])
    index = (*index, *[slice(None)] * (value.ndim - sum(i is not None for i in index)))
    axes: list[str | None] = []
    axis = 0
    for item in index:
        if item is None:
            axes.append(None)
            continue
        if isinstance(item, slice):
            start, stop, step = item.indices(value.shape[axis])
            lie = _slice(lie, axis, start, step, len(range(start, stop, step)), value.shape[axis])
            axes.append(lie.axes[axis])
        elif not isinstance(item, int):
            raise ValueError("an index by tensor")
        axis += 1
    return lie.named(tuple(axes))


def _split(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    axis, number = a.get("dim", 0) % value.ndim, a["output_number"]
    size = a["split_size"]
    if isinstance(size, int):
        size = -(-value.shape[axis] // size) if a["name"] == "chunk" else size
        start = number * size
    else:
        start = sum(size[:number])
    return _slice(lie, axis, start, 1, out.shape[axis], value.shape[axis])


def _narrow(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    axis = a["dim"] % value.ndim
    return _slice(lie, axis, int(a["start"]) % value.shape[axis], 1, int(a["length"]), value.shape[axis])


def _select(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    axis = a["dim"] % value.ndim
    return lie.named((*lie.axes[:axis], *lie.axes[axis + 1 :]))


def _cat(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    dim = a.get("dim", 0) % out.ndim
    parts = [(follower.of(t), t) for t in a["tensors"]]
    placed = [(lie, t) for lie, t in parts if lie is not None and lie.placed]
    along = {lie.axes[dim] for lie, _ in placed}
    if "position" in along:
        (lie, value) = placed[0]
        ahead = sum(t.shape[dim] for _, t in parts[: next(i for i, p in enumerate(parts) if p[1] is value)])
        if len(placed) > 1:
            return Lie.unknown(out.ndim)
        return Lie(lie.axes, lie.y, lie.x, lie.size, lie.prefix + ahead, lie.whole)
    if along & {"y", "x"}:
        return placed[0][0].lost()
    shape = list(out.shape)
    known = [(lie, [n if i == dim else t.shape[i] for i, n in enumerate(shape)]) for lie, t in parts if lie is not None]
    return merged(known, shape)


def _mean(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    dims = a.get("dim")
    dims = range(value.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % value.ndim for d in dims}
    if not gone & {i for i, name in enumerate(lie.axes) if name in PLACES}:
        kept = [None if i in gone else name for i, name in enumerate(lie.axes)]
        return lie.named(tuple(kept if a.get("keepdim") else [n for i, n in enumerate(kept) if i not in gone]))
    if a.get("keepdim") and lie.placed and {lie.axes[d] for d in gone} == {"y", "x"}:
        assert lie.y is not None
        assert lie.x is not None
        height, width = lie.size
        return Lie(lie.axes, lie.y.window(height, height, 0), lie.x.window(width, width, 0), (1, 1), 0, lie.whole)
    kept = [None if i in gone else name for i, name in enumerate(lie.axes)]
    return Lie(tuple(kept if a.get("keepdim") else [n for i, n in enumerate(kept) if i not in gone]))


def _pad(follower: Follower, a: Mapping[str, Any], out: Tensor) -> Lie:
    lie, value = _given(follower, a)
    pad = list(a["pad"])
    for number, (early, late) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = value.ndim - 1 - number
        if lie.axes[axis] == "position" and (early or late):
            return lie.lost()
        if lie.axes[axis] not in ("y", "x") or not lie.placed:
            continue
        lie = _slice(lie, axis, -int(early), 1, out.shape[axis], value.shape[axis])
    return lie if a.get("mode", "constant") in ("constant", "reflect", "replicate") else lie.globally()


RULES: dict[str, Seen] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    "conv_transpose2d": _transposed,
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"), _pool),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive),
    **dict.fromkeys(("interpolate", "upsample"), _resize),
    "linear": _linear,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("group_norm", "instance_norm"), _global_norm),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("matmul", "bmm"), _matmul),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"), _reshape),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    "getitem": _getitem,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "narrow": _narrow,
    "select": _select,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var"), _mean),
    "pad": _pad,
}
"""The name of a function -> how its result lies."""
