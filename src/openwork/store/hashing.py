"""Hashes by content: of files, folders, JSON values and the weights of a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openwork.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def hash_file(path: str | Path) -> str:
    """sha256 of the bytes of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(folder: str | Path, pattern: str = "*") -> str:
    """sha256 of the relative names and contents of the files below a folder whose names match `pattern`.

    Raises:
        BadInput: if no file matches.
    """
    folder = Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if path.is_file())
    if not names:
        raise BadInput(f"expected files named {pattern} below {folder}; there are none")
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\0{hash_file(folder / name)}\n".encode())
    return total.hexdigest()


def hash_json(value: Any) -> str:
    """sha256 of a JSON value, the same whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_state(state: Mapping[str, Tensor]) -> str:
    """sha256 of a state dict: names, dtypes, shapes and elements, the same on every device."""
    import torch

    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


@cache
def code_version() -> str:
    """What the code of this installation is: the version, and the first twelve digits of the hash of its source."""
    from importlib.metadata import version

    return f"{version('openwork')}+{hash_tree(Path(__file__).parents[1], '*.py')[:12]}"
