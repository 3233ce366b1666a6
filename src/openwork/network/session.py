"""The hooks of one call: installed together, removed together, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

from torch import Tensor, nn

Visit = Callable[[Tensor], Tensor | None]
"""Sees the value of a site when it is computed, in the site's axes; a returned tensor replaces it."""


Context = TypeVar("Context", bound=AbstractContextManager[Any])


class Stop(Exception):
    """Ends a forward pass at the deepest site that was asked for."""


class Session:
    """Visits on a network that are there for the length of one ``with`` block, after which it may be entered again.

    Hooks go straight into the dictionaries that ``register_forward_hook`` fills: its handles cost ten times as much as
    the hooks, which shows where a call is short and sites are many.

    Args:
        root: the network; its own calls number the decoding steps.
        rows: rows of the batch.
    """

    def __init__(self, root: nn.Module, rows: int = 1):
        self.root, self.rows = root, rows
        self.step = -1
        self._counters: list[tuple[nn.Module, object, Callable[..., Any]]] = []
        self._inputs: list[tuple[nn.Module, object, Callable[..., Any]]] = []
        self._outputs: list[tuple[nn.Module, object, Callable[..., Any]]] = []
        self._contexts: list[AbstractContextManager[Any]] = []
        self._entered = ExitStack()
        self._calls: dict[nn.Module, int] = {}
        self._counting = False
        self._shared: dict[Any, Any] = {}

    def __enter__(self) -> Session:
        return self

    def install(self) -> None:
        """Put in place what was asked for: output hooks ahead of all others, input hooks behind all others."""
        self.step = -1
        for module in self._calls:
            self._calls[module] = -1
        for module, key, hook in self._counters:
            _install_input(module, key, hook)
            module._forward_pre_hooks.move_to_end(key, last=False)  # type: ignore[arg-type]
        for module, key, hook in self._inputs:
            _install_input(module, key, hook)
        for module, key, hook in reversed(self._outputs):
            module._forward_hooks[key] = hook  # type: ignore[index]
            module._forward_hooks.move_to_end(key, last=False)  # type: ignore[arg-type]
        for context in self._contexts:
            self._entered.enter_context(context)

    def __exit__(self, *exc: object) -> None:
        for module, key, _ in self._outputs:
            module._forward_hooks.pop(key, None)  # type: ignore[call-overload]
        for module, key, _ in (*self._inputs, *self._counters):
            module._forward_pre_hooks.pop(key, None)  # type: ignore[call-overload]
            module._forward_pre_hooks_with_kwargs.pop(key, None)  # type: ignore[call-overload]
        self._entered.close()

    def on_output(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call ``hook(module, args, output)`` before any other forward hook, among ours in the order asked."""
        self._outputs.append((module, object(), hook))

    def on_input(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call ``hook(module, args, kwargs)`` after any other pre-hook, so that it sees what the module will read."""
        self._inputs.append((module, object(), hook))

    def enter(self, context: Context) -> Context:
        """Keep a context manager open while the hooks are in place; it must be one that can be entered again."""
        self._contexts.append(context)
        return context

    def count_steps(self) -> None:
        """Number the calls of the root: 0 is the prefill."""
        if self._counting:
            return
        self._counting = True

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.step += 1
            for counted in self._calls:
                self._calls[counted] = -1

        self._counters.append((self.root, object(), begin))

    def count_calls(self, module: nn.Module) -> None:
        """Number the calls of a module that runs several times in one forward pass."""
        self.count_steps()
        if module in self._calls:
            return
        self._calls[module] = -1

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._calls[module] += 1

        self._counters.append((module, object(), begin))

    def nth_call(self, module: nn.Module) -> int:
        """The number of the module's present call within this forward pass of the root."""
        return self._calls[module]

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """One object a session for each key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]


def _install_input(module: nn.Module, key: object, hook: Callable[..., Any]) -> None:
    module._forward_pre_hooks[key] = hook  # type: ignore[index]
    module._forward_pre_hooks_with_kwargs[key] = True  # type: ignore[index]
