# pyright: reportAttributeAccessIssue=false
"""What looks into vision transformers, asked about one wired by hand and about a null."""

import pytest

from openwork.boards import seeing, tokens
from openwork.boards.frame import Terms
from openwork.boards.scoring import scored
from openwork.boards.subjects import GAZE, subject
from openwork.boards.tokens import CONTENDERS, all_known_by, all_seen_in, known_by
from openwork.zoo.gazing import COLOURS

LOOSE = Terms(alpha=0.2)
"""Needs fewer controls than the record's terms."""


@pytest.fixture(scope="module")
def gaze():
    return subject("gaze/1")


@pytest.fixture(scope="module")
def null():
    return subject("null/gaze-1")


def found(name, gaze, terms=LOOSE):
    return scored(CONTENDERS[name].look(gaze, terms, 0), CONTENDERS[name].truth(gaze))


@pytest.mark.parametrize("name", ["looks", "registers", "class token"])
def test_what_is_known_is_found(gaze, name):
    of = found(name, gaze)
    assert of.auroc == 1
    assert of.supported == of.claims > 0
    assert of.false == 0


@pytest.mark.extended
@pytest.mark.parametrize(("name", "least"), [("traits", 0.95), ("patch dropping", 0.7)])
def test_what_is_known_is_found_slowly(gaze, name, least):
    of = found(name, gaze)
    assert of.auroc is not None
    assert of.auroc > least
    assert of.supported == of.claims > 0
    assert of.false == 0


@pytest.mark.parametrize("name", ["looks", "registers"])
def test_where_nothing_is_nothing_is_supported(null, name):
    assert not CONTENDERS[name].truth(null)
    assert found(name, null, Terms()).supported == 0


@pytest.mark.extended
@pytest.mark.parametrize("name", ["class token", "traits", "patch dropping"])
def test_where_nothing_is_nothing_is_supported_slowly(null, name):
    assert found(name, null, Terms()).supported == 0


def test_claims_about_the_wrong_heads_or_parts_would_be_false(gaze):
    known, truth = gaze.known, CONTENDERS["traits"].truth(gaze)
    heads = [known.traits[c] for c in COLOURS]
    assert all_known_by(heads) in truth
    assert all_known_by(heads[::-1]) not in truth
    assert all_seen_in(COLOURS) in truth
    assert all_seen_in(("red", "red", "blue")) not in truth
    assert sum(known_by(c, head) in truth for c in COLOURS for head in range(8)) == 3


def test_registers_stand_out_from_where_they_are_filled_on(gaze):
    at = subject("gaze/2")
    for one in (gaze, at):
        told = CONTENDERS["registers"].truth(one)
        assert told == {tokens.stands_out(b, one.known.register) for b in range(one.known.filled, 3)}


def test_the_lines_are_on_the_board_and_ask_about_gazes():
    assert CONTENDERS.items() <= seeing.CONTENDERS.items()
    assert all(contender.kind == GAZE for contender in CONTENDERS.values())
