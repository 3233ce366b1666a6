"""Which networks the boards go through."""

from __future__ import annotations

import pytest

from openwork.boards.frame import BOARDS, contenders
from openwork.boards.subjects import NETWORK, kind_of, subjects
from openwork.boards.subsets import KINDS, NO_NETWORKS, few, networks
from openwork.zoo.member import members, require_member


@pytest.mark.parametrize("board", [board for board in BOARDS if board not in NO_NETWORKS])
def test_the_whole_zoo_is_gone_through_and_nothing_twice(board: str) -> None:
    named = networks(board, 24)
    assert len(set(named)) == len(named)
    assert {*members("siit"), *members("planted")} <= {*named}
    assert sum(name.startswith("null/") and kind_of(name) == NETWORK for name in named) == 120


def test_networks_without_anything_to_mistake_are_only_asked_about_where_they_have_counterparts() -> None:
    assert "compiled/sort" not in networks("causal", 1)
    assert "compiled/sort" in networks("reading", 1)


def test_trainings_changes_and_depths_are_asked_about_where_something_reads_them() -> None:
    assert {*subjects(KINDS["reading"])} <= {*networks("reading", 1)}
    assert {*subjects(KINDS["seeing"])} == {*networks("seeing", 1)}
    assert not {*subjects()} & {*networks("causal", 1)}


def test_nulls_come_last_and_of_each_kind_in_turn() -> None:
    nulls = [name for name in networks("causal", 3) if name.startswith("null/")]
    assert networks("causal", 3)[-len(nulls) :] == nulls
    assert len({name.split("/")[1] for name in nulls[:5]}) == 5


def test_the_quick_part_has_networks_with_and_without_something_to_find() -> None:
    for name in few("causal"):
        require_member(name)
    assert 0 < sum(name.startswith("null/") for name in few("causal")) < len(few("causal"))


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_says_of_each_method_what_it_does_and_what_it_names(board: str) -> None:
    for name, contender in contenders(board).items():
        assert contender.about, name
        assert contender.items, name
