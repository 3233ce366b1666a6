"""Judges on attributions of which it is known which are right."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from openwork import zoo
from openwork.boards.frame import Terms
from openwork.boards.judging import COPIES, LINES, RIGHT, WRONG, Embedded, Fixed, naming
from openwork.boards.problem import Problem
from openwork.boards.scoring import scored
from openwork.faithfulness.attributions import Given, real_tokens

TERMS = Terms(examples=16, alpha=0.4)


@cache
def problem(name: str = "compiled/ioi") -> Problem:
    return Problem.of(zoo.open(name), TERMS.examples, 0)


@pytest.mark.parametrize("name", LINES)
def test_right_attributions_are_told_from_wrong_ones(name: str) -> None:
    contender = LINES[name]
    found = scored(contender.look(problem(), TERMS, 0), contender.truth(problem()))
    assert found.auroc == 1.0
    assert found.false == 0


def test_wrong_attributions_are_the_right_ones_at_other_tokens() -> None:
    made = naming(problem(), 0)
    assert len(made) == 2 * COPIES
    here = real_tokens(problem().task.split("held-out"))
    for copy in range(COPIES):
        right, wrong = (made[f"{kind} {copy}"] for kind in (RIGHT, WRONG))
        assert isinstance(right, Given)
        assert isinstance(wrong, Given)
        for a, b, places in zip(right.values, wrong.values, here, strict=True):
            assert sorted(a[places]) == sorted(b[places])
            assert (a[places] != b[places]).all()


def test_fixed_scores_ask_no_weights_and_erratic_ones_jump_with_them() -> None:
    task = problem().task
    batch, net = task.split("held-out"), problem().net
    assert np.nanargmax(Fixed(0.0).scores(net, batch, task.metric)[0]) == 0
    one, same = (Embedded(0, erratic=True).scores(net, batch, task.metric) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert (one != Embedded(0).scores(net, batch, task.metric)).any()


def test_a_network_of_which_it_is_not_known_what_it_reads_is_barred() -> None:
    assert "not known" in LINES["judge, removal"].barred(problem("null/untrained/0"))
