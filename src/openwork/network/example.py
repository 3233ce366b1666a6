"""Example inputs for the dry run, made from what a module says of itself."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from openwork.errors import BadInput
from openwork.pictures import ImageFormat

ROWS, WIDTH = 2, 11


def vocabulary_of(module: nn.Module) -> int | None:
    """The number of token ids a network reads, or None if it reads none."""
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        size = getattr(config.get_text_config(), "vocab_size", None)
        if isinstance(size, int) and any(isinstance(m, nn.Embedding) for m in module.modules()):
            return size
        return None
    embedding = next((m for m in module.modules() if isinstance(m, nn.Embedding)), None)
    return embedding.num_embeddings if embedding is not None else None


def longest_of(module: nn.Module) -> int | None:
    """The largest number of positions that learned or declared positions allow, or None if nothing says so."""
    config = getattr(module, "config", None)
    for name in ("n_positions", "max_position_embeddings", "context", "block_size"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def guess(module: nn.Module, tokenizer: Any = None, images: ImageFormat | None = None) -> dict[str, Any]:
    """Keyword arguments of one short call.

    Args:
        module: the network.
        tokenizer: its tokenizer, if it has one.
        images: what it wants of an image, if that is known.

    Raises:
        BadInput: if nothing tells what the module reads.
    """
    parameters = inspect.signature(module.forward).parameters
    main = getattr(module, "main_input_name", None)
    vocabulary = vocabulary_of(module)
    first = next((n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)), None)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    floating = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    generator = torch.Generator().manual_seed(0)

    def ids(width: int = WIDTH) -> Tensor:
        assert vocabulary is not None
        special = set(getattr(tokenizer, "all_special_ids", None) or []) | _special(module)
        ordinary = torch.tensor([i for i in range(min(vocabulary, 50_000)) if i not in special])
        longest = longest_of(module)
        width = min(width, longest) if longest else width
        return ordinary[torch.randint(len(ordinary), (ROWS, width), generator=generator)].to(device)

    def image(channels: int, size: int) -> Tensor:
        pixels = natural(channels, (images.size if images is not None else None) or (size, size), generator)
        fits = images is not None and images.channels == channels
        values = images.encode(pixels) if images is not None and fits else 4 * pixels - 2
        return values.to(device, floating)

    config = getattr(module, "config", None)
    out: dict[str, Any] = {}
    if vocabulary is not None and (main in ("input_ids", None) or "input_ids" in parameters):
        out["input_ids" if "input_ids" in parameters else str(first)] = ids()
    vision = getattr(config, "vision_config", config)
    if "pixel_values" in parameters and (main == "pixel_values" or getattr(config, "model_type", "") in _DUAL):
        size = getattr(vision, "image_size", 32)
        size = size[0] if isinstance(size, (tuple, list)) else size
        out["pixel_values"] = image(getattr(vision, "num_channels", 3), int(size))
    if main == "input_features":
        frames = 2 * getattr(config, "max_source_positions", 64)
        shape = (ROWS, getattr(config, "num_mel_bins", 80), frames)
        out["input_features"] = torch.randn(shape, generator=generator).to(device, floating)
    if main == "input_values":
        out["input_values"] = torch.randn(ROWS, 4000, generator=generator).to(device, floating)
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in parameters:
        out["decoder_input_ids"] = ids(WIDTH - 2)
    if not out and first is not None:
        leaf = next((m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Conv1d, nn.Linear))), None)
        if isinstance(leaf, nn.Conv2d):
            out[first] = image(leaf.in_channels, 64)
        elif isinstance(leaf, nn.Linear):
            out[first] = torch.randn(ROWS, leaf.in_features, generator=generator).to(device, floating)
    if not out:
        raise BadInput(
            f"cannot tell what {type(module).__name__} reads; pass example=, the keyword arguments of one call"
        )
    return out


def natural(channels: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Pixels in [0, 1] with the spectrum of photographs, whose amplitude falls as one over the frequency.

    Source:
        Field 1987, "Relations between the statistics of natural images and the response properties of cortical cells".
    """
    noise = torch.fft.rfft2(torch.randn(ROWS, channels, *size, generator=generator))
    y, x = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    frequency = (y.square() + x.square()).sqrt().clamp_min(1 / max(size))
    pixels = torch.fft.irfft2(noise / frequency, s=size)
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    return (pixels - low) / (high - low).clamp_min(1e-12)


_DUAL = ("clip", "siglip", "siglip2", "chinese_clip", "align", "altclip", "clipseg", "groupvit", "metaclip_2")


def _special(module: nn.Module) -> set[int]:
    """Token ids with a special meaning to the model, which must not come up by chance."""
    config = getattr(module, "config", None)
    values = vars(config).items() if config is not None else ()
    return {v for k, v in values if isinstance(v, int) and (k.endswith(("_token_id", "_token_index", "_id")))}
