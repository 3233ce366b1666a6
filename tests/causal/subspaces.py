"""The slow way that the tests compare with: swaps by hand-placed hooks, one example and one full forward at a time."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

import openwork as ow
from openwork.network import Network
from openwork.task import Inputs, Task
from openwork.zoo.planted import PlantedDirection, direction_task


@cache
def planted(mechanism: bool = True) -> tuple[PlantedDirection, Network, Task]:
    """The network with a causal, a disconnected and a dormant direction, or its copy without the mechanism."""
    module = PlantedDirection(subjects=96, planted=mechanism).eval()
    return module, ow.open(module), direction_task(module, n=44)


def keep(seen: list[Tensor], module: nn.Module, args: tuple[Tensor]) -> None:
    """A hook that keeps what a module reads."""
    seen.append(args[0].detach().clone())


def swapped_by_hand(
    module: nn.Module, layer: nn.Module, task: Task, group: str, vectors: np.ndarray, head: slice = slice(None)
) -> np.ndarray:
    """Effect on the logit difference of swapping clean into corrupted along the span of the vectors.

    Args:
        module: called with token ids.
        layer: the module whose input is edited.
        task: the examples.
        group: the token group that is edited.
        vectors: (count, channel).
        head: the channels of the layer's input that are meant.
    """
    basis = torch.linalg.qr(torch.from_numpy(np.atleast_2d(vectors)).double().T).Q
    out = []
    assert isinstance(task.clean, Inputs)
    assert isinstance(task.corrupted, Inputs)
    for row in range(len(task)):
        places = list(task.clean.groups[group][row])
        seen: list[Tensor] = []
        clean, corrupted = (torch.tensor([inputs.ids[row]]) for inputs in (task.clean, task.corrupted))
        handle = layer.register_forward_pre_hook(partial(keep, seen))
        with torch.no_grad():
            module(clean)
            handle.remove()
            before = module(corrupted)

            def edit(m: nn.Module, args: tuple[Tensor], seen: list[Tensor] = seen, places: list[int] = places):
                value = args[0].clone()
                gap = (seen[0] - value)[0, places, head].double()
                value[0, places, head] += (gap @ basis @ basis.T).to(value.dtype)
                return (value,)

            handle = layer.register_forward_pre_hook(edit)
            after = module(corrupted)
            handle.remove()
        right, wrong, at = task.answer[row], task.wrong[row], task.at[row]
        difference = [float(logits[0, at, right] - logits[0, at, wrong]) for logits in (before, after)]
        out.append(difference[1] - difference[0])
    return np.array(out)
