"""Attention as it runs: q, k, v, scores, pattern and z of every call, without leaving the tuned kernel unless written.

Three routes lead there. transformers dispatches attention through one registry, whose answer is wrapped for the length
of a call; modules that call ``scaled_dot_product_attention`` themselves, or that spell attention out as matmul,
softmax, matmul, are met by a function mode. Axes: q, k, v, z (batch, position, head, channel); scores and pattern
(batch, head, query, key).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers.modeling_utils import AttentionInterface

from openwork.errors import SiteRefused
from openwork.network.paths import leaves
from openwork.network.session import Visit

SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.baddbmm, Tensor.baddbmm}
PARTS = ("q", "k", "v", "scores", "pattern", "z")


class Visits(dict[str, Visit]):
    """The visits of one attention module, by part; `written` names the parts whose visits may replace the value.

    Args:
        direct: whether ``softmax(scaling * q @ k + mask)`` was certified to be this module's pattern, so that reading
            it needs no run of the eager function.
    """

    def __init__(self, direct: bool = False) -> None:
        super().__init__()
        self.written: set[str] = set()
        self.direct = direct

    @property
    def eager(self) -> bool:
        """Whether the layer must leave its tuned kernel: only when scores or pattern are written."""
        return not self.written.isdisjoint(("scores", "pattern"))

    @property
    def weights(self) -> bool:
        """Whether scores or pattern are read or written."""
        return "scores" in self or "pattern" in self

    def heads_first(self, part: str, value: Tensor) -> Tensor:
        """Visit q, k, v or z given as (batch, head, position, channel)."""
        visit = self.get(part)
        if visit is None:
            return value
        new = visit(value.transpose(1, 2))
        return value if new is None else new.transpose(1, 2)

    def heads_last(self, part: str, value: Tensor) -> Tensor:
        """Visit q, k, v or z given as (batch, position, head, channel)."""
        visit = self.get(part)
        new = visit(value) if visit is not None else None
        return value if new is None else new


Handler = Callable[..., Any]
_local = threading.local()
_lock = threading.Lock()
_original = AttentionInterface.get_interface
_users = 0


def _get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
    kernel = _original(self, attn_implementation, default)
    handlers: dict[nn.Module | None, Handler] | None = getattr(_local, "handlers", None)
    if not handlers:
        return kernel

    def attend(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        handler = handlers.get(module) or handlers.get(None)
        if handler is None:
            return kernel(module, *args, **kwargs)
        return handler(kernel, default, attn_implementation, module, *args, **kwargs)

    return attend


class Registry:
    """Route this thread's attention calls of the given modules (None: of all modules) through their handlers.

    Other threads and other modules go on undisturbed; the registry is itself again when the last user leaves.
    """

    def __init__(self, handlers: dict[nn.Module | None, Handler]):
        self.handlers = handlers

    def __enter__(self) -> None:
        global _users
        self.before = getattr(_local, "handlers", None)
        with _lock:
            _users += 1
            AttentionInterface.get_interface = _get_interface
        _local.handlers = self.handlers

    def __exit__(self, *exc: object) -> None:
        global _users
        _local.handlers = self.before
        with _lock:
            _users -= 1
            if not _users:
                AttentionInterface.get_interface = _original


def registry_handler(choose: Callable[[], Visits]) -> Handler:
    """The handler that lets the visits of the present call see what transformers dispatches."""

    def handle(
        kernel: Callable[..., Any],
        eager: Callable[..., Any],
        implementation: str,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        visits = choose()
        query = visits.heads_first("q", query)
        key = visits.heads_first("k", key)
        value = visits.heads_first("v", value)

        def by_eager(done: _Seen | None = None) -> tuple[Tensor, Any]:
            mask = additive_mask(attention_mask, module, query, key, kwargs.get("is_causal"), implementation)
            with WeightTap(visits, key.shape[-2], query.dtype, done):
                return eager(module, query, key, value, mask, *args, **kwargs)

        if visits.eager:
            z, weights = by_eager()
        else:
            z, weights = kernel(module, query, key, value, attention_mask, *args, **kwargs)
            if visits.weights and visits.direct:
                mask = additive_mask(attention_mask, module, query, key, kwargs.get("is_causal"), implementation)
                direct_weights(visits, query, key, mask, kwargs.get("scaling"))
            elif visits.weights:
                with contextlib.suppress(_Seen):
                    by_eager(_Seen())
        return visits.heads_last("z", z), weights

    return handle


class WeightTap(TorchFunctionMode):
    """Shows the scores (softmax input) and the pattern (softmax output) of the one softmax inside an eager function.

    Attention sinks are further columns behind the `keys` first; visits never see them.

    Args:
        done: raised once the pattern was seen, where nobody needs what follows.
    """

    def __init__(self, visits: Visits, keys: int, dtype: torch.dtype, done: _Seen | None):
        super().__init__()
        self.visits, self.keys, self.dtype, self.done = visits, keys, dtype, done

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in SOFTMAX or args[0].shape[-1] < self.keys:
            return func(*args, **kwargs)
        pattern = visit_softmax(self.visits, self.keys, self.dtype, func, args, kwargs)
        if self.done is not None:
            raise self.done
        return pattern


class _Seen(Exception):
    """Ends an eager function that was run for its weights alone."""


def direct_weights(visits: Visits, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> None:
    """Show scores and pattern computed from q and k, without the sum over values that eager functions end with.

    Source: Vaswani et al. 2017, equation 1, with the mask added to the scores.
    """
    if key.shape[1] != query.shape[1]:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if mask is not None:
        scores += mask
    if "scores" in visits:
        visits["scores"](scores)
    if "pattern" in visits:
        visits["pattern"](torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype))


@lru_cache(maxsize=4)
def causal_mask(queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zero on and below the diagonal, the lowest number above it: (1, 1, query, key)."""
    low = torch.finfo(dtype).min
    return torch.full((queries, keys), low, dtype=dtype, device=device).triu(1)[None, None]


def visit_softmax(visits: Visits, keys: int, dtype: torch.dtype, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Run a softmax with its input visited as scores and its output as pattern."""
    scores = args[0]
    score_visit = visits.get("scores")
    if score_visit is not None:
        new = score_visit(scores[..., :keys])
        if new is not None:
            args = (torch.cat([new, scores[..., keys:]], -1) if scores.shape[-1] > keys else new, *args[1:])
    pattern = func(*args, **kwargs)
    if "scores" in visits.written:
        # a query whose every key was cut attends to nothing
        pattern = torch.where(torch.isneginf(args[0]).all(-1, keepdim=True), torch.zeros_like(pattern), pattern)
    pattern_visit = visits.get("pattern")
    if pattern_visit is not None:
        new = pattern_visit(pattern[..., :keys].to(dtype))
        if new is not None:
            new = new.to(pattern.dtype)
            pattern = torch.cat([new, pattern[..., keys:]], -1) if pattern.shape[-1] > keys else new
    return pattern


def additive_mask(
    mask: Tensor | None, module: nn.Module, query: Tensor, key: Tensor, is_causal: bool | None, implementation: str
) -> Tensor | None:
    """The mask of a tuned kernel as the additive float mask that eager functions take.

    Raises:
        SiteRefused: for kernels that keep their mask to themselves (flash, flex).
    """
    if implementation not in ("sdpa", "eager", None):
        raise SiteRefused(
            f"scores and patterns need the mask, which {implementation!r} attention does not pass as a tensor; "
            "load the model with attn_implementation='sdpa'"
        )
    if mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if implementation == "eager" or not causal or query.shape[-2] == 1:
            return None
        return causal_mask(query.shape[-2], key.shape[-2], query.dtype, query.device)
    if mask.dtype == torch.bool:
        low = torch.finfo(query.dtype).min
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, low)
    return mask[..., : key.shape[-2]]


def eager_sdpa(
    visits: Visits,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` spelled out, with its scores and pattern visited.

    Source: the equivalent implementation in PyTorch's documentation of ``scaled_dot_product_attention``.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    pattern = visit_softmax(visits, key.shape[-2], query.dtype, torch.softmax, (scores, -1), {})
    if dropout_p:
        pattern = F.dropout(pattern, dropout_p)
    return pattern @ value


class FunctionTap(TorchFunctionMode):
    """Meets attention that modules compute themselves, by function mode.

    Args:
        roles: module -> (the visits of its present call; what each intercepted function of one call of it is, by its
            ordinal: ``sdpa``, ``scores`` (the matmul of q and k), ``softmax`` or ``z`` (the matmul of pattern and v)).
    """

    def __init__(self, roles: dict[nn.Module, tuple[Callable[[], Visits], dict[int, str]]]):
        super().__init__()
        self.roles = roles
        self.stack: list[list[Any]] = []
        self.batch = 1

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Pre-hook: the functions that follow belong to `module`."""
        self.stack.append([module, -1])
        self.batch = batch_of(module, [leaf for _, leaf in leaves((args, kwargs))])

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook: back to the caller."""
        self.stack.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.stack or not is_attention_function(func):
            if func is F.multi_head_attention_forward and self.stack:
                with self:  # its own matmul and softmax are what we want to meet
                    return unfused_mha(*args, **kwargs)
            return func(*args, **kwargs)
        for frame in self.stack:
            frame[1] += 1
        module, ordinal = self.stack[-1]
        choose, roles = self.roles[module]
        role = roles.get(ordinal)
        if role is None:
            return func(*args, **kwargs)
        return getattr(self, f"_{role}")(choose(), func, args, kwargs)

    def _sdpa(self, visits: Visits, func: Any, args: Any, kwargs: Any) -> Tensor:
        query, key, value = (visits.heads_first(part, x) for part, x in zip("qkv", args[:3], strict=True))
        if visits.eager:
            z = eager_sdpa(visits, query, key, value, *args[3:], **kwargs)
        else:
            z = func(query, key, value, *args[3:], **kwargs)
            if visits.weights:
                eager_sdpa(visits, query, key, value, *args[3:], **kwargs)
        return visits.heads_first("z", z)

    def _scores(self, visits: Visits, func: Any, args: Any, kwargs: Any) -> Tensor:
        args, kwargs = positional(args, kwargs)
        lead = args[:-2]  # baddbmm's added term
        query = self._visit(visits, "q", args[-2])
        key = self._visit(visits, "k", args[-1].transpose(-1, -2)).transpose(-1, -2)
        return func(*lead, query, key, **kwargs)

    def _softmax(self, visits: Visits, func: Any, args: Any, kwargs: Any) -> Tensor:
        scores = args[0]
        shape = (self.batch, -1, *scores.shape[-2:])
        weights = visit_softmax(
            visits, scores.shape[-1], scores.dtype, func, (scores.reshape(shape), *args[1:]), kwargs
        )
        return weights.reshape(scores.shape)

    def _z(self, visits: Visits, func: Any, args: Any, kwargs: Any) -> Tensor:
        args, kwargs = positional(args, kwargs)
        return self._visit(visits, "z", func(args[0], self._visit(visits, "v", args[1]), **kwargs))

    def _visit(self, visits: Visits, part: str, value: Tensor) -> Tensor:
        """Visit (batch, head, position, channel), also where batch and head are one axis."""
        if part not in visits:
            return value
        return visits.heads_first(part, value.reshape(self.batch, -1, *value.shape[-2:])).reshape(value.shape)


unfused_mha = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda tensors: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)
"""`multi_head_attention_forward` without its first look for function modes, which would hand it to the mode again."""


def batch_of(module: nn.Module, tensors: Iterable[Tensor]) -> int:
    """The number of rows of a call of `module`, from its tensor arguments."""
    first = next((t for t in tensors if t.ndim > 1), None)
    if first is None:
        return 1
    return first.shape[1 if isinstance(module, nn.MultiheadAttention) and not module.batch_first else 0]


def positional(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call of matmul, bmm or baddbmm with its matrices as positional arguments."""
    named = [key for key in ("batch1", "batch2", "mat2", "other") if key in kwargs]
    return (*args, *(kwargs[key] for key in named)), {k: v for k, v in kwargs.items() if k not in named}


def is_attention_function(func: Any) -> bool:
    """Whether a function mode must look at this function to meet attention."""
    return func is F.scaled_dot_product_attention or func in SOFTMAX or func in MATMUL
