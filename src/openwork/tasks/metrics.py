"""What can be read off a run of a task, with its unit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from openwork import metrics
from openwork.errors import BadInput
from openwork.task import LOGIT_DIFFERENCE, Metric, Split, Task

PROBABILITY = Metric("probability", "probability", lambda logits, answer, wrong: metrics.probability(logits, answer))
ACCURACY = Metric("accuracy", "fraction", lambda logits, answer, wrong: metrics.accuracy(logits, answer))

METRICS = {metric.name: metric for metric in (LOGIT_DIFFERENCE, PROBABILITY, ACCURACY)}


def kl_from(reference: Float[Tensor, "batch vocab"]) -> Metric:
    """KL divergence from the clean run: how far the prediction has moved.

    Args:
        reference: logits of the clean run at the answer position, in the order of the batch that is measured.

    Returns:
        A metric in nats, lower when closer to the clean run.
    """

    def divergence(logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
        if logits.shape != reference.shape:
            raise BadInput(
                f"expected logits of shape {tuple(reference.shape)}, as the clean run gave; got {tuple(logits.shape)}: "
                "measure the same rows in the same order"
            )
        return metrics.kl_divergence(reference.to(logits), logits)

    return Metric("KL from the clean run", "nats", divergence, higher_is_better=False)


def accuracy_among(candidates: Iterable[int]) -> Metric:
    """Accuracy of a choice between a few tokens, whatever the model thinks of all others.

    Args:
        candidates: the tokens to choose from.

    Returns:
        A metric that is 1 where the answer has a larger logit than all other candidates.
    """
    chosen = sorted(set(candidates))
    if len(chosen) < 2:
        raise BadInput(f"expected at least two candidates to choose from; got {chosen}")

    def choose(logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
        rivals = torch.tensor(chosen, device=logits.device).expand(len(answer), -1)
        if not bool((rivals == answer[:, None]).any(-1).all()):
            raise BadInput(f"expected every answer among the candidates {chosen}; got {sorted(set(answer.tolist()))}")
        return metrics.accuracy(logits, answer, rivals.masked_fill(rivals == answer[:, None], metrics.PAD))

    return Metric(f"accuracy among {len(chosen)}", "fraction", choose)


def gate(task: Task) -> Metric:
    """The accuracy that ``task.chance`` is the chance level of.

    Returns:
        For the bracket task the choice between the closing brackets; for every other task, whether the answer is the
        likeliest token of the whole vocabulary.
    """
    return accuracy_among((*task.answer, *task.wrong)) if task.name == "bracket" else ACCURACY


@runtime_checkable
class Runs(Protocol):
    """A network."""

    def run(self, inputs: Any, /) -> Any:
        """A run with ``.logits`` (batch, position, vocabulary), right-padded."""
        ...


def accuracy(network: Runs, task: Task, split: Split) -> tuple[int, int]:
    """How many clean examples the network answers correctly, by the task's `gate`.

    Args:
        network: an opened network.
        task: the task.
        split: which examples.

    Returns:
        (right answers, examples).
    """
    batch = task.split(split)
    with torch.no_grad():
        values = batch.measure(gate(task), network.run(batch.clean).logits)
    return int(values.sum()), len(batch)
