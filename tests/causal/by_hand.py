"""A small random network with a task, and the metric of full forward passes with hooks placed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openwork import network
from openwork.network import Network
from openwork.task import Inputs, Task

from ..network.oracle import Place, forward, places, watch
from ..network.tiny import LAYERS, VOCABULARY, build, token_ids

ROWS, LENGTH = 8, 7
AT = places("gpt2", LAYERS)


@cache
def gpt2() -> Network:
    """Three sequential blocks with norms."""
    return network.open(build("gpt2"), name="gpt2")


@cache
def neox() -> Network:
    """Three parallel blocks."""
    return network.open(build("neox"), name="neox")


@cache
def random_task() -> Task:
    """Random tokens; the answer of row i is read at position 5 or 6."""
    ids = [token_ids(ROWS, LENGTH, seed=seed) for seed in (0, 1)]
    answers = token_ids(2, ROWS, seed=2).tolist()
    wrong = [(b + 1) % VOCABULARY if a == b else b for a, b in zip(*answers, strict=True)]
    groups = {"subject": [[1, 2] if i % 2 else [2, 3] for i in range(ROWS)], "one": [[3]] * ROWS}
    return Task.from_tokens(
        ids[0], ids[1], answers[0], wrong, at=[5 + i % 2 for i in range(ROWS)], groups=groups, held_out=range(4, 8)
    )


def ids_of(inputs: Any) -> dict[str, Tensor]:
    """The arguments of one call."""
    assert isinstance(inputs, Inputs)
    return {"input_ids": torch.tensor(inputs.ids)}


def difference(task: Task, split: Any, logits: Tensor) -> np.ndarray:
    """The logit difference of each row, one by one."""
    batch = task.split(split)
    out = []
    for row, at in enumerate(batch.at):
        here = logits[row, at]
        out.append(float(here[batch.answer[row]] - here[batch.wrong[row]]))
    return np.array(out)


def run(net: Network, inputs: Any, at: Mapping[Place, Callable[[Tensor], Tensor | None]] | None = None) -> Tensor:
    """Logits of one full forward pass under hooks."""
    return forward(net.module, ids_of(inputs), at)


def seen(net: Network, inputs: Any, place: Place) -> Tensor:
    """What stands at a place in an unedited run."""
    return watch(net.module, ids_of(inputs), [place])[place]


def put(new: Tensor, positions: Any = None, channels: slice = slice(None)) -> Callable[[Tensor], Tensor]:
    """A hook that writes a tensor at some positions: a list for each row, or None for all."""

    def hook(value: Tensor) -> Tensor:
        value = value.clone()
        for row in range(len(value)):
            for p in range(value.shape[1]) if positions is None else positions[row]:
                value[row, p, channels] = new[row, p, channels]
        return value

    return hook
