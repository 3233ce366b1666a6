from __future__ import annotations

from dataclasses import replace

import pytest

from openwork.studies import gate
from openwork.studies.settings import StudySettings


def test_gate_needs_both_splits_above_chance(net, task) -> None:
    passed = gate.check(net, task, StudySettings(), 0)
    assert passed.passed
    assert [s.split for s in passed.splits] == ["find", "held-out"]
    assert all(s.accuracy.low > passed.needed for s in passed.splits)


@pytest.mark.parametrize("split", ["find", "held-out"])
def test_one_split_that_fails_is_enough(net, task, split) -> None:
    answers = [
        w if (row in task.held_out) == (split == "held-out") else a
        for row, (a, w) in enumerate(zip(task.answer, task.wrong, strict=True))
    ]
    found = gate.check(net, task.with_answers(answers, task.wrong), StudySettings(), 0)
    assert not found.passed
    assert [s.split for s in found.splits if not s.passed] == [split]
    assert found.reason.startswith(split)


def test_accuracy_at_the_margin_does_not_pass(net, task) -> None:
    assert not gate.check(net, task, StudySettings(margin=0.99), 0).passed


def test_corruption_that_does_nothing_does_not_pass(net, task) -> None:
    found = gate.check(net, replace(task, corrupted=task.clean), StudySettings(), 0)
    assert not found.passed
    assert "corrupting" in found.reason


def test_examples_are_the_first_of_the_split(task) -> None:
    batch = gate.examples_of(task, "held-out", 5)
    rows = sorted(task.held_out)[:5]
    assert batch.answer == tuple(task.answer[r] for r in rows)
