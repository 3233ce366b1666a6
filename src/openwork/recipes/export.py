"""From a finished run to the folder that ships."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from openwork.errors import BadInput
from openwork.network.image_format import PREPROCESSOR
from openwork.pictures import ImageFormat
from openwork.recipes.plan import Plan
from openwork.recipes.state import CURVE, checkpoint_path, save_half
from openwork.store.files import read_json, write_json, write_text
from openwork.zoo.embedded import CHECKPOINTS, MODEL, config

SHIPPED_CHECKPOINTS = 10


def write_model(
    network: nn.Module,
    curve: list[dict[str, float | int]],
    to: Path,
    card: dict[str, Any],
    as_text: Callable[[dict[str, Any]], str],
) -> None:
    """Write what every model ships: weights in half precision, configuration, curve and card.

    Args:
        network: the trained network, in full precision.
        curve: what was measured on the way.
        to: the folder.
        card: what was measured, a value for JSON.
        as_text: the card for people, in Markdown.
    """
    save_half(network, to / MODEL)
    write_config(network, to)
    write_json(to / CURVE, curve)
    write_json(to / "card.json", card)
    write_text(to / "README.md", as_text(read_json(to / "card.json")))


def write_checkpoints(steps: Iterable[int], run_folder: Path, to: Path) -> None:
    """Ship kept checkpoints.

    Args:
        steps: which.
        run_folder: where the training kept them.
        to: the folder that ships.
    """
    for step in steps:
        place = to / CHECKPOINTS / f"step-{step}.safetensors"
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint_path(run_folder, step), place)


def rounded(network: nn.Module) -> nn.Module:
    """A copy of a network with its weights rounded to half precision, in float32: what a user will load."""
    return copy.deepcopy(network).half().float().eval()


def write_config(network: nn.Module, folder: Path) -> None:
    """Write `config.json`, from which the network is built again.

    Args:
        network: of a kind that the zoo builds.
        folder: where.

    Raises:
        BadInput: if it is of another kind.
    """
    if not isinstance(network, PreTrainedModel):
        write_json(folder / "config.json", config(network))
        return
    chosen = copy.deepcopy(network.config)
    chosen.architectures = [type(network).__name__]
    # the file is in half precision to be small; it is meant to be used in float32
    chosen.dtype = torch.float32
    chosen.save_pretrained(folder)


def write_images(images: ImageFormat, folder: Path) -> None:
    """Write what a network wants of an image, in the file and the words of transformers.

    Args:
        images: RGB, of one size.
        folder: that ships.

    Raises:
        BadInput: if the file has no words for the format.
    """
    if images.size is None or images.order != "RGB":
        raise BadInput(f"expected RGB images of one size, which alone a preprocessor file can say; got {images}")
    content = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": dict(zip(("height", "width"), images.size, strict=True)),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.sd),
    }
    write_json(folder / PREPROCESSOR, content)


def around_the_rise(curve: list[dict[str, float | int]], plan: Plan, n: int = SHIPPED_CHECKPOINTS) -> list[int]:
    """The kept steps that show induction being born: before, during and after.

    Args:
        curve: measured steps with their induction accuracy.
        plan: says which steps were kept.
        n: how many steps to choose.

    Returns:
        The untrained network, n - 2 steps spread evenly over the rise from 2 % to 90 % of the highest accuracy reached
        while checkpoints were kept, and the last one kept.

    Raises:
        BadInput: if fewer steps than that were kept.
    """
    kept = [r for r in curve if r["step"] <= plan.dense_until and r["step"] % plan.dense_every == 0]
    top = max(r["induction"] for r in kept)
    first = next(r["step"] for r in kept if r["induction"] >= 0.02 * top)
    last = next(r["step"] for r in kept if r["induction"] >= 0.9 * top)
    steps = [int(r["step"]) for r in kept]

    def nearest(step: float) -> int:
        return min(steps, key=lambda kept_step: abs(kept_step - step))

    rise = [nearest(first + (last - first) * i / (n - 3)) for i in range(n - 2)]
    chosen = sorted({0, *rise, steps[-1]})
    if len(chosen) < n:
        raise BadInput(f"expected {n} checkpoints around the rise of induction, found {len(chosen)}: keep them denser")
    return chosen
