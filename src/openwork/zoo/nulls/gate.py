"""The accuracy gate: does a network answer right on rows that nothing was found with?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openwork.errors import BadInput
from openwork.evidence import wilson_interval
from openwork.network import Network
from openwork.task import Inputs, Split, Task
from openwork.tasks import metrics

MARGIN = 0.1
"""How far above chance the lower end of the interval of the accuracy has to lie."""


@torch.no_grad()
def passes(network: nn.Module | Network, task: Task, splits: Sequence[Split] = ("held-out",)) -> bool:
    """Whether a network passes the gate that a study asks of it before it looks for a mechanism.

    The lower end of the Wilson interval (95 %) of its accuracy on clean rows lies above chance plus `MARGIN`, and
    corrupting the rows lowers the task's metric.

    Args:
        network: a network, or a module of tokens.
        task: whose `openwork.tasks.metrics.gate` is the accuracy.
        splits: on each of which that has to be so.

    Returns:
        whether it passes.

    Raises:
        BadInput: for a module and inputs that are not tokens.
    """
    accuracy, sign = metrics.gate(task), 1 if task.metric.higher_is_better else -1
    needed = min(task.chance + MARGIN, 1 - 1e-9)
    for split in splits:
        batch = task.split(split)
        clean, corrupted = (_logits(network, inputs) for inputs in (batch.clean, batch.corrupted))
        right = int(batch.measure(accuracy, clean).sum())
        fall = batch.measure(task.metric, clean).mean() - batch.measure(task.metric, corrupted).mean()
        if wilson_interval(right, len(batch)).low <= needed or not sign * float(fall) > 0:
            return False
    return True


def _logits(network: Any, inputs: Any) -> Tensor:
    if isinstance(network, Network):
        return network.run(inputs).logits
    if not isinstance(inputs, Inputs):
        raise BadInput("expected a task of tokens for a bare module; open it to ask it anything else")
    width = max(inputs.lengths)
    # what a causal network says of a token does not depend on what follows it, but not all are causal
    if min(inputs.lengths) < width:
        raise BadInput(f"expected rows of one length for a bare module; got {sorted(set(inputs.lengths))}; open it")
    out = network(torch.tensor(inputs.ids))
    return out if isinstance(out, Tensor) else out.logits
