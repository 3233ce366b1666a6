"""What scoreboards ask about besides networks: what was built is there, and the lines that are asked find it."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from openwork.boards.changing import LINES, window_name
from openwork.boards.frame import Terms
from openwork.boards.scoring import Answer, scored
from openwork.boards.subjects import (
    CHANGE,
    COURSE,
    DEPTH,
    NETWORK,
    Change,
    Course,
    Depth,
    Subject,
    kind_of,
    require_subject,
    subject,
    subjects,
)
from openwork.errors import UnknownName
from openwork.task import Inputs

TERMS = Terms(examples=8, alpha=0.4)


@cache
def made(name: str) -> Subject:
    return subject(name)


@cache
def answer(name: str) -> Answer:
    line = next(line for line in LINES.values() if line.kind == kind_of(name))
    return line.look(made(name), TERMS, 0)


def test_every_kind_has_subjects_with_something_to_find_and_as_many_without() -> None:
    for kind in (COURSE, CHANGE, DEPTH):
        here = [name for name in subjects() if kind_of(name) == kind and "py-attn2" not in name]
        assert sum(name.startswith("null/") for name in here) * 2 == len(here) > 0
    assert kind_of("compiled/sort") == kind_of("null/decoy/0") == NETWORK


def test_an_unknown_subject_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="depth/0"):
        require_subject("depth/00")


def test_where_phases_begin_is_found_and_nothing_in_a_drift() -> None:
    depth, drift = made("depth/0"), made("null/depth-0")
    assert isinstance(depth, Depth)
    assert isinstance(drift, Depth)
    assert (depth.begins, drift.begins) == ({3, 7}, frozenset())
    found = scored(answer("depth/0"), LINES["phases"].truth(depth))
    assert (found.auroc, found.supported, found.false) == (1.0, 1, 0)
    assert scored(answer("null/depth-0"), LINES["phases"].truth(drift)).supported == 0


def test_a_null_change_moves_weights_and_changes_nothing() -> None:
    change = made("null/change-0")
    assert isinstance(change, Change)
    one, other = (net.run(change.rows.take([0, 1])).logits for net in change.nets)
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    pairs = zip(*(net.root.parameters() for net in change.nets), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) > 0.1


def test_heads_drawn_anew_are_told_from_those_that_stayed() -> None:
    change = made("change/0")
    found = scored(answer("change/0"), LINES["drift"].truth(change))
    assert (found.auroc, found.true, found.false) == (1.0, 3, 0)


def test_a_course_has_its_heads_from_the_known_step_on_and_its_null_never() -> None:
    course, null = made("course/0"), made("null/course-0")
    assert isinstance(course, Course)
    assert isinstance(null, Course)
    assert course.window is not None
    assert null.window is None
    (head,) = course.heads
    number = int(head.partition("[")[2][:-1])
    ids = torch.randperm(900, generator=torch.Generator().manual_seed(0))[:12].tolist()
    row = Inputs(((*ids, *ids),))
    looks = {}
    for item in (*course.checkpoints.items, null.checkpoints.items[-1]):
        if item.step in (course.window[0], course.window[1]) or item.name.startswith("null"):
            pattern = item.open().run(row, keep="blocks.1.attn.pattern")["blocks.1.attn.pattern"]
            looks[item.name] = float(pattern[0, number, 15, 4])
    before, after, without = looks.values()
    assert after > 0.9
    assert max(before, without) < 0.2


def test_a_window_names_the_known_one_if_it_goes_one_checkpoint_beyond_it_at_most() -> None:
    course = made("course/0")
    assert isinstance(course, Course)
    assert course.window is not None
    begin, end = course.window
    assert course.brackets(begin, end)
    assert course.brackets(begin - 100, end + 100)
    assert not course.brackets(begin - 200, end)
    assert not course.brackets(end, end + 100)
    assert window_name("prefix_matching", begin, end) in LINES["watch"].truth(course)


def test_the_recorded_training_has_its_birth_in_its_own_curve() -> None:
    course = made("course/py-attn2")
    assert isinstance(course, Course)
    assert course.window is not None
    assert 2400 < course.window[0] < course.window[1] < 3000


@pytest.mark.extended
def test_watching_finds_heads_and_windows_and_nothing_in_a_null() -> None:
    course, null = made("course/0"), made("null/course-0")
    found = scored(answer("course/0"), LINES["watch"].truth(course))
    assert (found.rank, found.false) == (1.0, 0)
    assert found.supported > 0
    assert scored(answer("null/course-0"), LINES["watch"].truth(null)).supported == 0
