"""Tasks: splits that do not meet, rows that stay together, and pieces that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openwork.errors import BadInput
from openwork.task import Inputs, Metric, Task, as_rows, split_rows


def difference(logits: torch.Tensor, right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(right))
    return logits[rows, right] - logits[rows, wrong]


DIFFERENCE = Metric("difference", "nats", difference)


def task(n: int = 6, **more: Any) -> Task:
    clean = Inputs(tuple((r, r + 1, r + 2) for r in range(n)), {"name": tuple((r % 3,) for r in range(n))})
    corrupted = Inputs(tuple((r, r + 5, r + 2) for r in range(n)))
    fields: dict[str, Any] = {"clean": clean, "corrupted": corrupted, "answer": tuple(range(n))}
    fields |= {"wrong": tuple(range(1, n + 1)), "at": (2,) * n, "held_out": frozenset({1, 4})}
    return Task(name="toy", metric=DIFFERENCE, chance=0.5, **(fields | more))


def test_the_splits_part_the_rows_and_keep_each_together() -> None:
    whole = task()
    find, held_out = whole.split("find"), whole.split("held-out")
    assert (find.split, held_out.split) == ("find", "held-out")
    assert find.clean.ids == tuple(whole.clean.ids[r] for r in (0, 2, 3, 5))
    assert held_out.clean.ids == tuple(whole.clean.ids[r] for r in (1, 4))
    assert held_out.corrupted.ids == tuple(whole.corrupted.ids[r] for r in (1, 4))
    assert held_out.answer == (1, 4)
    assert held_out.wrong == (2, 5)
    assert held_out.clean.groups == {"name": ((1,), (1,))}
    assert len(whole) == 6
    assert len(find) + len(held_out) == 6


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5), st.data())
def test_taking_rows(ids: list[tuple[int, ...]], data: st.DataObject) -> None:
    inputs = Inputs(tuple(ids), {"group": tuple((len(row) - 1,) for row in ids)})
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=7))
    taken = inputs.take(rows)
    assert list(taken.ids) == [ids[r] for r in rows]
    assert list(taken.groups["group"]) == [(len(ids[r]) - 1,) for r in rows]
    assert len(taken) == len(rows)


def test_the_metric_reads_the_logits_at_each_rows_position() -> None:
    batch = task(4, at=(0, 2, 1, 2), held_out=frozenset({0})).batch([3, 0, 2])
    logits = torch.randn(3, 3, 10)
    values = batch.measure(DIFFERENCE, logits)
    for number, row in enumerate((3, 0, 2)):
        at = (0, 2, 1, 2)[row]
        assert values[number] == logits[number, at, row] - logits[number, at, row + 1]


def test_a_metric_of_another_shape() -> None:
    with pytest.raises(BadInput, match=r"'sum' to give shape \(2,\)"):
        task().split("held-out").measure(Metric("sum", "nats", lambda a, b, c: a.sum()), torch.zeros(2, 3, 10))


def test_other_labels_on_the_same_inputs() -> None:
    permuted = task().with_answers((5, 4, 3, 2, 1, 0), (0,) * 6)
    assert permuted.clean == task().clean
    assert permuted.split("held-out").answer == (4, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"answer": (1, 2)},
        {"wrong": ()},
        {"at": (2,) * 7},
        {"corrupted": Inputs(((1, 2),))},
        {"held_out": frozenset()},
        {"held_out": frozenset(range(6))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_pieces_that_do_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="expected"):
        task(**change)


def test_a_held_out_row_that_does_not_exist() -> None:
    with pytest.raises(BadInput, match="held out"):
        task(held_out=frozenset({1, 77}))


@pytest.mark.parametrize("ids", [(), ((),), ((1, 2), ())])
def test_inputs_without_tokens(ids: Any) -> None:
    with pytest.raises(BadInput, match="at least one"):
        Inputs(ids)


def test_groups_for_every_row() -> None:
    with pytest.raises(BadInput, match="'name' to give positions for 2 rows; got 1"):
        Inputs(((1, 2), (3,)), {"name": ((0,),)})


@given(st.integers(2, 40), st.integers(0, 5), st.floats(0, 1))
def test_random_splits(n: int, seed: int, fraction: float) -> None:
    held_out = split_rows(n, seed, fraction)
    assert 0 < len(held_out) < n
    assert held_out <= set(range(n))
    assert held_out == split_rows(n, seed, fraction)
    assert abs(len(held_out) - n * fraction) <= 1


def test_rows_of_tensors_and_lists() -> None:
    assert as_rows(torch.tensor([[1, 2], [3, 4]])) == as_rows([[1, 2], [3, 4]]) == ((1, 2), (3, 4))
