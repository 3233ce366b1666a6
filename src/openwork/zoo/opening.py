"""`openwork.open`: the embedded models by name, everything else through the network layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from openwork import network, zoo
from openwork.errors import UnknownName
from openwork.network import Network


def open(model: str | Path | nn.Module, **options: Any) -> Network:
    """Open a network by embedded name (``py-4l``), local folder, hub id, or as a module.

    Args:
        model: what to open.
        options: see `openwork.network.open`.

    Raises:
        UnknownName: if nothing has that name; it lists the embedded models.
    """
    if isinstance(model, str) and model.partition("@")[0] in zoo.names():
        module, tokenizer = zoo.load(model)
        options.setdefault("tokenizer", tokenizer)
        device, dtype = options.pop("device", None), options.pop("dtype", None)
        if device is not None or dtype is not None:
            module = module.to(device=device, dtype=network.as_dtype(dtype) if dtype is not None else None)
        return network.open(module, name=options.pop("name", model), **options)
    try:
        return network.open(model, **options)
    except UnknownName as error:
        raise UnknownName(f"{error} Embedded models: {', '.join(zoo.names())}.") from error
