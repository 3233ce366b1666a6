from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from openwork.errors import BadInput
from openwork.task import Task
from openwork.tasks import (
    ACCURACY,
    LOGIT_DIFFERENCE,
    METRICS,
    PROBABILITY,
    accuracy,
    accuracy_among,
    bracket,
    from_tokens,
    gate,
    kl_from,
    repeats,
)

ANSWER, WRONG = torch.tensor([0, 2]), torch.tensor([1, 0])
LOGITS = torch.tensor([[2.0, -1.0, 0.0], [1.0, 0.0, 0.5]])


def by_hand(row: int) -> list[float]:
    weights = [math.exp(v) for v in LOGITS[row].tolist()]
    return [w / sum(weights) for w in weights]


def test_logit_difference_is_in_nats():
    assert LOGIT_DIFFERENCE.unit == "nats"
    assert LOGIT_DIFFERENCE.fn(LOGITS, ANSWER, WRONG).tolist() == pytest.approx([3.0, -0.5])


def test_probability():
    assert PROBABILITY.fn(LOGITS, ANSWER, WRONG).tolist() == pytest.approx([by_hand(0)[0], by_hand(1)[2]])


def test_accuracy_is_over_the_whole_vocabulary():
    assert ACCURACY.fn(LOGITS, ANSWER, WRONG).tolist() == [1.0, 0.0]
    assert ACCURACY.fn(torch.zeros(2, 3), ANSWER, WRONG).tolist() == [0.0, 0.0]


def test_metrics_are_found_by_name():
    assert METRICS == {"logit difference": LOGIT_DIFFERENCE, "probability": PROBABILITY, "accuracy": ACCURACY}


def test_kl_is_from_the_clean_run():
    clean = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5]])
    metric = kl_from(clean)
    expected = sum(1 / 3 * math.log((1 / 3) / p) for p in by_hand(0))
    assert metric.fn(LOGITS, ANSWER, WRONG).tolist() == pytest.approx([expected, 0.0], abs=1e-6)
    assert metric.unit == "nats"
    assert not metric.higher_is_better
    with pytest.raises(BadInput, match="same rows in the same order"):
        metric.fn(LOGITS[:1], ANSWER[:1], WRONG[:1])


def test_a_choice_among_candidates_ignores_all_others():
    logits = torch.tensor([[9.0, 1.0, 0.0, -1.0], [9.0, 1.0, 2.0, -1.0]])
    metric = accuracy_among([1, 2, 3, 1])
    assert metric.name == "accuracy among 3"
    assert metric.fn(logits, torch.tensor([1, 1]), torch.tensor([2, 2])).tolist() == [1.0, 0.0]
    with pytest.raises(BadInput, match="every answer among the candidates"):
        metric.fn(logits, torch.tensor([0, 1]), torch.tensor([2, 2]))
    with pytest.raises(BadInput, match="at least two candidates"):
        accuracy_among([4])


def test_the_gate_fits_the_chance_of_the_task(characters):
    assert gate(bracket(characters, n=6)).name == "accuracy among 3"
    assert gate(repeats(characters, n=6)) is ACCURACY


class Knows:
    """A network that answers the given rows correctly and says token 0 to every other."""

    def __init__(self, task: Task, rows: set[int]):
        self.rule = {ids: task.answer[r] for r, ids in enumerate(task.clean.ids) if r in rows}

    def run(self, inputs):
        logits = torch.zeros(len(inputs), max(map(len, inputs.ids)), 10)
        for r, ids in enumerate(inputs.ids):
            logits[r, len(ids) - 1, self.rule.get(ids, 0)] = 1.0
        return SimpleNamespace(logits=logits)


def test_accuracy_counts_the_right_answers_of_a_split():
    clean = [[i, *[3] * (i % 3), 1] for i in range(2, 8)]
    corrupted = [[*row[:-1], 2] for row in clean]
    task = from_tokens(clean, corrupted, [5] * 6, [6] * 6)
    held_out = sorted(task.held_out)
    knows = Knows(task, set(held_out[:2]))
    assert accuracy(knows, task, "held-out") == (2, 3)
    assert accuracy(knows, task, "find") == (0, 3)
