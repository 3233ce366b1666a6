# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
"""A tiny vision transformer that tells images by their one bright patch among pale ones; where that lies is known."""

from functools import cache

import torch
from transformers import ViTConfig, ViTForImageClassification

import openwork as ow
from openwork.network.network import Network
from openwork.worlds.picture_array import PictureArray

SIZE, PATCH, SIDE = 16, 4, 4
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
NAMES = ("red", "green", "blue")
PALE, SHARE = 8, 0.5
"""How many pale patches of any colour there are, and how much of the colour they have."""
SILENT = 1
"""The head of the last block that carries nothing."""


def pictures(count: int, seed: int) -> tuple[PictureArray, torch.Tensor]:
    """Grey noise with pale patches of any colour and a bright one of the class's, and which patch that is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    place = torch.randint(SIDE * SIDE, (count,), generator=generator)
    grey = 0.5 + 0.08 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    values = grey.expand(-1, 3, -1, -1).clone()
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    for i, (label, at) in enumerate(zip(labels.tolist(), place.tolist(), strict=True)):
        for pale in torch.randperm(SIDE * SIDE, generator=generator)[:PALE].tolist():
            y, x = PATCH * (pale // SIDE), PATCH * (pale % SIDE)
            colour = COLOURS[int(torch.randint(3, (1,), generator=generator))][:, None, None]
            values[i, :, y : y + PATCH, x : x + PATCH] *= 1 - SHARE
            values[i, :, y : y + PATCH, x : x + PATCH] += SHARE * colour
        y, x = PATCH * (at // SIDE), PATCH * (at % SIDE)
        values[i, :, y : y + PATCH, x : x + PATCH] = COLOURS[label][:, None, None]
        masks[i, y : y + PATCH, x : x + PATCH] = label + 1
    pixels = (values.clamp(0, 1) * 255).round().byte()
    found = PictureArray(pixels, f"patches {seed}", {"part": NAMES}, {"part": masks}, labels, NAMES)
    return found, place


@cache
def network() -> Network:
    """Trained for a moment; tokens look at one another in its last block alone, and one head there is silent."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=SIZE,
        patch_size=PATCH,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    module = ViTForImageClassification(config)
    images, _ = pictures(768, 1)
    inputs, labels = images.values.float() / 127.5 - 1, images.classes(range(len(images)))
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    inner = dict(module.named_modules())
    value = next(m for n, m in inner.items() if "layers.1" in n and n.split(".")[-1] in ("value", "v_proj"))
    first = next(m for n, m in inner.items() if "layers.0" in n and n.split(".")[-1] in ("value", "v_proj"))
    for step in range(260):
        at = torch.arange(64) + 64 * (step % 12)
        loss = torch.nn.functional.cross_entropy(module(inputs[at]).logits, labels[at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for weights in (value.weight[12:], value.bias[12:], first.weight, first.bias):
                weights.zero_()
    module.zero_grad(set_to_none=True)
    half = (0.5, 0.5, 0.5)
    return ow.open(module.eval(), name="patches", images=ow.ImageFormat((SIZE, SIZE), half, half))
