"""How alike images look to a judge that is not the unit: low-level statistics of pixels, or a network's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.network.image_format import needs_images
from openwork.vision.responses.redrawn import redrawn
from openwork.vision.responses.stimuli import HUES
from openwork.vision.units import channel_axis

if TYPE_CHECKING:
    from openwork.network import Network

LOW_LEVEL, UNTRAINED = "low-level", "untrained"
BATCH, COARSE, ORIENTATIONS, SMALLEST = 64, 4, 8, 8
Features = Callable[[Float[Tensor, "image channel y x"]], Float[np.ndarray, "image feature"]]


def judge_of(net: Network, judge: Network | str, site: str | None, seed: int) -> tuple[str, Features]:
    """What a judge is called, and the features that it goes by.

    Args:
        net: the network whose units are judged.
        judge: ``low-level``, ``untrained`` (the same network, its weights in random order), or a network.
        site: whose mean over places is the judge's features; the last site before the logits unless given.
        seed: of the random order.

    Raises:
        BadInput: for another judge.
        UnknownName: for a site that does not exist.
    """
    if isinstance(judge, str):
        if judge == LOW_LEVEL:
            return "low-level statistics of pixels", _in_batches(low_level)
        if judge == UNTRAINED:

            def untrained(pixels: Tensor) -> np.ndarray:
                with redrawn(net, seed):
                    return _in_batches(lambda some: pooled(net, some, where))(pixels)

            where = site or last_site(net)
            return f"{where} of {net.name} with its weights in random order", untrained
        raise BadInput(f"expected a network, {LOW_LEVEL!r} or {UNTRAINED!r} as the judge; got {judge!r}")
    where = site or last_site(judge)
    own = " (the network itself)" if judge is net else ""
    return f"{where} of {judge.name}{own}", _in_batches(lambda some: pooled(judge, some, where))


def last_site(net: Network) -> str:
    """The last site before the logits that has channels over places; the logits of a network that has none."""
    for name, info in reversed(net.sites.items()):
        if name != "logits" and info.axes in (("batch", "channel", "y", "x"), ("batch", "position", "channel")):
            return name
    return "logits"


def pooled(net: Network, pixels: Float[Tensor, "image channel y x"], site: str) -> Tensor:
    """The mean over places of every channel of a site."""
    (found,) = net.map.resolve(site)
    value = net.run(needs_images(net).encode(pixels.to(net.device)).to(net.dtype), keep=found.path, until=found.path)[
        found.path
    ]
    channels = value.movedim(channel_axis(net.map.info(found.path).axes), -1)
    return channels.flatten(1, -2).mean(1) if channels.ndim > 2 else channels


def low_level(pixels: Float[Tensor, "image channel y x"]) -> Float[Tensor, "image feature"]:
    """Colours on a coarse grid and as a whole, and how much of each orientation there is at two scales.

    Colours are brightness, red against cyan, and green against blue; orientation is that of the gradient of
    brightness, in eight bins without its sign, weighted by its size, over quarters of the image.

    Raises:
        BadInput: for images below eight pixels.
    """
    if min(pixels.shape[-2:]) < SMALLEST:
        raise BadInput(
            f"expected images of {SMALLEST} pixels or more for their low-level statistics; got "
            f"{pixels.shape[-2]} x {pixels.shape[-1]}. Give a network as the judge"
        )
    rgb = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
    bright = rgb.mean(1, keepdim=True)
    axes = torch.tensor(HUES, dtype=rgb.dtype, device=rgb.device)
    colours = torch.cat([bright, torch.einsum("nchw,kc->nkhw", rgb, axes)], 1)
    groups = [torch.nn.functional.adaptive_avg_pool2d(colours, COARSE).flatten(1)]
    flat = colours.flatten(2)
    groups.append(torch.cat([flat.mean(2), flat.std(2), flat.amax(2), flat.amin(2)], 1))
    for scale in (1, 2):
        plane = torch.nn.functional.avg_pool2d(bright, scale) if scale > 1 else bright
        across = plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]
        down = plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]
        size, angle = torch.hypot(across, down), torch.atan2(down, across) % torch.pi
        place = angle / torch.pi * ORIENTATIONS
        bins = torch.arange(ORIENTATIONS, device=rgb.device)[None, :, None, None]
        apart = (place - bins).abs()
        share = (1 - torch.minimum(apart, ORIENTATIONS - apart)).clamp(min=0)
        groups.append(torch.nn.functional.adaptive_avg_pool2d(share * size, 2).flatten(1).sqrt())
    return torch.cat(groups, 1)


@dataclass(frozen=True, eq=False)
class Yardstick:
    """By what features are measured: from the mean of a pool of images, in units of its spread.

    Args:
        mean: of the pool.
        weights: one over its standard deviation, 0 where it has none.
    """

    mean: Float[np.ndarray, " feature"]
    weights: Float[np.ndarray, " feature"]

    @classmethod
    def of(cls, pool: Float[np.ndarray, "image feature"]) -> Yardstick:
        """The one that a pool gives."""
        spread = pool.std(0)
        known = spread > 1e-9
        return cls(pool.mean(0), np.where(known, 1 / np.where(known, spread, 1.0), 0.0))

    def __call__(self, features: Float[np.ndarray, "image feature"]) -> Float[np.ndarray, "image feature"]:
        """Features of length one, whose products are cosines."""
        scaled = (features - self.mean) * self.weights
        size = np.linalg.norm(scaled, axis=1, keepdims=True)
        return scaled / np.where(size > 0, size, 1.0)


def _in_batches(features: Callable[[Tensor], Tensor]) -> Features:
    def run(pixels: Tensor) -> np.ndarray:
        found = [features(part).detach().double().cpu().numpy() for part in pixels.split(BATCH)]
        return np.concatenate(found)

    return run


def as_pixels(images: object, what: str) -> Float[Tensor, "image channel y x"]:
    """Images as numbers in [0, 1].

    Raises:
        BadInput: if they are no images (image, channel, y, x) of bytes or of numbers in [0, 1].
    """
    value = torch.as_tensor(np.asarray(images)) if not isinstance(images, Tensor) else images
    if value.ndim == 3:
        value = value[None]
    if value.ndim != 4 or value.shape[1] not in (1, 3) or not len(value):
        raise BadInput(f"expected images (image, channel, y, x) for {what}; got {tuple(value.shape)}")
    pixels = value.float() / 255 if value.dtype == torch.uint8 else value.float()
    if not (float(pixels.min()) >= -1e-4 and float(pixels.max()) <= 1 + 1e-4):
        raise BadInput(f"expected pixels in [0, 1] for {what}; got {float(pixels.min()):.3g}–{float(pixels.max()):.3g}")
    return pixels
