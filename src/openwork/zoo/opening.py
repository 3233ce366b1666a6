"""`openwork.open`: the embedded models by name, everything else through the network layer."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from openwork import network, zoo
from openwork.errors import UnknownName
from openwork.network import Network
from openwork.network.image_format import image_format
from openwork.network.load import as_device, as_dtype
from openwork.zoo.embedded import folder_of, from_folder, is_ours
from openwork.zoo.member import Member


def open(model: Any, **options: Any) -> Network:
    """Open a network by embedded name (``py-4l``), name in the zoo (``compiled/ioi``), folder, hub id or module.

    Args:
        model: what to open; a member of the zoo as well.
        options: see `openwork.network.open`.

    Raises:
        UnknownName: if nothing has that name; it lists the embedded models.
    """
    name = model.partition("@")[0] if isinstance(model, str) else ""
    if name in zoo.names():
        module, tokenizer = zoo.load(model)
        options.setdefault("tokenizer", tokenizer)
        options.setdefault("images", image_format(folder_of(name)))
        return _opened(module, model, **options)
    if is_member(name):
        model = zoo.open(name)
    if isinstance(model, Member):
        options.setdefault("example", model.example)
        return _opened(model.network, model.name, **options)
    if isinstance(model, (str, Path)) and is_ours(Path(model).expanduser()):
        module, tokenizer = from_folder(Path(model).expanduser())
        options.setdefault("tokenizer", tokenizer)
        options.setdefault("images", image_format(Path(model).expanduser()))
        return _opened(module, str(model), **options)
    if _misspelt(name):
        raise UnknownName(f"no embedded model or folder named {model!r}. Embedded models: {', '.join(zoo.names())}.")
    try:
        return network.open(model, **options)
    except UnknownName as error:
        raise UnknownName(f"{error} Embedded models: {', '.join(zoo.names())}.") from error


def is_member(name: str) -> bool:
    """Whether a name is one of a network whose answer is known, as ``compiled/ioi`` is, and not of a folder."""
    return name.partition("/")[0] in zoo.FAMILIES and not Path(name).exists()


def _opened(module: nn.Module, name: str, *, device: Any = None, dtype: Any = None, **options: Any) -> Network:
    """Open a module of ours, which is built on the CPU in float32."""
    module = module.to(
        device=None if device is None else as_device(device), dtype=None if dtype is None else as_dtype(dtype)
    )
    return network.open(module, name=options.pop("name", name), **options)


def _misspelt(name: str) -> bool:
    """Whether an embedded model is meant, so that the hub need not be asked."""
    return "/" not in name and not Path(name).exists() and bool(get_close_matches(name, zoo.names(), n=1))
