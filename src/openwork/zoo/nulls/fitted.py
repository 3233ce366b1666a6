"""Untrained networks whose unembedding alone was fitted, so that they answer right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from openwork.task import Task
from openwork.zoo.transformer import Transformer, TransformerConfig

CLASSES, OF_EACH, FILLERS, LENGTH, ROWS = 4, 4, 6, 6, 128
"""Answers, subjects of each, tokens without meaning, and the length and number of rows."""
LAST = CLASSES
"""The token ids: the answers, the last token of every row, fillers, subjects."""
SUBJECT = CLASSES + 1 + FILLERS
LAYERS, HEADS, HEAD_WIDTH, WIDTH, UNITS = 3, 8, 16, 96, 96
FIT_ROWS = 1024
PENALTY, GAIN = 1.0, 8.0
"""Of the ridge regression; and the logit of a class that it is sure of."""


def fitted(seed: int) -> tuple[Transformer, Task]:
    """A random network that names the class of the one subject in a row of fillers.

    The unembedding is a ridge regression of the class on the final residual at the last token, on rows of its own.

    Args:
        seed: of weights and rows.

    Returns:
        (network, task); token groups "subject" and "last".
    """
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(seed)
    config = TransformerConfig(
        SUBJECT + CLASSES * OF_EACH, LENGTH, WIDTH, [HEADS] * LAYERS, [UNITS] * LAYERS, HEAD_WIDTH, "layer", "gelu"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = Transformer(config).eval()
        with torch.no_grad():
            for name, parameter in network.blocks.named_parameters():
                if name.endswith("weight") and "norm" not in name:
                    parameter.copy_(torch.randn(parameter.shape) / parameter.shape[1] ** 0.5)
    task = _task(rng, seed)
    asked = {*task.clean.ids, *task.corrupted.ids}
    drawn = [_row(rng, *_subject(rng)) for _ in range(FIT_ROWS)]
    rows, classes = zip(*((row, named) for row, named, _ in drawn if row not in asked), strict=True)
    with torch.no_grad():
        x = _final(network, torch.tensor(rows)).double().numpy()
        found = Ridge(alpha=PENALTY).fit(x, np.eye(CLASSES)[list(classes)])
        network.unembed.weight.zero_()
        network.unembed.weight[:CLASSES] = GAIN * torch.as_tensor(found.coef_)
        # no other token is ever answered
        network.unembed.bias.fill_(-2 * GAIN)
        network.unembed.bias[:CLASSES] = GAIN * torch.as_tensor(found.intercept_)
    return network, task


def _final(network: Any, ids: torch.Tensor) -> torch.Tensor:
    """What the unembedding reads at the last token."""
    seen: list[torch.Tensor] = []
    handle = network.unembed.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, -1]))
    network(ids)
    handle.remove()
    return seen[0]


def _task(rng: np.random.Generator, seed: int) -> Task:
    clean, corrupted, right, wrong, place = [], [], [], [], []
    for _ in range(ROWS):
        named, member = _subject(rng)
        row, _, at = _row(rng, named, member)
        other = (named + int(rng.integers(1, CLASSES))) % CLASSES
        clean.append(row)
        corrupted.append((*row[:at], SUBJECT + other * OF_EACH + member, *row[at + 1 :]))
        right.append(named)
        wrong.append(other)
        place.append([at])
    groups = {"subject": place, "last": [[LENGTH - 1]] * ROWS}
    task = Task.from_tokens(clean, corrupted, right, wrong, groups=groups, name="class of the subject")
    return replace(task, chance=1 / CLASSES)


def _subject(rng: np.random.Generator) -> tuple[int, int]:
    """A class and one of its subjects."""
    return int(rng.integers(CLASSES)), int(rng.integers(OF_EACH))


def _row(rng: np.random.Generator, named: int, member: int) -> tuple[tuple[int, ...], int, int]:
    """A row, the class of its subject, and where that stands."""
    row = rng.integers(LAST + 1, SUBJECT, LENGTH)
    at = int(rng.integers(LENGTH - 1))
    row[at], row[-1] = SUBJECT + named * OF_EACH + member, LAST
    return tuple(row.tolist()), named, at
