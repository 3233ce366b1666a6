"""The cards of compiled and planted networks: measured again, they still hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from openwork import zoo
from openwork.errors import CorruptFile, TaskFailed
from openwork.recipes.cards import make_card
from openwork.zoo import cards
from openwork.zoo.known import Known
from openwork.zoo.member import Member, open_unsettled

SOME = (
    "planted/fact", "planted/induction", "compiled/histogram", "compiled/ioi+distracted",
    "compiled/addition+distracted+compressed", "compiled/sort+redundant+distracted",
)  # fmt: skip


def _still_holds(name: str) -> None:
    kept, again = cards.cards()[name], make_card(open_unsettled(name))
    assert again["truth"]["holds"]
    assert again["accuracy"] == kept["accuracy"]
    assert [e["item"] for e in again["truth"]["true"]] == [e["item"] for e in kept["truth"]["true"]]
    assert again["truth"]["slack"] == pytest.approx(kept["truth"]["slack"], abs=0.02)


@pytest.mark.parametrize("name", SOME)
def test_a_card_still_holds(name: str) -> None:
    _still_holds(name)


@pytest.mark.extended
@pytest.mark.parametrize("name", sorted({*cards.cards()} - {*SOME}))
def test_every_card_still_holds(name: str) -> None:
    _still_holds(name)


def test_every_program_has_a_card_in_every_form_that_is_tested() -> None:
    assert {*zoo.members("compiled"), *zoo.members("planted")} == {*cards.cards()}
    assert len(zoo.members("compiled")) == 77


def test_an_answer_that_leaves_something_out_gets_no_card() -> None:
    member = open_unsettled("compiled/sort+distracted")
    known = Known(dict(list(member.known.roles.items())[1:]), member.known.edges, directions=member.known.directions)
    wrong = Member(
        member.name, member.family, member.about, member.network, known, member.make_task, member.algorithm,
        member.program,
    )  # fmt: skip
    with pytest.raises(TaskFailed, match="does not hold"):
        make_card(wrong)


def test_a_damaged_file_of_cards_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "cards.json"
    damaged.write_text("[1, 2]", encoding="utf-8")
    monkeypatch.setattr(cards, "CARDS", damaged)
    cards.cards.cache_clear()
    try:
        with pytest.raises(CorruptFile, match="reinstall"):
            cards.cards()
    finally:
        cards.cards.cache_clear()
