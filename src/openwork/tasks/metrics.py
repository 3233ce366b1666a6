"""What can be read off a run of a task, with its unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
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


@dataclass(frozen=True)
class _Later:
    """Which tokens of an ordered list are right: the answer and all that come after it."""

    order: tuple[int, ...]

    def right(self, answer: Int[Tensor, " batch"]) -> Bool[Tensor, "batch place"]:
        order = torch.tensor(self.order, device=answer.device)
        at = order == answer[:, None]
        if not bool(at.any(-1).all()):
            raise BadInput(f"expected every answer among the ordered tokens {self.order}; got {answer.tolist()}")
        return torch.arange(len(order), device=answer.device) >= at.int().argmax(-1, keepdim=True)

    def __call__(self, logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
        mass = logits.softmax(-1)[:, list(self.order)]
        return torch.where(self.right(answer), mass, -mass).sum(-1)

    def likeliest(self, logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
        order = torch.tensor(self.order, device=logits.device)
        hit = order == logits.argmax(-1, keepdim=True)
        return (hit & self.right(answer)).any(-1).float()


def later_minus_earlier(order: Sequence[int]) -> Metric:
    """Probability of what is late enough minus that of what is too early, among tokens that have an order.

    Args:
        order: the tokens, earliest first. The answer of an example is the first that is right, and all after it are.

    Returns:
        A metric from -1 to 1: 1 where all of the probability is on tokens that are right.

    Source:
        Hanna, Liu and Variengien 2023, How does GPT-2 compute greater-than?, section 2.
    """
    if len(order) < 2 or len(set(order)) < len(order):
        raise BadInput(f"expected at least two tokens in order, none twice; got {list(order)}")
    return Metric("later minus earlier", "probability", _Later(tuple(order)))


def gate(task: Task) -> Metric:
    """The accuracy that ``task.chance`` is the chance level of.

    Returns:
        For the bracket task the choice between the closing brackets; for a task of tokens in order
        (`later_minus_earlier`), whether the likeliest token of the whole vocabulary is one of those that are right;
        for every other task, whether it is the answer.
    """
    if isinstance(task.metric.fn, _Later):
        return Metric("accuracy of what is late enough", "fraction", task.metric.fn.likeliest)
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
