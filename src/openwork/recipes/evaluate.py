"""What a trained model of Python can do, measured for its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from openwork.evidence.intervals import wilson_interval
from openwork.recipes.batches import random_tokens
from openwork.recipes.corpus import Streams
from openwork.recipes.tokenizer import BOS
from openwork.task import Task
from openwork.tasks.metrics import gate

CLOSING = (")", "]", "}")
ROWS = 16
"""Texts run at once."""


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers.

    Attributes:
        right: number of right answers.
        n: number of questions.
        chance: expected share of right answers of a guess among the candidates.
    """

    right: int
    n: int
    chance: float

    @property
    def value(self) -> float:
        """The share of right answers."""
        return self.right / self.n

    def record(self) -> dict[str, float | int | list[float]]:
        """For a card: the share with its 95 % interval (Wilson), n and chance."""
        interval = wilson_interval(self.right, self.n)
        ends = [round(interval.low, 4), round(interval.high, 4)]
        return {"accuracy": round(self.value, 4), "interval": ends, "n": self.n, "chance": round(self.chance, 4)}


@torch.no_grad()
def induction_accuracy(
    network: nn.Module, tokenizer: PreTrainedTokenizerFast, rows: int = 64, span: int = 50, seed: int = 0
) -> Accuracy:
    """How often the likeliest token is right in the second copy of a random span.

    Args:
        network: maps `input_ids` to `.logits`.
        tokenizer: its tokenizer; tokens are drawn uniformly from all but the special ones.
        rows: number of random spans.
        span: their length.
        seed: of the draw.

    Returns:
        The accuracy over the second copy without its first token, which nothing announces.

    Source: Olsson et al. 2022, "In-context Learning and Induction Heads" (repeated random tokens).
    """
    rng = np.random.default_rng(seed)
    once = torch.from_numpy(np.stack([random_tokens(tokenizer, span, rng) for _ in range(rows)]))
    begin = torch.full((rows, 1), _begin(tokenizer))
    ids = torch.cat([begin, once, once], dim=1)
    predicted = _logits(network, ids)[:, :-1].argmax(-1)
    hits = (predicted == ids[:, 1:])[:, span + 1 :]
    return Accuracy(int(hits.sum()), hits.numel(), 1 / (len(tokenizer) - len(set(tokenizer.all_special_ids))))


@dataclass(frozen=True)
class HeldOut:
    """How a model does on code that it never saw.

    Attributes:
        loss: nats per token.
        tokens: how many were predicted.
        closing: how often, of the three closing brackets, the right one was the likeliest where one came next.
    """

    loss: float
    tokens: int
    closing: Accuracy


@torch.no_grad()
def on_held_out(network: nn.Module, streams: Streams, context: int, windows: int | None = None) -> HeldOut:
    """Measure on held-out code, cut into windows that each begin with the beginning-of-text token.

    Args:
        network: maps `input_ids` to `.logits`.
        streams: holds the held-out stream.
        context: tokens in a window.
        windows: measure this many windows, spread evenly, or all if there are fewer; None measures all.

    Returns:
        Loss and bracket accuracy.
    """
    count = len(streams.held_out) // context
    chosen = np.arange(count) if windows is None else np.linspace(0, count - 1, min(windows, count)).astype(int)
    tokens = torch.from_numpy(streams.held_out[: count * context].astype(np.int64)).view(count, context)[chosen]
    begin = torch.full((ROWS, 1), _begin(streams.tokenizer))
    closing = torch.tensor(streams.tokenizer.convert_tokens_to_ids(list(CLOSING)))
    total, right, asked = 0.0, 0, 0
    for targets in tokens.split(ROWS):
        logits = _logits(network, torch.cat([begin[: len(targets)], targets[:, :-1]], dim=1))
        total += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        closes = torch.isin(targets, closing)
        choice = closing[logits[closes][:, closing].argmax(-1)]
        right += int((choice == targets[closes]).sum())
        asked += int(closes.sum())
    return HeldOut(total / tokens.numel(), tokens.numel(), Accuracy(right, asked, 1 / len(CLOSING)))


@torch.no_grad()
def task_accuracy(network: nn.Module, task: Task) -> Accuracy:
    """How often a model answers the clean prompts of a task, all of them.

    Args:
        network: maps `input_ids` to `.logits`.
        task: the task; it decides among which tokens the answer is chosen.

    Returns:
        The accuracy, with the task's own chance.
    """
    batch = task.batch(range(len(task)))
    values = torch.cat(
        [
            task.batch(rows).measure(gate(task), _logits(network, _right_padded(task.batch(rows).clean.ids)))
            for rows in (range(start, min(start + ROWS, len(task))) for start in range(0, len(task), ROWS))
        ]
    )
    return Accuracy(int(values.sum()), len(batch), task.chance)


def _right_padded(rows: Sequence[Sequence[int]]) -> Tensor:
    # attention is causal: what stands to the right of a row's last token changes nothing that is read
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def _logits(network: nn.Module, ids: Tensor) -> Float[Tensor, "row position vocabulary"]:
    device = next(network.parameters()).device
    parts = [network(input_ids=part.to(device)).logits.float().cpu() for part in ids.split(ROWS)]
    return torch.cat(parts)


def _begin(tokenizer: PreTrainedTokenizerFast) -> int:
    begin = tokenizer.convert_tokens_to_ids(BOS)
    assert isinstance(begin, int)
    return begin
