"""Meeting every attention of a pass in one form, whichever way the module takes to its kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from openwork.network.attention import Registry
from openwork.network.session import Session
from openwork.network.timeline import Attended

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q, k, v, mask) -> z; q, k, v are (batch, head, position, channel), z is (batch, position, head, channel)."""


@dataclass(eq=False)
class Meeting:
    """One attention as it is about to be computed.

    Args:
        owner: the module that it is keyed by.
        q, k, v: what attention uses; k and v may have fewer heads.
        mask: as the module hands it over.
        causal: whether, without a mask, later keys are hidden.
        additive: whether the kernel adds its mask to the scores, and so takes no bool mask.
        kernel: the module's own kernel.
    """

    owner: nn.Module
    q: Float[Tensor, "batch head query channel"]
    k: Float[Tensor, "batch group key channel"]
    v: Float[Tensor, "batch group key channel2"]
    mask: Tensor | None
    causal: bool
    additive: bool
    kernel: Kernel


Attend = Callable[[Meeting], Float[Tensor, "batch query head channel"]]

ROUTES = ("registry", "sdpa")
"""The routes on which an attention can be met in this form."""


def meet(session: Session, attentions: Iterable[Attended], attend: Attend) -> None:
    """Let `attend` compute these attentions during the session; call it before `Session.install`."""
    by_route: dict[str, list[nn.Module]] = {route: [] for route in ROUTES}
    for attention in attentions:
        by_route[attention.route].append(attention.owner)
    if by_route["registry"]:
        session.enter(Registry(dict.fromkeys(by_route["registry"], _dispatched(attend))))
    if by_route["sdpa"]:
        tap = session.enter(_Tap(attend))
        for owner in by_route["sdpa"]:
            session.on_input(owner, tap.begin)
            session.on_output(owner, tap.end)


def _dispatched(attend: Attend) -> Callable[..., Any]:
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
    ) -> tuple[Tensor, None]:
        causal = kwargs.get("is_causal")
        causal = bool(getattr(module, "is_causal", True) if causal is None else causal)

        def call(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            return kernel(module, q, k, v, mask, *args, **kwargs)[0]

        additive = implementation == "eager"
        return attend(Meeting(module, query, key, value, attention_mask, causal and not additive, additive, call)), None

    return handle


class _Tap(TorchFunctionMode):
    """Meets `scaled_dot_product_attention` called by a module itself."""

    def __init__(self, attend: Attend):
        super().__init__()
        self.attend = attend
        self.stack: list[nn.Module] = []

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.stack.append(module)

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.stack.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or not self.stack:
            return func(*args, **kwargs)
        return self._met(*args, **kwargs).transpose(1, 2)

    def _met(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> Tensor:
        def call(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            causal = is_causal and mask is None
            return F.scaled_dot_product_attention(q, k, v, mask, dropout_p, causal, **more).transpose(1, 2)

        return self.attend(Meeting(self.stack[-1], query, key, value, attn_mask, is_causal, False, call))
