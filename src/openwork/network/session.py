"""The hooks of one call: installed together, removed together, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Visit = Callable[[Tensor], Tensor | None]
"""Sees the value of a site when it is computed, in the site's axes; a returned tensor replaces it."""


class Stop(Exception):
    """Ends a forward pass at the deepest site that was asked for."""


class Session:
    """Installs visits on a network for the length of one ``with`` block.

    Hooks go straight into the dictionaries that ``register_forward_hook`` fills: its handles cost ten times as much as
    the hooks, which shows where a call is short and sites are many.

    Args:
        root: the network; its own calls number the decoding steps.
        rows: rows of the batch.
    """

    def __init__(self, root: nn.Module, rows: int = 1):
        self.root, self.rows = root, rows
        self.step = -1
        self._handles: list[Any] = []
        self._hooks: list[tuple[dict[Any, Any], object]] = []
        self._closers: list[Any] = []
        self._outputs: list[tuple[nn.Module, Callable[..., Any]]] = []
        self._calls: dict[nn.Module, int] = {}
        self._counting = False
        self._shared: dict[Any, Any] = {}

    def __enter__(self) -> Session:
        return self

    def install(self) -> None:
        """Register the output hooks asked for so far: ahead of all others, and among themselves in the order asked."""
        for module, hook in reversed(self._outputs):
            key = object()
            self._hooks.append((module._forward_hooks, key))
            module._forward_hooks[key] = hook  # type: ignore[index]
            module._forward_hooks.move_to_end(key, last=False)  # type: ignore[arg-type]
        self._outputs.clear()

    def __exit__(self, *exc: object) -> None:
        for hooks, key in self._hooks:
            hooks.pop(key, None)
        for handle in self._handles:
            handle.remove()
        self._hooks.clear()
        for closer in reversed(self._closers):
            closer.__exit__(None, None, None)
        self._handles.clear()
        self._closers.clear()

    def on_output(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call ``hook(module, args, output)`` before any other forward hook, once `install` was called."""
        self._outputs.append((module, hook))

    def on_input(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call ``hook(module, args, kwargs)`` after any other pre-hook, so that it sees what the module will read."""
        key = object()
        self._hooks += [(module._forward_pre_hooks, key), (module._forward_pre_hooks_with_kwargs, key)]
        module._forward_pre_hooks[key] = hook  # type: ignore[index]
        module._forward_pre_hooks_with_kwargs[key] = True  # type: ignore[index]

    def enter(self, context: Any) -> Any:
        """Keep a context manager open until the session ends."""
        value = context.__enter__()
        self._closers.append(context)
        return value

    def count_steps(self) -> None:
        """Number the calls of the root: 0 is the prefill."""
        if self._counting:
            return
        self._counting = True

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.step += 1
            for counted in self._calls:
                self._calls[counted] = -1

        self._handles.append(self.root.register_forward_pre_hook(begin, with_kwargs=True, prepend=True))

    def count_calls(self, module: nn.Module) -> None:
        """Number the calls of a module that runs several times in one forward pass."""
        self.count_steps()
        if module in self._calls:
            return
        self._calls[module] = -1

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._calls[module] += 1

        self._handles.append(module.register_forward_pre_hook(begin, with_kwargs=True, prepend=True))

    def nth_call(self, module: nn.Module) -> int:
        """The number of the module's present call within this forward pass of the root."""
        return self._calls[module]

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """One object a session for each key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]
