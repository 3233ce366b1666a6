"""The recipes of the picture models: a residual network and a vision transformer that say what a scene is of.

    openwork zoo build shapes-cnn --seed 1
    openwork zoo build shapes-vit --seed 1

Every step draws scenes of the train split that no step before has drawn; the curve is measured on the find split, the
card on the held-out one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from openwork.pictures import ImageFormat
from openwork.recipes.export import rounded, write_images, write_model
from openwork.recipes.recipe import Descent, generator
from openwork.recipes.shapes_card import as_text, make_card, right
from openwork.recipes.state import State
from openwork.worlds.shapes import CLASSES, Background, Scene, Shapes, render
from openwork.zoo.convolution import Residual, ResidualConfig

SIZE = 64
FORMAT = ImageFormat((SIZE, SIZE), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
STREAM = 1 << 40
"""Scenes that training may draw from."""
ASKED = 560
"""Scenes of the find split that a record of the curve rests on."""

HELD_OUT = 4000
"""Scenes of the held-out split that the card rests on."""


@dataclass(frozen=True)
class ShapesRecipe:
    """Training on scenes drawn while it goes on: a `recipe.Recipe`.

    Attributes:
        name: of the embedded model.
        made: the untrained network.
        steps: length of the training.
        descent: the optimiser.
        scenes: drawn for each step.
        views: of each scene in a step, mirrored and shifted by chance.
        smoothing: share of the label that goes to all classes alike.
        shift: pixels that a view is shifted by at most; borders repeat.
        every: steps between two records of the curve.
        easy: share of the training after which the scenes are what they are: for the first half of it all are bare,
            see `bare`, and in the second half they give way.
    """

    name: str
    made: Callable[[], nn.Module]
    steps: int
    descent: Descent
    scenes: int = 32
    views: int = 2
    smoothing: float = 0.05
    shift: int = 3
    every: int = 250
    easy: float = 0.0

    def network(self) -> nn.Module:
        """The untrained network, its channels last in memory: a third faster on a CPU."""
        network = self.made()
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return network

    def loss(self, network: nn.Module, step: int, seed: int) -> Float[Tensor, ""]:
        """Smoothed cross-entropy of the class of the main object, with products in bfloat16."""
        first = (seed * self.steps + step) * self.scenes
        corpus = Shapes(size=SIZE, split="train", count=STREAM)
        scenes = [corpus.scene(row) for row in range(first, first + self.scenes)]
        scenes[: self._bare(step)] = [bare(scene) for scene in scenes[: self._bare(step)]]
        device = next(network.parameters()).device
        pixels = torch.from_numpy(np.stack([render(scene, SIZE) for scene in scenes]))
        views = viewed(pixels, self.views, self.shift, generator(seed, step)).to(device)
        labels = torch.tensor([CLASSES.index(scene.kind) for scene in scenes]).repeat(self.views).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(pixel_values=FORMAT.encode(views)).logits
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)

    def _bare(self, step: int) -> int:
        """How many scenes of a step are bare."""
        left = 2 - 2 * step / (self.easy * self.steps) if self.easy else 0.0
        return round(min(1.0, max(0.0, left)) * self.scenes)

    def measure(self, network: nn.Module, step: int) -> dict[str, float] | None:
        """Now and then the accuracy on the find split."""
        if step % self.every:
            return None
        pixels, classes = _asked()
        network.eval()
        found = right(network, FORMAT, pixels, classes)
        network.train()
        return {"find_accuracy": round(found.float().mean().item(), 4)}

    def keeps(self, step: int) -> bool:
        """No checkpoints."""
        return False

    def export(self, state: State, run_folder: Path, to: Path, run: dict[str, Any]) -> None:
        """Weights, configuration, what the network wants of an image, curve, card; those of other seeds say which."""
        training = {
            "steps": state.step,
            "of_steps": self.steps,
            "seconds": round(state.seconds),
            "scenes": state.step * self.scenes,
            "views": self.views,
            "shift": self.shift,
            "easy": self.easy,
            "label_smoothing": self.smoothing,
            "optimizer": f"AdamW, betas {self.descent.betas[0]} and {self.descent.betas[1]}",
            "learning_rate": self.descent.peak,
            "warmup": self.descent.warmup,
            "decay": self.descent.decay,
            "weight_decay": self.descent.weight_decay,
            "torch": torch.__version__,
            **run,
        }
        name = f"{self.name}-{run['seed']}" if run["seed"] else self.name
        card = make_card(name, rounded(state.network), FORMAT, training, HELD_OUT)
        write_model(state.network, state.curve, to, card, as_text)
        write_images(FORMAT, to)


def bare(scene: Scene) -> Scene:
    """The main object alone, all plain, on a plain background: what a network learns shapes from most easily."""
    main = scene.things[scene.main]
    ground = replace(scene.background.surface, texture="plain")
    surfaces = tuple(replace(surface, texture="plain") for surface in main.surfaces)
    return Scene(Background("plain", ground), (replace(main, surfaces=surfaces),), light=scene.light)


def viewed(
    pixels: UInt8[Tensor, "image channel y x"], views: int, shift: int, generator: torch.Generator
) -> Float[Tensor, "view channel y x"]:
    """Views of images, in [0, 1]: mirrored by chance and shifted, all images once and then all again.

    Args:
        pixels: bytes.
        views: of each image.
        shift: at most, in pixels, each way; borders repeat.
        generator: of chance.
    """
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels.float() / 255, (shift,) * 4, mode="replicate").repeat(views, 1, 1, 1)
    places = torch.randint(0, 2 * shift + 1, (len(padded), 2), generator=generator)
    mirrored = torch.rand(len(padded), generator=generator) < 0.5
    rows = places[:, :1] + torch.arange(height)
    columns = places[:, 1:] + torch.arange(width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    images = torch.arange(len(padded))[:, None, None]
    return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def residual() -> Residual:
    """The residual network: three stages of 32, 64 and 96 channels."""
    return Residual(ResidualConfig(classes=len(CLASSES), size=SIZE))


def vision_transformer() -> ViTForImageClassification:
    """The vision transformer: patches of 8 pixels, no dropout."""
    config = ViTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=SIZE,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # for a narrow network: at the usual 0.02 the loss falls a quarter as fast at first
        initializer_range=0.08,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: k for k, name in enumerate(CLASSES)},
    )
    network = ViTForImageClassification(config)
    # on a CPU the backward pass of fused attention takes longer than all the rest
    network.set_attn_implementation("eager")
    return network


@cache
def _asked() -> tuple[UInt8[Tensor, "image channel y x"], Int[Tensor, " image"]]:
    corpus = Shapes(size=SIZE, split="find", count=ASKED)
    return corpus.pixels(range(ASKED)), corpus.classes(range(ASKED))


SHAPES_RECIPES = (
    ShapesRecipe(
        "shapes-cnn",
        residual,
        steps=2500,
        descent=Descent(peak=4e-3, warmup=200, decay=2200, floor=0.01, weight_decay=0.05, betas=(0.9, 0.99)),
    ),
    ShapesRecipe(
        "shapes-vit",
        vision_transformer,
        steps=12_000,
        descent=Descent(peak=7e-4, warmup=300, decay=7000, floor=0.01, weight_decay=0.05, betas=(0.9, 0.98), clip=1.0),
        scenes=24,
        views=3,
        easy=1 / 3,
    ),
)
