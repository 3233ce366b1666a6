"""The card of a picture model: how often it is right, by what the picture is of and what makes it hard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor, nn

from openwork.pictures import ImageFormat
from openwork.recipes.evaluate import Accuracy
from openwork.worlds.shapes import CLASSES, Scene, Shapes

BATCH = 250


@torch.no_grad()
def right(
    network: nn.Module, images: ImageFormat, pixels: UInt8[Tensor, "image channel y x"], classes: Int[Tensor, " image"]
) -> Bool[Tensor, " image"]:
    """Which images a network says the class of.

    Args:
        network: maps `pixel_values` to `.logits`, in evaluation mode.
        images: what it wants of an image.
        pixels: bytes.
        classes: the right ones.
    """
    device = next(network.parameters()).device
    found = [
        network(pixel_values=images.encode(part.to(device).float() / 255)).logits.argmax(dim=-1).cpu()
        for part in pixels.split(BATCH)
    ]
    return torch.cat(found) == classes


def traits(scene: Scene) -> dict[str, str]:
    """What may make a scene hard: its background, what hides the main object, its texture, its size."""
    main = scene.things[scene.main]
    return {
        "class": scene.kind,
        "background": scene.background.kind,
        "occluder": "yes" if scene.occluders else "no",
        "other objects": str(len(scene.things) - 1),
        "texture": main.surfaces[0].texture,
        "scale": f"{main.scale // 100 / 10:.1f} to {main.scale // 100 / 10 + 0.1:.1f}",
    }


def make_card(name: str, half: nn.Module, images: ImageFormat, training: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Measure a trained network on the held-out split.

    Args:
        name: of the model.
        half: with the weights as they ship, in evaluation mode.
        images: what it wants of an image.
        training: how it was trained.
        n: scenes to measure it on.

    Returns:
        a value for JSON.
    """
    corpus = Shapes(size=64, split="held-out", count=n)
    found, groups = [], {}
    for start in range(0, n, BATCH):
        rows = range(start, min(n, start + BATCH))
        found.append(right(half, images, corpus.pixels(rows), corpus.classes(rows)))
    answers = torch.cat(found)
    for row in range(n):
        for trait, value in traits(corpus.scene(row)).items():
            groups.setdefault(trait, {}).setdefault(value, []).append(row)
    chance = 1 / len(CLASSES)

    def record(rows: list[int]) -> dict[str, Any]:
        return Accuracy(int(answers[rows].sum()), len(rows), chance).record()

    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in half.parameters()),
        "license": "Apache-2.0",
        "what": "The class of the main object of a scene of worlds.shapes",
        "classes": list(CLASSES),
        "images": images.to_json(),
        "data": {
            "world": "openwork.worlds.shapes",
            "trained_on": Shapes(split="train", count=1).name,
            "held_out": {"name": corpus.name, "sha256": corpus.digest},
        },
        "training": dict(training),
        "held_out": record(list(range(n))),
        "by": {
            trait: {value: record(rows) for value, rows in sorted(values.items())} for trait, values in groups.items()
        },
    }


def as_text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    training, held, images = card["training"], card["held_out"], card["images"]
    tables = "\n".join(
        f"\n| {trait} | accuracy | 95 % interval | n |\n| --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {value} | {one['accuracy']:.3f} | {one['interval'][0]:.3f} to {one['interval'][1]:.3f} | {one['n']:,} |"
            for value, one in sorted(values.items())
        )
        for trait, values in sorted(card["by"].items())
    )
    easy = ""
    if training["easy"]:
        easy = f"""
In the first {training["easy"] / 2:.0%} of the steps all scenes are bare, the main object alone and all plain; by \
{training["easy"]:.0%} they have given way to whole ones."""
    return f"""# {card["name"]}

{card["what"]}, one of {len(card["classes"])}: {", ".join(card["classes"])}. {card["parameters"]:,} parameters, trained
by openwork's own recipe:

    {training["command"]}

{training["steps"]:,} steps over {training["scenes"]:,} scenes, each in {training["views"]} views (mirrored by chance, \
shifted by at most {training["shift"]} pixels),
{training["seconds"]:,} seconds on {training["device"]} with {training["threads"]} threads, seed {training["seed"]}.
{training["optimizer"]}, learning rate {training["learning_rate"]}, weight decay {training["weight_decay"]}, label
smoothing {training["label_smoothing"]}.{easy} `curve.json` holds the accuracy on the find split along the training.

It reads RGB images of {images["size"][0]} x {images["size"][1]} pixels in [0, 1], less {images["mean"][0]} and over \
{images["sd"][0]} in every channel.

On {held["n"]:,} held-out scenes (sha256 {card["data"]["held_out"]["sha256"][:16]}) it is right in
**{held["accuracy"]:.1%}** (95 % interval {held["interval"][0]:.1%} to {held["interval"][1]:.1%}; chance \
{held["chance"]:.1%}).
{tables}
"""
