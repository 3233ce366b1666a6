"""Lines that ask for circuits between channels, concepts and examples, asked about one network and about a null."""

import pytest

from openwork.boards import channels, conceived
from openwork.boards.frame import Terms
from openwork.boards.scoring import scored
from openwork.boards.seeing import CONTENDERS
from openwork.boards.sights import scenes
from openwork.boards.subjects import SIGHT, subject
from openwork.errors import TaskFailed
from openwork.finding import Verdict

LINES = {**channels.CONTENDERS, **conceived.CONTENDERS}
OF_NULLS = ("unions over cases", "superposition", "hierarchy")
SLOW = ("CRAFT", "patch concepts", "interpretability score", "channel and place", "hierarchy")
REFUSED = ("interpretability score",)


@pytest.fixture(scope="module")
def sight():
    return subject("sight/1")


@pytest.fixture(scope="module")
def null():
    return subject("null/sight-1")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.extended) if n in SLOW else n for n in LINES])
def test_what_is_known_is_found(sight, name):
    found = scored(LINES[name].look(sight, Terms(), 0), LINES[name].truth(sight))
    assert found.auroc is not None
    assert found.auroc > 0.95
    assert found.supported > 0
    assert found.false == 0


@pytest.mark.parametrize("name", OF_NULLS)
def test_where_nothing_is_nothing_is_supported(null, name):
    assert not LINES[name].truth(null)
    assert scored(LINES[name].look(null, Terms(), 0), frozenset()).supported == 0


def test_classes_that_nothing_tells_are_not_scored():
    with pytest.raises(TaskFailed, match="no better"):
        LINES["interpretability score"].look(subject("null/sight-0"), Terms(), 0)


def test_what_is_true_of_random_weights_too_is_not_asked_of_them(null, sight):
    for name in {*LINES} - {*OF_NULLS, *REFUSED}:
        assert LINES[name].barred(null)
        assert not LINES[name].barred(sight)


def test_a_union_of_units_that_no_one_unites_is_not_named(sight):
    answer = LINES["unions over cases"].look(sight, Terms(), 0)
    (true,) = LINES["unions over cases"].truth(sight)
    assert answer.verdicts == {true: Verdict.SUPPORTED}
    assert max(value for item, value in answer.scores.items() if item != true) < 0.1


def test_patches_of_a_null_have_masks_of_others(sight, null):
    (own, _), (other, _) = scenes(sight, "object"), scenes(null, "object")
    assert (own.values == other.values).all()
    assert (own.regions["object"] != other.regions["object"]).any()
    assert [*own.concepts] == ["object"]


def test_the_board_asks_these_too():
    assert all(CONTENDERS[name] is line for name, line in LINES.items())
    assert all(line.kind == SIGHT for line in LINES.values())
