"""Opening a network: from a name, a folder or a module to a map of certified sites."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openwork.errors import BadInput
from openwork.network.anatomy import Surveyor
from openwork.network.certify import Certifier, first_output, is_causal
from openwork.network.example import guess, longest_of, vocabulary_of
from openwork.network.follow import image_axes
from openwork.network.image_format import image_format
from openwork.network.inputs import Preparer
from openwork.network.layout import width_of
from openwork.network.load import load
from openwork.network.network import Network
from openwork.network.paths import leaves
from openwork.network.record import record
from openwork.network.sites import SiteMap, module_sites
from openwork.network.timeline import Timeline
from openwork.pictures import ImageFormat


def open(
    model: Any,
    *,
    tokenizer: Any = None,
    images: Any = None,
    example: Mapping[str, Any] | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
    allow_bin: bool = False,
) -> Network:
    """Open a network: find its sites and certify them on this checkpoint.

    Args:
        model: a module, a local folder (text or `Path`), or a hub id of transformers.
        tokenizer: a tokenizer of transformers; loaded beside the weights if there is one.
        images: an `ImageFormat`, what the network wants of an image; read from the files of a checkpoint that says so.
        example: keyword arguments of one short call, if they cannot be guessed.
        name: what to call the network in results.
        device: where to load it.
        dtype: the dtype to load it in.
        trust_remote_code: run code that comes with the model.
        allow_bin: read ``.bin`` weights if there are no safetensors (never with pickled code).

    Raises:
        UnknownName: if there is no such model.
        CorruptFile: if its files are damaged.
        BadInput: if it is no model at all, is in training mode, returns NaN, or cannot be called with the example.
    """
    if images is not None and not isinstance(images, ImageFormat):
        raise BadInput(f"expected images= as an openwork.ImageFormat; got {images!r:.100}")
    if isinstance(model, nn.Module):
        if trust_remote_code or allow_bin or dtype is not None or device is not None:
            raise BadInput("device, dtype and loading flags are for names and folders; move the module yourself")
        module = model
    elif not isinstance(model, (str, Path)) or not str(model).strip():
        raise BadInput(f"expected a module, a folder or a hub id of transformers; got {model!r}")
    else:
        module, tokenizer = load(model, tokenizer, device, dtype, trust_remote_code, allow_bin)
        images = images or image_format(model)
        name = name or str(model)
    root: nn.Module = getattr(module, "_orig_mod", module)
    if root.training:
        raise BadInput(f"expected a module in evaluation mode; call {type(root).__name__}.eval() first")
    kwargs = dict(example) if example is not None else guess(root, tokenizer, images)
    with _eager(root):
        map_, preparer, timeline = _survey(root, kwargs, tokenizer)
    if images is not None and preparer.axes is None:
        raise BadInput(
            f"expected images= for a network that reads images only; {type(root).__name__} reads {preparer.main}"
        )
    if images is not None and images.channels != preparer.channels:
        raise BadInput(
            f"expected a format of {preparer.channels} channels, as the network reads; got {images.channels}"
        )
    return Network(module, root, name or type(root).__name__, tokenizer, map_, preparer, kwargs, timeline, images)


def _survey(root: nn.Module, kwargs: dict[str, Any], tokenizer: Any) -> tuple[SiteMap, Preparer, Timeline]:
    """The certified sites, how inputs become arguments, and what ran when."""
    _check_call(root, kwargs)
    main = _main(root, kwargs)
    trace = record(root, kwargs)
    surveyor = Surveyor(trace)
    found = surveyor.find()
    certifier = Certifier(root, kwargs, found)
    sites = certifier.certify()
    ports = {site.name: site.port for site in found}
    modules, module_ports = module_sites(trace)
    ids = kwargs[main]
    width = width_of(ids) if isinstance(ids, Tensor) else 1
    image = image_axes(root, ids) if isinstance(ids, Tensor) and ids.is_floating_point() and ids.ndim == 4 else None
    vocabulary = vocabulary_of(root) if isinstance(ids, Tensor) and not ids.is_floating_point() else None
    causal = is_causal(root, kwargs, main, sites, ports)
    preparer = Preparer(root, tokenizer, main, causal, vocabulary, longest_of(root))
    if image is not None:
        preparer.axes, preparer.channels = image, ids.shape[image.index("channel")]
    map_ = SiteMap(
        sites,
        ports,
        {**surveyor.refused, **certifier.refused},
        modules,
        module_ports,
        width,
        ids.shape[0] if isinstance(ids, Tensor) and ids.ndim else 1,
    )
    return map_, preparer, Timeline.of(trace, surveyor.blocks, certifier.plain)


def _eager(root: nn.Module) -> Any:
    """Compiled graphs do not call the hooks that look on, nor may they be compiled anew for them."""
    if any(m._compiled_call_impl is not None or hasattr(m, "_orig_mod") for m in root.modules()):
        return torch.compiler.set_stance("force_eager")
    return contextlib.nullcontext()


def _main(root: nn.Module, kwargs: Mapping[str, Any]) -> str:
    name = getattr(root, "main_input_name", None)
    if name in kwargs:
        return str(name)
    for key in ("input_ids", *kwargs):
        if isinstance(kwargs.get(key), Tensor):
            return key
    raise BadInput(f"expected a tensor among the arguments of the example; got {sorted(kwargs)}")


def _check_call(root: nn.Module, kwargs: Mapping[str, Any]) -> None:
    """The example must run and give numbers."""
    try:
        with torch.no_grad():
            output = root(**kwargs)
    except Exception as error:
        shapes = {k: tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for k, v in kwargs.items()}
        raise BadInput(
            f"{type(root).__name__} cannot be called with {shapes}: {type(error).__name__}: {error}. "
            "Pass example=, the keyword arguments of one call that works"
        ) from error
    if not any(leaf.is_floating_point() for _, leaf in leaves(output)):
        raise BadInput(
            f"expected {type(root).__name__} to return a floating tensor; it returned {type(output).__name__}"
        )
    result = first_output(output)
    if bool(result.isnan().any()) or not bool(result.isfinite().any()):  # some infinity may be a mask
        bad = [n for n, p in root.named_parameters() if p.is_floating_point() and not bool(torch.isfinite(p).all())]
        where = f"NaN or infinite weights: {', '.join(bad[:5])}" if bad else "its weights are finite"
        raise BadInput(f"expected numbers; {type(root).__name__} returns NaN, or nothing but infinity ({where})")
