"""Rows of recorded values: the right ones, and without a copy where nobody writes to them."""

from __future__ import annotations

import pytest
import torch

from openwork.network.replay.spread import Spread

COUNT, WIDTH = 4, 3
VALUE = torch.arange(COUNT * WIDTH * 2.0).reshape(COUNT, WIDTH, 2)
EXAMPLES = [[0, 1, 2, 3], [1, 2], [3], [2, 0], [1, 1]]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_are_those_of_the_examples(examples: list[int], axis: int, shared: bool) -> None:
    value = VALUE.movedim(0, axis)
    got = Spread(axis).rows(value, torch.tensor(examples), COUNT, shared)
    assert torch.equal(got, torch.stack([VALUE[e] for e in examples]).movedim(0, axis))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_tokens_in_one_long_row_belong_to_their_examples(examples: list[int], shared: bool) -> None:
    got = Spread(0, flat=True).rows(VALUE.flatten(0, 1), torch.tensor(examples), COUNT, shared)
    assert torch.equal(got, torch.cat([VALUE[e] for e in examples]))


@pytest.mark.parametrize("examples", [[0, 1, 2, 3], [1, 2]])
def test_rows_side_by_side_are_no_copy_where_that_will_do(examples: list[int]) -> None:
    places = [
        Spread(0).rows(VALUE, torch.tensor(examples), COUNT, shared).untyped_storage().data_ptr()
        for shared in (True, False)
    ]
    assert [place == VALUE.untyped_storage().data_ptr() for place in places] == [True, False]


def test_what_does_not_differ_by_example_stays_as_it_is() -> None:
    assert Spread(None).rows(VALUE, torch.tensor([1]), COUNT) is VALUE
