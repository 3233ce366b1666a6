"""Skipping what ran before an edit: calls of modules that finished earlier return what the unedited run recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def returning(outputs: Mapping[tuple[nn.Module, int], Any]) -> Iterator[None]:
    """Let calls of modules return what is given instead of computing; their hooks run as ever.

    Args:
        outputs: (module, which of its calls) -> what it returns.
    """
    modules = dict.fromkeys(module for module, _ in outputs)
    before = {module: module.__dict__.get("forward") for module in modules}
    try:
        for module in modules:
            module.forward = _replaying(module, outputs)
        yield
    finally:
        for module, own in before.items():
            module.__dict__.pop("forward", None)
            if own is not None:
                module.__dict__["forward"] = own


def _replaying(module: nn.Module, outputs: Mapping[tuple[nn.Module, int], Any]) -> Any:
    original, calls = module.forward, -1

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        key = (module, calls)
        return outputs[key] if key in outputs else original(*args, **kwargs)

    return forward
