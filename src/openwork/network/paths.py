"""Leaves of the nested outputs and arguments that modules pass around: find one, read it, replace it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

Path = tuple[int | str, ...]


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, torch.Tensor]]:
    """Every tensor within nested tuples, lists, mappings and dataclasses, with the path that leads to it."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, (tuple, list)):
        for position, item in enumerate(value):
            yield from leaves(item, (*path, position))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            yield from leaves(getattr(value, item.name), (*path, item.name))


def read(value: Any, path: Path) -> Any:
    """What lies at `path`."""
    for key in path:
        value = getattr(value, str(key)) if _is_record(value) else value[key]
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """`value` with `new` at `path`; tuples and records are copied, lists and mappings changed in a copy."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if _is_record(value):
        return dataclasses.replace(value, **{str(key): replaced(getattr(value, str(key)), rest, new)})
    item = replaced(value[key], rest, new)
    if isinstance(value, dict):
        if dataclasses.is_dataclass(value):  # transformers' ModelOutput: a mapping whose fields must agree with it
            return dataclasses.replace(value, **{str(key): item})
        return {**value, key: item}
    items = list(value)
    items[int(key)] = item
    if isinstance(value, list):
        return items
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


def copied(value: Any) -> Any:
    """The same structure with copies of its tensors."""
    for path, leaf in list(leaves(value)):
        value = replaced(value, path, leaf.clone())
    return value


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, (dict, type))
