from __future__ import annotations

from dataclasses import replace

import pytest

from openwork.errors import BadInput
from openwork.faithfulness.circuits import Judge
from openwork.faithfulness.components import Component, components_of
from openwork.faithfulness.measure import Meter, mean_values

PREVIOUS, INDUCTION = Component(0, "head", 1), Component(1, "head", 4)


@pytest.fixture(params=["corrupted", "mean"])
def judge(request, net, task) -> Judge:
    batch, components = task.split("held-out"), components_of(net)
    means = mean_values(net, task.split("find").corrupted, components)
    return Judge(Meter(net, batch, task.metric, 4000), components, request.param, means)


def test_everything_is_one_and_nothing_is_zero(judge) -> None:
    scores = judge.alone([judge.components, ()])
    assert scores.mean(1) == pytest.approx([1, 0], abs=1e-5)
    assert judge.removed([(), judge.components]).mean(1) == pytest.approx([1, 0], abs=1e-5)


def test_planted_circuit_is_faithful_and_complete(judge) -> None:
    circuit = (PREVIOUS, INDUCTION)
    assert judge.alone([circuit]).mean() == pytest.approx(1, abs=0.1)
    assert judge.removed([circuit]).mean() == pytest.approx(0, abs=0.1)


def test_half_of_it_is_enough_only_where_the_other_half_does_not_change(judge) -> None:
    # the corrupted run changes what is copied, not what stands before it: there the previous-token head is not needed
    alone = judge.alone([(INDUCTION,)]).mean()
    assert alone > 0.9 if judge.ablation == "corrupted" else alone < 0.2
    assert judge.alone([(PREVIOUS,)]).mean() < 0.1


def test_equal_circuits_get_equal_scores(judge) -> None:
    scores = judge.alone([(PREVIOUS, INDUCTION), (), (INDUCTION, PREVIOUS)])
    assert (scores[0] == scores[2]).all()


def test_no_behaviour_is_refused(net, task) -> None:
    swapped = replace(task, answer=task.wrong, wrong=task.answer)
    with pytest.raises(BadInput, match="no behaviour"):
        Judge(Meter(net, swapped.split("find"), task.metric, 4000), components_of(net))


def test_mean_ablation_needs_means(net, task) -> None:
    with pytest.raises(BadInput, match="mean"):
        Judge(Meter(net, task.split("find"), task.metric, 4000), components_of(net), "mean")


def test_first_examples_are_judged_by_their_own_gap(judge) -> None:
    first = judge.on_first(4)
    assert len(first.meter.batch) == 4
    assert first.full == pytest.approx(judge.full[:4], abs=1e-4)
    assert first.gap == pytest.approx((judge.full - judge.empty)[:4].mean(), rel=1e-4)
    assert judge.on_first(100) is judge
