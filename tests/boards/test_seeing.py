"""What looks into networks that see, asked about one of them and about a null."""

import pytest

from openwork.boards.frame import Terms
from openwork.boards.scoring import scored
from openwork.boards.seeing import CONTENDERS
from openwork.boards.subjects import GAZE, SIGHT, subject
from openwork.boards.subsets import few, networks


@pytest.fixture(scope="module")
def sight():
    return subject("sight/1")


@pytest.fixture(scope="module")
def null():
    return subject("null/sight-1")


@pytest.mark.parametrize("name", ["words", "class graph", "turned families", "tuning", "visualisation"])
def test_what_is_known_is_found(sight, name):
    contender = CONTENDERS[name]
    found = scored(contender.look(sight, Terms(), 0), contender.truth(sight))
    assert found.auroc is not None
    assert found.auroc > 0.95
    assert found.supported > 0
    assert found.false == 0


@pytest.mark.extended
@pytest.mark.parametrize("name", ["dissection", "removal of units"])
def test_what_is_known_is_found_slowly(sight, name):
    contender = CONTENDERS[name]
    found = scored(contender.look(sight, Terms(), 0), contender.truth(sight))
    assert found.auroc is not None
    assert found.auroc > 0.95
    assert found.false == 0


@pytest.mark.parametrize("name", ["words", "turned families", "tuning"])
def test_where_nothing_is_nothing_is_supported(null, name):
    contender = CONTENDERS[name]
    assert not contender.truth(null)
    assert scored(contender.look(null, Terms(), 0), frozenset()).supported == 0


def test_pictures_of_random_weights_are_not_asked_for(null, sight):
    assert CONTENDERS["visualisation"].barred(null)
    assert not CONTENDERS["visualisation"].barred(sight)


def test_the_board_asks_about_sights_and_gazes_alone():
    assert all(SIGHT in name or GAZE in name for name in networks("seeing"))
    assert few("seeing") == ["sight/0", "gaze/0", "null/sight-0", "null/gaze-0"]
    assert {contender.kind for contender in CONTENDERS.values()} == {SIGHT, GAZE}
