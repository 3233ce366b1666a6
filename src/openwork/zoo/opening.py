"""`openwork.open`: the embedded models by name, everything else through the network layer."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from openwork import network, zoo
from openwork.errors import UnknownName
from openwork.network import Network
from openwork.network.load import as_device, as_dtype


def open(model: Any, **options: Any) -> Network:
    """Open a network by embedded name (``py-4l``), name in the zoo (``compiled/ioi``), folder, hub id, or as a module.

    Args:
        model: what to open.
        options: see `openwork.network.open`.

    Raises:
        UnknownName: if nothing has that name; it lists the embedded models.
    """
    name = model.partition("@")[0] if isinstance(model, str) else ""
    if name in zoo.names():
        device, dtype = options.pop("device", None), options.pop("dtype", None)
        device = as_device(device) if device is not None else None
        dtype = as_dtype(dtype) if dtype is not None else None
        module, tokenizer = zoo.load(model)
        options.setdefault("tokenizer", tokenizer)
        return network.open(module.to(device=device, dtype=dtype), name=options.pop("name", model), **options)
    if name.partition("/")[0] in zoo.FAMILIES and not Path(name).exists():
        member = zoo.open(name)
        device, dtype = options.pop("device", None), options.pop("dtype", None)
        module = member.network.to(
            device=None if device is None else as_device(device), dtype=None if dtype is None else as_dtype(dtype)
        )
        options.setdefault("example", member.example)
        return network.open(module, name=options.pop("name", name), **options)
    if _misspelt(name):
        raise UnknownName(f"no embedded model or folder named {model!r}. Embedded models: {', '.join(zoo.names())}.")
    try:
        return network.open(model, **options)
    except UnknownName as error:
        raise UnknownName(f"{error} Embedded models: {', '.join(zoo.names())}.") from error


def _misspelt(name: str) -> bool:
    """Whether an embedded model is meant, so that the hub need not be asked."""
    return "/" not in name and not Path(name).exists() and bool(get_close_matches(name, zoo.names(), n=1))
