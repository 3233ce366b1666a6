"""Loading the embedded models from the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

from openwork.errors import BadInput, CorruptFile, UnknownName
from openwork.zoo.attention_only import AttentionOnly, AttentionOnlyConfig
from openwork.zoo.convolution import Residual, ResidualConfig
from openwork.zoo.superposition import ToyModel, ToyModelConfig
from openwork.zoo.transformer import Transformer, TransformerConfig

WEIGHTS = Path(__file__).parent / "weights"
MODEL = "model.safetensors"
CHECKPOINTS = "checkpoints"
TOKENIZER = "tokenizer.json"
KINDS: Mapping[str, tuple[type[nn.Module], type]] = {
    "openwork-attention-only": (AttentionOnly, AttentionOnlyConfig),
    "openwork-residual": (Residual, ResidualConfig),
    "openwork-toy-model": (ToyModel, ToyModelConfig),
    "openwork-transformer": (Transformer, TransformerConfig),
}
"""`model_type` of `config.json` -> the class of ours and its configuration."""
OTHERS: Mapping[str, tuple[Any, type[PretrainedConfig]]] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config),
    "vit": (ViTForImageClassification, ViTConfig),
}
"""The same for classes of transformers."""
REINSTALL = "reinstall openwork (pip install --force-reinstall openwork)"


def names() -> list[str]:
    """The embedded models, sorted."""
    return sorted(path.parent.relative_to(WEIGHTS).as_posix() for path in WEIGHTS.rglob(MODEL))


def checkpoints(name: str) -> list[str]:
    """The training checkpoints of an embedded model, earliest first; `load(f"{name}@{checkpoint}")` opens one.

    Args:
        name: an embedded model.

    Returns:
        Names such as "step-2500"; empty if the model ships without.

    Raises:
        UnknownName: if there is no such model.
    """
    found = (folder_of(name) / CHECKPOINTS).glob("step-*.safetensors")
    return sorted((path.stem for path in found), key=lambda stem: int(stem.removeprefix("step-")))


def card(name: str) -> dict[str, Any]:
    """The model card: data with hashes, training, what the model can do with intervals.

    Args:
        name: an embedded model.

    Raises:
        UnknownName: if there is no such model.
        CorruptFile: if the card is damaged.
    """
    return _json(folder_of(name) / "card.json")


def load(name: str) -> tuple[nn.Module, Any]:
    """Open an embedded model.

    Args:
        name: one of `names()`, or `name@checkpoint` with one of `checkpoints(name)`.

    Returns:
        The network in float32 on the CPU, in evaluation mode, and its tokenizer (which puts the beginning-of-text
        token first, if it was trained with one), or None if it reads no tokens.

    Raises:
        UnknownName: if there is no such model or checkpoint; lists the nearest.
        CorruptFile: if a file of the package is damaged.
    """
    model, _, checkpoint = name.partition("@")
    folder = folder_of(model)
    path = folder / MODEL
    if checkpoint:
        known = checkpoints(model)
        if checkpoint not in known:
            raise UnknownName.among(f"checkpoint of {model}", checkpoint, known)
        path = folder / CHECKPOINTS / f"{checkpoint}.safetensors"
    network = _build(folder)
    fill(network, path)
    return network.eval(), _tokenizer(folder)


def blank(folder: Path) -> tuple[nn.Module, Any]:
    """The network that a folder's `config.json` describes, with weights that mean nothing, and its tokenizer.

    Args:
        folder: written as those of the embedded models are.

    Raises:
        CorruptFile: if a file is damaged.
    """
    return _build(folder).eval(), _tokenizer(folder)


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a network of one of `KINDS`, which transformers does not know."""
    path = folder / "config.json"
    return path.is_file() and _json(path).get("model_type") in KINDS


def from_folder(folder: Path) -> tuple[nn.Module, Any]:
    """The network of a folder such as a recipe exports, and its tokenizer.

    Raises:
        CorruptFile: if a file is damaged or missing.
    """
    network, tokenizer = blank(folder)
    fill(network, folder / MODEL, "fetch it again, or build it again")
    return network, tokenizer


def untrained(name: str, seed: int = 0) -> tuple[nn.Module, Any]:
    """The same network with fresh random weights: the control that has learned nothing.

    Args:
        name: one of `names()`.
        seed: of the weights.

    Returns:
        The network in float32 on the CPU, in evaluation mode, and the tokenizer of the trained one.

    Raises:
        UnknownName: if there is no such model.
    """
    folder = folder_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(folder)
    return network.eval(), _tokenizer(folder)


def folder_of(name: str) -> Path:
    """Where an embedded model lies in the package.

    Raises:
        UnknownName: if there is no such model.
    """
    if name not in names():
        raise UnknownName.among("embedded model", name, names())
    return WEIGHTS / name


def _build(folder: Path) -> nn.Module:
    config = _json(folder / "config.json")
    if (kind := config.pop("model_type")) in KINDS:
        network, shape = KINDS[kind]
        return network(shape(**config))
    if kind not in OTHERS:
        known = sorted({*KINDS, *OTHERS})
        raise CorruptFile(f"expected a model_type of {known} in {folder}; got {kind!r}; {REINSTALL}")
    network, shape = OTHERS[kind]
    return network(shape.from_pretrained(folder, local_files_only=True))


def config(network: nn.Module) -> dict[str, Any]:
    """What `config.json` says of a network of ours, so that `load` builds it again.

    Args:
        network: of one of `KINDS`.

    Raises:
        BadInput: if it is of another kind.
    """
    for kind, (cls, shape) in KINDS.items():
        if type(network) is cls:
            chosen: Any = network.config
            values = {field.name: getattr(chosen, field.name) for field in fields(shape) if field.init}
            return {"model_type": kind, **values}
    known = ", ".join(cls.__name__ for cls, _ in KINDS.values())
    others = " or ".join(cls.__name__ for cls, _ in OTHERS.values())
    raise BadInput(f"expected one of {known}, or a {others}; got a {type(network).__name__}")


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast | None:
    if not (folder / TOKENIZER).exists():
        return None
    # the library would take a damaged file for a missing one, and look for another in its place
    _json(folder / TOKENIZER)
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def fill(network: nn.Module, path: Path, remedy: str = REINSTALL) -> None:
    """Give a network the weights of a file.

    Args:
        network: of the file's shape.
        path: safetensors; a tied tensor is stored once.
        remedy: what to do about a damaged file.

    Raises:
        CorruptFile: if the file cannot be read, or lacks a tensor, or has others.
    """
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        report = network.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CorruptFile(f"cannot read the weights in {path}: {error}; {remedy}") from error
    places = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    filled = {places[name] for name in tensors if name in places}
    # a tied tensor is stored once, under one of its names
    missing = [name for name in report.missing_keys if places[name] not in filled]
    if missing or report.unexpected_keys:
        raise CorruptFile(
            f"{path} lacks {missing or 'nothing'} and has unknown {report.unexpected_keys or 'nothing'}; {remedy}"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFile(f"cannot read {path}: {error}; {REINSTALL}") from error
