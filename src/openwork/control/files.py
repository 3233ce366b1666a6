"""Directions on disk: our own format, control vectors of repeng (GGUF), and those of steering-vectors.

    save(directions, "polite")                         # polite/directions.safetensors and polite/directions.json
    directions = load("polite")
    read_gguf("honest.gguf"), write_gguf(directions, "honest.gguf", model="mistral")
    read_steering_vectors("vector.pt"), write_steering_vectors(directions, "vector.pt")

Both foreign formats hold one vector a layer, that is added to what the block gives out: our ``blocks.N.resid_post``.
Nothing is ever unpickled.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openwork.direction import Direction
from openwork.errors import BadInput, CorruptFile, OpenworkError
from openwork.site import Site
from openwork.store.files import existing, read_record, read_tensors, write_json, write_tensors, writing

SCHEMA, VERSION = "openwork/directions", 1
RECORD, TENSORS = "directions.json", "directions.safetensors"
ARCHITECTURE = "controlvector"
LAYER = "blocks.{}.resid_post"
LAYER_TYPES = {"decoder_block": "resid_post", "self_attn": "attn.out", "mlp": "mlp.out"}
"""``layer_type`` of steering-vectors -> the site that it adds to."""
WAY_OUT = (
    'in the environment that wrote it: torch.save({"layer_activations": vector.layer_activations, "layer_type": '
    "vector.layer_type}, path)"
)


def save(directions: Direction | Iterable[Direction], folder: str | Path) -> Path:
    """Write directions into a folder, the record last.

    Args:
        directions: one or several, at most one a site.
        folder: made if it does not exist.

    Returns:
        the folder.

    Raises:
        BadInput: if two directions lie at one site, or there is none.
        OutputOccupied: if the folder cannot be written.
    """
    given, folder = _several(directions), Path(folder)
    tensors = {str(d.site): torch.from_numpy(d.array.numpy()) for d in given}
    write_tensors(folder / TENSORS, tensors)
    listed = [{"site": str(d.site), "origin": d.origin, "sha256": d.array.digest} for d in given]
    write_json(folder / RECORD, {"schema": SCHEMA, "schema_version": VERSION, "directions": listed})
    return folder


def load(folder: str | Path) -> list[Direction]:
    """Read what `save` wrote.

    Raises:
        BadInput: if there is no such folder.
        CorruptFile: if a file is damaged, altered, or of another version.
    """
    folder = Path(folder)
    record, tensors = read_record(folder / RECORD, SCHEMA, VERSION), read_tensors(folder / TENSORS)
    try:
        found = [Direction(one["site"], tensors[one["site"]], one["origin"]) for one in record["directions"]]
        sums = [one["sha256"] for one in record["directions"]]
    except (KeyError, TypeError, BadInput) as error:
        raise CorruptFile(f"expected the directions of {RECORD} in {folder / TENSORS}; {error}") from error
    if [d.array.digest for d in found] != sums:
        raise CorruptFile(f"expected directions that match their sha256 in {folder}; a file was altered")
    return found


# -- repeng --


def write_gguf(directions: Direction | Iterable[Direction], path: str | Path, model: str = "unknown") -> Path:
    """Write a control vector as repeng and llama.cpp read it.

    Args:
        directions: vectors at ``blocks.N.resid_post``, at most one a block.
        path: of the file.
        model: the ``model_type`` that repeng keeps as a hint.

    Raises:
        BadInput: for other sites, subspaces, or without the package gguf.
    """
    gguf, layers = _gguf(), _by_layer(directions, "resid_post")
    with writing(path) as partial:
        writer = gguf.GGUFWriter(partial, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(layers))
        for layer, vector in layers.items():
            writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(vector, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(path)


def read_gguf(path: str | Path) -> list[Direction]:
    """Read a control vector of repeng or llama.cpp.

    Returns:
        one direction a layer, in order, at ``blocks.N.resid_post``.

    Raises:
        BadInput: if there is no such file, or without the package gguf.
        CorruptFile: if it is damaged or holds no control vector.
    """
    gguf, path = _gguf(), existing(path)
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, OSError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise CorruptFile(f"expected a GGUF file at {path}; it is damaged or another ({error})") from error
    kind, hint = (_text(reader, name) for name in ("general.architecture", f"{ARCHITECTURE}.model_hint"))
    if kind != ARCHITECTURE:
        raise CorruptFile(f"expected a control vector in {path}, of the architecture {ARCHITECTURE!r}; got {kind!r}")
    found = {}
    for tensor in reader.tensors:
        name, _, layer = tensor.name.partition(".")
        if name != "direction":
            continue
        if not layer.isdecimal():
            raise CorruptFile(f"expected tensors called direction.N in {path}; got {tensor.name!r}")
        if tensor.tensor_type not in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            raise CorruptFile(f"expected {tensor.name} of {path} in float32 or float16; got {tensor.tensor_type.name}")
        found[int(layer)] = np.array(tensor.data, dtype=np.float32)
    if not found:
        raise CorruptFile(f"expected tensors called direction.N in {path}; there is none")
    return [_direction(LAYER.format(n), found[n], f"repeng, model {hint or 'unknown'}", path) for n in sorted(found)]


def _text(reader: Any, name: str) -> str | None:
    field = reader.get_field(name)
    return None if field is None or not len(field.parts) else bytes(field.parts[-1]).decode("utf-8", "replace")


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise BadInput("reading and writing GGUF needs the package gguf: pip install 'openwork[gguf]'") from error
    return gguf


# -- steering-vectors --


def write_steering_vectors(directions: Direction | Iterable[Direction], path: str | Path) -> Path:
    """Write the two fields of a ``SteeringVector`` with ``torch.save``: ``layer_activations`` and ``layer_type``.

    There, ``SteeringVector(**torch.load(path, weights_only=True))`` makes one of them; the library has no file format
    of its own.

    Args:
        directions: vectors at ``blocks.N.resid_post``, ``attn.out`` or ``mlp.out``, all of one kind.
        path: of the file.

    Raises:
        BadInput: for other sites, or subspaces.
    """
    given = _several(directions)
    kind = given[0].site.kind
    types = {site: name for name, site in LAYER_TYPES.items()}
    if kind not in types:
        raise BadInput(f"expected directions at {', '.join(f'blocks.N.{k}' for k in types)}; got {given[0].site}")
    layers = {layer: torch.from_numpy(vector) for layer, vector in _by_layer(given, kind).items()}
    with writing(path) as partial:
        torch.save({"layer_activations": layers, "layer_type": types[kind]}, partial)
    return Path(path)


def read_steering_vectors(path: str | Path) -> list[Direction]:
    """Read the two fields of a ``SteeringVector`` from a file of ``torch.save``, without unpickling objects.

    Returns:
        one direction a layer, in order.

    Raises:
        BadInput: if there is no such file; if it holds a pickled object, whose class would run code, with the way out;
            or for a layer type that adds to no site of ours.
        CorruptFile: if it is damaged or holds something else.
    """
    path = existing(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        classes = _classes(path)
        if classes:
            raise BadInput(
                f"{path} holds a pickled object ({', '.join(classes)}), and unpickling runs whatever code is in it; "
                f"save its two fields instead, {WAY_OUT}"
            ) from error
        raise CorruptFile(f"expected a file of torch.save at {path}; it is damaged or another ({error})") from error
    if not isinstance(held, Mapping) or not {"layer_activations", "layer_type"} <= set(held):
        raise CorruptFile(f"expected layer_activations and layer_type in {path}; save them {WAY_OUT}")
    kind, layers = held["layer_type"], held["layer_activations"]
    if kind not in LAYER_TYPES:
        raise BadInput(
            f"expected a layer_type of {', '.join(LAYER_TYPES)} in {path}; {kind!r} is what a norm gives out"
        )
    try:
        numbered = {int(layer): np.asarray(vector.float().reshape(-1)) for layer, vector in layers.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CorruptFile(f"expected layer_activations as layer -> tensor in {path}; {error}") from error
    if not numbered or min(numbered) < 0:
        raise CorruptFile(f"expected layers from 0 on in {path}; got {sorted(numbered)}")
    site = f"blocks.{{}}.{LAYER_TYPES[kind]}"
    return [_direction(site.format(n), numbered[n], "steering-vectors", path) for n in sorted(numbered)]


def _classes(path: Path) -> list[str]:
    """The classes that a file of ``torch.save`` would import, read off its instructions without following them."""
    try:
        with zipfile.ZipFile(path) as file:
            name = next(name for name in file.namelist() if name.endswith("data.pkl"))
            strings: list[str] = []
            found: list[str] = []
            for instruction, value, _ in pickletools.genops(file.read(name)):
                if instruction.name == "GLOBAL":
                    found.append(str(value).replace(" ", "."))
                elif instruction.name == "STACK_GLOBAL":
                    found.append(".".join(strings[-2:]))
                elif isinstance(value, str):
                    strings.append(value)
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError, KeyError):
        return []
    return [name for name in dict.fromkeys(found) if not name.startswith(("torch.", "collections."))]


def _several(directions: Direction | Iterable[Direction]) -> list[Direction]:
    given = [directions] if isinstance(directions, Direction) else list(directions)
    if not given or len({d.site for d in given}) < len(given):
        raise BadInput(f"expected one direction or more, at most one a site; got {[str(d.site) for d in given]}")
    return given


def _by_layer(directions: Direction | Iterable[Direction], kind: str) -> dict[int, np.ndarray]:
    found = {}
    for one in _several(directions):
        site = Site.parse(one.site)
        if site.block is None or site != Site(f"blocks.{site.block}.{kind}") or len(one.array.shape) != 1:
            raise BadInput(f"expected vectors at blocks.N.{kind}; got shape {one.array.shape} at {site}")
        found[site.block] = one.array.numpy()
    return dict(sorted(found.items()))


def _direction(site: str, vector: np.ndarray, origin: str, path: Path) -> Direction:
    try:
        return Direction(site, vector, origin)
    except OpenworkError as error:
        raise CorruptFile(f"expected a vector of finite numbers for {site} in {path}; {error}") from error
