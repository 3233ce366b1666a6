"""Loading models of transformers: safetensors only unless asked, no remote code unless asked, errors in plain words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from openwork.errors import BadInput, CorruptFile, UnknownName


def load(
    model: str | Path,
    tokenizer: Any,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    trust_remote_code: bool,
    allow_bin: bool,
) -> tuple[nn.Module, Any]:
    """The module in evaluation mode and its tokenizer (None if it has none).

    Raises:
        UnknownName: if neither a folder nor a reachable hub id.
        CorruptFile: if a weight file is damaged.
        BadInput: if the folder holds no model, or only what the flags forbid.
    """
    import transformers
    from safetensors import SafetensorError

    source = str(model)
    folder = Path(model).expanduser()
    if folder.exists():
        _check_folder(folder, allow_bin)
        source = str(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        kwargs: dict[str, Any] = {
            "trust_remote_code": trust_remote_code,
            "use_safetensors": None if allow_bin else True,
        }
        if dtype is not None:
            kwargs["dtype"] = as_dtype(dtype)
        if device is not None and str(device) == "auto":
            kwargs["device_map"] = "auto"
        module = _class_of(config).from_pretrained(source, **kwargs)
    except SafetensorError as error:
        raise CorruptFile(f"the weights of {source} are damaged or cut short ({error}); fetch them again") from error
    except json.JSONDecodeError as error:
        raise CorruptFile(f"a JSON file of {source} does not parse ({error}); fetch it again") from error
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        if folder.exists():
            if "trust_remote_code" in text:
                raise BadInput(f"{source} brings its own code; pass trust_remote_code=True if you trust it") from error
            raise CorruptFile(f"{source} cannot be loaded: {text}") from error
        raise UnknownName(f"no embedded model, folder or reachable hub id named {source!r}: {text}") from error
    module.eval()
    if device is not None and str(device) != "auto":
        module.to(device)
    return module, tokenizer if tokenizer is not None else _tokenizer(source, folder, trust_remote_code)


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    value = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(value, torch.dtype):
        raise BadInput(f"expected a dtype such as float32, bfloat16 or float16; got {dtype!r}")
    return value


def _check_folder(folder: Path, allow_bin: bool) -> None:
    if not folder.is_dir():
        raise BadInput(f"expected a folder with config.json and safetensors; {folder} is a file")
    if not (folder / "config.json").exists():
        raise BadInput(f"expected a model folder; {folder} has no config.json")
    if not list(folder.glob("*.safetensors")) and not allow_bin:
        found = ", ".join(sorted(p.name for p in folder.glob("*.bin"))) or "no weights at all"
        raise BadInput(f"expected safetensors in {folder}; found {found}. Pass allow_bin=True to read .bin weights")


def _class_of(config: Any) -> Any:
    """The class that the checkpoint was saved from, or the causal language model of its type."""
    import transformers

    for name in getattr(config, "architectures", None) or []:
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForCausalLM


def _tokenizer(source: str, folder: Path, trust_remote_code: bool) -> Any:
    import transformers

    if folder.is_dir() and not any(
        (folder / n).exists() for n in ("tokenizer.json", "tokenizer_config.json", "vocab.json")
    ):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError):
        return None  # vision and audio models have none
