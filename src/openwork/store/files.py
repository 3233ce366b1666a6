"""Files that are written whole or not at all, and read without ever running code that they hold."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.errors import BadInput, CorruptFile, OutputOccupied

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A file name to write to, which takes the place of `path` when the block ends without an exception.

    Raises:
        OutputOccupied: if the folder cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
    except OSError as error:
        raise OutputOccupied(
            f"expected a folder that can be written at {path.parent}; {error.strerror}. Choose another folder"
        ) from error
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write text as UTF-8."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write a JSON value, with sorted keys so that equal values make equal files; NaN and infinity are refused."""
    try:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"expected a value that JSON can hold for {path}; {error}") from error
    return write_text(path, text + "\n")


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write named arrays as a compressed ``.npz``; arrays of objects are refused, since only pickle could hold them."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise BadInput(f"expected numbers or text in array {name!r} of {path}; got objects")
    with writing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **dict(arrays))
    return Path(path)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write named tensors as safetensors, in the dtype that they have."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path) as partial:
        save_file(whole, partial, dict(metadata or {}))
    return Path(path)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        BadInput: if there is no such file.
        CorruptFile: if it does not parse.
    """
    path = existing(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(f"expected JSON in {path}; it does not parse ({error})") from error


def read_record(path: str | Path, schema: str, version: int) -> dict[str, Any]:
    """Read a JSON object that says of which schema it is.

    Raises:
        BadInput: if there is no such file.
        CorruptFile: if it does not parse, or is of another schema or version.
    """
    record = read_json(path)
    if not isinstance(record, dict) or (record.get("schema"), record.get("schema_version")) != (schema, version):
        raise CorruptFile(f"expected a record of schema {schema} version {version} in {path}; got another")
    return record


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, in the dtype that they have.

    Raises:
        BadInput: if there is no such file.
        CorruptFile: if it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = existing(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptFile(f"expected tensors as safetensors in {path}; the file is damaged ({error})") from error


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of an ``.npz``.

    Raises:
        BadInput: if there is no such file.
        CorruptFile: if it is damaged, or holds objects.
    """
    path = existing(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise CorruptFile(f"expected arrays of numbers in {path}; the file is damaged or another ({error})") from error


def existing(path: str | Path) -> Path:
    """The path of a file that is there.

    Raises:
        BadInput: if there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"expected a file at {path}; there is none")
    return path
