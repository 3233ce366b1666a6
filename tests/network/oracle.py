"""Slow, obvious counterparts of what the engine does: hand-placed hooks and arithmetic cell by cell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Place = tuple[str, str]
"""A module's path and ``in`` or ``out``."""

PLACES: dict[str, dict[str, Place]] = {
    "gpt2": {
        "embed": ("transformer.wte", "out"),
        "blocks.{}.resid_pre": ("transformer.h.{}", "in"),
        "blocks.{}.resid_mid": ("transformer.h.{}.ln_2", "in"),
        "blocks.{}.resid_post": ("transformer.h.{}", "out"),
        "blocks.{}.attn.in": ("transformer.h.{}.attn", "in"),
        "blocks.{}.attn.z": ("transformer.h.{}.attn.c_proj", "in"),
        "blocks.{}.attn.out": ("transformer.h.{}.attn", "out"),
        "blocks.{}.mlp.in": ("transformer.h.{}.mlp", "in"),
        "blocks.{}.mlp.hidden": ("transformer.h.{}.mlp.c_proj", "in"),
        "blocks.{}.mlp.out": ("transformer.h.{}.mlp", "out"),
        "final_norm": ("transformer.ln_f", "out"),
        "logits": ("lm_head", "out"),
    },
    "neox": {
        "embed": ("gpt_neox.embed_in", "out"),
        "blocks.{}.resid_pre": ("gpt_neox.layers.{}", "in"),
        "blocks.{}.resid_post": ("gpt_neox.layers.{}", "out"),
        "blocks.{}.attn.in": ("gpt_neox.layers.{}.attention", "in"),
        "blocks.{}.attn.z": ("gpt_neox.layers.{}.attention.dense", "in"),
        "blocks.{}.attn.out": ("gpt_neox.layers.{}.attention", "out"),
        "blocks.{}.mlp.in": ("gpt_neox.layers.{}.mlp", "in"),
        "blocks.{}.mlp.hidden": ("gpt_neox.layers.{}.mlp.dense_4h_to_h", "in"),
        "blocks.{}.mlp.out": ("gpt_neox.layers.{}.mlp", "out"),
        "final_norm": ("gpt_neox.final_layer_norm", "out"),
    },
    "falcon": {
        "blocks.{}.resid_pre": ("transformer.h.{}", "in"),
        "blocks.{}.resid_post": ("transformer.h.{}", "out"),
        "blocks.{}.attn.z": ("transformer.h.{}.self_attention.dense", "in"),
        "blocks.{}.attn.out": ("transformer.h.{}.self_attention", "out"),
        "blocks.{}.mlp.in": ("transformer.h.{}.mlp", "in"),
        "blocks.{}.mlp.hidden": ("transformer.h.{}.mlp.dense_4h_to_h", "in"),
        "blocks.{}.mlp.out": ("transformer.h.{}.mlp", "out"),
    },
    "bloom": {
        "blocks.{}.resid_post": ("transformer.h.{}", "out"),
        "blocks.{}.resid_mid": ("transformer.h.{}.post_attention_layernorm", "in"),
        "blocks.{}.attn.in": ("transformer.h.{}.self_attention", "in"),
        "blocks.{}.attn.z": ("transformer.h.{}.self_attention.dense", "in"),
        "blocks.{}.mlp.in": ("transformer.h.{}.mlp", "in"),
        "blocks.{}.mlp.hidden": ("transformer.h.{}.mlp.dense_4h_to_h", "in"),
    },
    "bert": {
        "blocks.{}.resid_pre": ("bert.encoder.layer.{}", "in"),
        "blocks.{}.resid_mid": ("bert.encoder.layer.{}.attention.output.LayerNorm", "out"),
        "blocks.{}.resid_post": ("bert.encoder.layer.{}", "out"),
        "blocks.{}.attn.in": ("bert.encoder.layer.{}.attention", "in"),
        "blocks.{}.attn.z": ("bert.encoder.layer.{}.attention.output.dense", "in"),
        "blocks.{}.attn.out": ("bert.encoder.layer.{}.attention.output.dense", "out"),
        "blocks.{}.mlp.in": ("bert.encoder.layer.{}.intermediate", "in"),
        "blocks.{}.mlp.hidden": ("bert.encoder.layer.{}.output.dense", "in"),
        "blocks.{}.mlp.out": ("bert.encoder.layer.{}.output.dense", "out"),
    },
    "vit": {
        "blocks.{}.resid_post": ("vit.layers.{}", "out"),
        "blocks.{}.resid_mid": ("vit.layers.{}.layernorm_after", "in"),
        "blocks.{}.attn.in": ("vit.layers.{}.attention", "in"),
        "blocks.{}.attn.z": ("vit.layers.{}.attention.o_proj", "in"),
        "blocks.{}.mlp.in": ("vit.layers.{}.mlp", "in"),
        "blocks.{}.mlp.hidden": ("vit.layers.{}.mlp.fc2", "in"),
        "final_norm": ("vit.layernorm", "out"),
        "logits": ("classifier", "out"),
    },
    "attention-only": {
        "embed": ("embed", "out"),
        "blocks.{}.resid_pre": ("blocks.{}", "in"),
        "blocks.{}.resid_post": ("blocks.{}", "out"),
        "blocks.{}.attn.in": ("blocks.{}.attn", "in"),
        "blocks.{}.attn.z": ("blocks.{}.attn.o", "in"),
        "blocks.{}.attn.out": ("blocks.{}.attn", "out"),
        "final_norm": ("final_norm", "out"),
        "logits": ("unembed", "out"),
    },
    "t5": {
        "encoder.blocks.{}.resid_pre": ("encoder.block.{}", "in"),
        "encoder.blocks.{}.resid_post": ("encoder.block.{}", "out"),
        "encoder.blocks.{}.attn.z": ("encoder.block.{}.layer.0.SelfAttention.o", "in"),
        "encoder.blocks.{}.attn.out": ("encoder.block.{}.layer.0.SelfAttention", "out"),
        "decoder.blocks.{}.resid_pre": ("decoder.block.{}", "in"),
        "decoder.blocks.{}.resid_post": ("decoder.block.{}", "out"),
        "decoder.blocks.{}.cross.z": ("decoder.block.{}.layer.1.EncDecAttention.o", "in"),
        "decoder.blocks.{}.cross.out": ("decoder.block.{}.layer.1.EncDecAttention", "out"),
        "decoder.blocks.{}.mlp.hidden": ("decoder.block.{}.layer.2.DenseReluDense.wo", "in"),
        "decoder.blocks.{}.mlp.out": ("decoder.block.{}.layer.2.DenseReluDense", "out"),
    },
    "encoder": {
        "blocks.{}.resid_post": ("encoder.layers.{}", "out"),
        "blocks.{}.resid_mid": ("encoder.layers.{}.norm1", "out"),
        "blocks.{}.attn.out": ("encoder.layers.{}.self_attn", "out"),
        "blocks.{}.mlp.hidden": ("encoder.layers.{}.linear2", "in"),
        "blocks.{}.mlp.out": ("encoder.layers.{}.linear2", "out"),
    },
}
"""Where each site lies in each network, written down from the modelling code."""

_LLAMA = {
    "embed": ("model.embed_tokens", "out"),
    "blocks.{}.resid_pre": ("model.layers.{}", "in"),
    "blocks.{}.resid_mid": ("model.layers.{}.post_attention_layernorm", "in"),
    "blocks.{}.resid_post": ("model.layers.{}", "out"),
    "blocks.{}.attn.in": ("model.layers.{}.self_attn", "in"),
    "blocks.{}.attn.z": ("model.layers.{}.self_attn.o_proj", "in"),
    "blocks.{}.attn.out": ("model.layers.{}.self_attn", "out"),
    "blocks.{}.mlp.in": ("model.layers.{}.mlp", "in"),
    "blocks.{}.mlp.hidden": ("model.layers.{}.mlp.down_proj", "in"),
    "blocks.{}.mlp.out": ("model.layers.{}.mlp", "out"),
    "final_norm": ("model.norm", "out"),
}
PLACES["llama"] = PLACES["mistral"] = {**_LLAMA, "logits": ("lm_head", "out")}
PLACES["granite"] = {k: v for k, v in _LLAMA.items() if k not in ("blocks.{}.attn.out", "blocks.{}.mlp.out")}
PLACES["gpt-oss"] = {k: v for k, v in _LLAMA.items() if k != "blocks.{}.mlp.hidden"}
PLACES["gemma2"] = _LLAMA | {
    "blocks.{}.resid_mid": ("model.layers.{}.pre_feedforward_layernorm", "in"),
    "blocks.{}.attn.out": ("model.layers.{}.post_attention_layernorm", "out"),
    "blocks.{}.mlp.out": ("model.layers.{}.post_feedforward_layernorm", "out"),
}


def inner(module: nn.Module, path: str) -> Any:
    """A module within another, or its configuration, with attributes of its own."""
    return module.get_submodule(path)


def places(kind: str, blocks: int) -> dict[str, Place]:
    """Site -> place, with the blocks numbered."""
    out = {}
    for site, (path, side) in PLACES[kind].items():
        for number in range(blocks if "{}" in site else 1):
            out[site.format(number)] = (path.format(number), side)
    return out


def _first(values: Any) -> Tensor:
    """The first floating tensor of two or more axes among returned values."""
    if isinstance(values, Tensor):
        return values
    values = values.values() if isinstance(values, Mapping) else values
    return next(v for v in values if isinstance(v, Tensor) and v.is_floating_point() and v.ndim >= 2)


@contextlib.contextmanager
def hooks(module: nn.Module, at: Mapping[Place, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
    """Plain torch hooks: each function sees the tensor at its place and may return another."""
    handles = []
    for (path, side), fn in at.items():
        target = module.get_submodule(path)

        def before(_: nn.Module, args: Any, kwargs: Any, fn: Any = fn) -> Any:
            if args and isinstance(args[0], Tensor):
                new = fn(args[0])
                return None if new is None else ((new, *args[1:]), kwargs)
            name = next(k for k, v in kwargs.items() if isinstance(v, Tensor) and v.is_floating_point())
            new = fn(kwargs[name])
            return None if new is None else (args, {**kwargs, name: new})

        def after(_: nn.Module, args: Any, output: Any, fn: Any = fn) -> Any:
            new = fn(_first(output))
            if new is None or isinstance(output, Tensor):
                return new
            return (new, *output[1:])

        if side == "in":
            handles.append(target.register_forward_pre_hook(before, with_kwargs=True))
        else:
            handles.append(target.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def logits_of(output: Any) -> Tensor:
    """The logits that a module returned."""
    return output if isinstance(output, Tensor) else output.logits


@torch.no_grad()
def forward(module: nn.Module, kwargs: Mapping[str, Any], at: Mapping[Place, Any] | None = None) -> Tensor:
    """The logits of one call with hand-placed hooks."""
    with hooks(module, at or {}):
        return logits_of(module(**kwargs)).clone()


@torch.no_grad()
def watch(module: nn.Module, kwargs: Mapping[str, Any], wanted: Iterable[Place]) -> dict[Place, Tensor]:
    """What hand-placed hooks see at these places in one call."""
    seen: dict[Place, Tensor] = {}

    def note(place: Place) -> Callable[[Tensor], None]:
        def see(value: Tensor) -> None:
            seen[place] = value.detach().clone()

        return see

    with hooks(module, {place: note(place) for place in wanted}):
        module(**kwargs)
    return seen


def written(
    value: Tensor, cells: Iterable[tuple[int, int]], rule: Callable[[int, int], Any], index: Iterable[int] = ()
) -> Tensor:
    """A copy of (batch, position, part, ...) in which one cell after the other is overwritten.

    Args:
        value: the tensor.
        cells: (row, position) pairs.
        rule: what the cell gets, of the shape of ``value[row, position, index]``.
        index: parts; all of them if empty.
    """
    out = value.clone()
    parts = list(index) or list(range(value.shape[2]))
    for row, position in cells:
        new = torch.as_tensor(rule(row, position), dtype=value.dtype).expand(out[row, position, parts].shape)
        for number, part in enumerate(parts):
            out[row, position, part] = new[number]
    return out


def allowed(queries: int, keys: int | None = None, window: int | None = None) -> Tensor:
    """Which (query, key) pairs a causal mask, of a sliding window if given, lets through, one by one."""
    keys = queries if keys is None else keys
    out = torch.zeros(queries, keys, dtype=torch.bool)
    for q in range(queries):
        for k in range(keys):
            at = q + keys - queries
            out[q, k] = k <= at and (window is None or at - k < window)
    return out


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    bias: Tensor | None = None,
    cut: Callable[[int, int, int, int], bool] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention head by head and query by query, in double precision.

    Args:
        q: (batch, position, head, channel); k and v may have fewer heads, each shared by neighbours.
        k: keys.
        v: values.
        mask: (query, key) or (batch, query, key), True where attention may look.
        scale: of the products.
        softcap: scores become ``softcap * tanh(score / softcap)``.
        sinks: (head,) scores of a key that is never there.
        bias: (head, query, key) or (batch, head, query, key) added to the scores.
        cut: whether the edge (row, head, query, key) is cut.

    Returns:
        scores (minus infinity where masked), pattern, both (batch, head, query, key), and z (batch, position, head,
        channel).
    """
    q, k, v = q.double(), k.double(), v.double()
    rows, queries, heads = q.shape[:3]
    keys = k.shape[1]
    scores = torch.full((rows, heads, queries, keys), -torch.inf, dtype=torch.float64)
    pattern = torch.zeros(rows, heads, queries, keys, dtype=torch.float64)
    z = torch.zeros(rows, queries, heads, v.shape[-1], dtype=torch.float64)
    for row in range(rows):
        for head in range(heads):
            group = head * k.shape[2] // heads
            for i in range(queries):
                seen = mask[row, i] if mask.ndim == 3 else mask[i]
                for j in range(keys):
                    if not seen[j] or (cut is not None and cut(row, head, i, j)):
                        continue
                    score = scale * (q[row, i, head] @ k[row, j, group])
                    if softcap is not None:
                        score = softcap * torch.tanh(score / softcap)
                    if bias is not None:
                        score = score + (bias[row, head, i, j] if bias.ndim == 4 else bias[head, i, j])
                    scores[row, head, i, j] = score
                weights = scores[row, head, i].exp()
                total = weights.sum() + (sinks[head].double().exp() if sinks is not None else 0.0)
                if total > 0:
                    pattern[row, head, i] = weights / total
                z[row, i, head] = pattern[row, head, i] @ v[row, :, group]
    return scores, pattern, z


def rotated(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotary positions: channel c and c + half turn together by ``position * base ** (-2c / channels)``.

    Args:
        x: (batch, position, head, channel).
    """
    out = x.double().clone()
    half = x.shape[-1] // 2
    for position in range(x.shape[1]):
        for c in range(half):
            angle = torch.tensor(position * base ** (-2.0 * c / x.shape[-1]), dtype=torch.float64)
            a, b = x[:, position, :, c].double(), x[:, position, :, c + half].double()
            out[:, position, :, c] = a * angle.cos() - b * angle.sin()
            out[:, position, :, c + half] = b * angle.cos() + a * angle.sin()
    return out


class Counting(TorchFunctionMode):
    """Counts calls of functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        self.calls[name] = self.calls.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def hooks_left(module: nn.Module) -> list[str]:
    """Every hook that is on the module or any part of it."""
    kinds = [name for name in vars(nn.Module()) if name.endswith("_hooks") or "_hooks_" in name]
    return [f"{name}.{kind}" for name, part in module.named_modules() for kind in kinds if getattr(part, kind, None)]
