"""The frame of scoreboards: every method on every network, kept on disk as it goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openwork.boards import frame
from openwork.boards.frame import Contender, Terms, compete, load
from openwork.boards.problem import Problem
from openwork.boards.schema import Board
from openwork.boards.scoring import Answer
from openwork.errors import BadInput, CorruptFile, UnknownName
from openwork.finding import Verdict

MODEL = "planted/direction"
TERMS = Terms(examples=8, workers=1)
asked: list[str] = []


def _oracle(problem: Problem, terms: Terms, seed: int) -> Answer:
    asked.append(problem.member.name)
    true = problem.true_components
    return Answer({name: float(name in true) for name in problem.components}, dict.fromkeys(true, Verdict.SUPPORTED))


def _refusing(problem: Problem, terms: Terms, seed: int) -> Answer:
    raise BadInput("expected another network; got this one")


def _truth(problem: Problem) -> frozenset[str]:
    return problem.true_components


CONTENDERS = {
    "oracle": Contender("knows", "components", _oracle, _truth),
    "refuser": Contender("refuses", "components", _refusing, _truth),
    "outsider": Contender("is for others", "components", _oracle, _truth, lambda problem: "not for this one"),
}


@pytest.fixture(autouse=True)
def _board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "contenders", lambda board: CONTENDERS)
    asked.clear()


def test_every_method_has_an_entry_for_every_network_and_seed(tmp_path: Path) -> None:
    terms = Terms(examples=8, workers=1, seeds=(0, 1))
    board = compete("causal", [MODEL, "planted/fact"], tmp_path, terms, methods=["oracle", "outsider"])
    assert [(e.method, e.model, e.seed) for e in board.entries] == [
        (method, model, seed)
        for method in ("oracle", "outsider")
        for model in (MODEL, "planted/fact")
        for seed in (0, 1)
    ]


def test_a_method_that_names_what_is_true_has_full_marks(tmp_path: Path) -> None:
    entry = compete("causal", [MODEL], tmp_path, TERMS, methods=["oracle"]).entries[0]
    assert entry.recovery is not None
    assert (entry.recovery.auroc, entry.recovery.precision, entry.recovery.recall) == (1.0, 1.0, 1.0)
    assert entry.recovery.rank == (entry.recovery.true + 1) / 2


def test_refusals_are_entries_with_their_reason(tmp_path: Path) -> None:
    board = compete("causal", [MODEL], tmp_path, TERMS, methods=["refuser", "outsider"])
    assert [e.recovery for e in board.entries] == [None, None]
    assert "expected another network" in board.entries[0].reason
    assert board.entries[1].reason == "not for this one"


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    compete("causal", [MODEL], tmp_path, TERMS, methods=["oracle"])
    again = compete("causal", [MODEL, "planted/fact"], tmp_path, TERMS, methods=["oracle"])
    assert asked == [MODEL, "planted/fact"]
    assert len(again.entries) == 2


def test_an_interrupted_board_keeps_what_is_done_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(problem: Problem, terms: Terms, seed: int) -> Answer:
        raise KeyboardInterrupt

    broken = {**CONTENDERS, "refuser": Contender("stops", "components", stop, _truth)}
    with monkeypatch.context() as patched:
        patched.setattr(frame, "contenders", lambda board: broken)
        with pytest.raises(KeyboardInterrupt):
            compete("causal", [MODEL], tmp_path, TERMS, methods=["oracle", "refuser"])
    assert not (tmp_path / frame.RECORD).exists()
    assert len(compete("causal", [MODEL], tmp_path, TERMS, methods=["oracle", "refuser"]).entries) == 2
    assert asked == [MODEL]


def test_other_terms_are_another_board(tmp_path: Path) -> None:
    compete("causal", [MODEL], tmp_path, TERMS, methods=["oracle"])
    compete("causal", [MODEL], tmp_path, Terms(examples=8, workers=1, alpha=0.2), methods=["oracle"])
    assert asked == [MODEL, MODEL]


def test_the_record_is_versioned_json_and_comes_back(tmp_path: Path) -> None:
    board = compete("causal", [MODEL], tmp_path, TERMS)
    record = json.loads((tmp_path / frame.RECORD).read_text(encoding="utf-8"))
    assert (record["schema"], record["version"]) == ("openwork/board", 1)
    assert load(tmp_path) == board == Board.model_validate(record)
    assert [*load(tmp_path).methods] == [*board.methods] == [*CONTENDERS]


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": "openwork/other"}'])
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / frame.RECORD).write_text(text, encoding="utf-8")
    with pytest.raises(CorruptFile):
        load(tmp_path)


def test_a_damaged_entry_is_told(tmp_path: Path) -> None:
    compete("causal", [MODEL], tmp_path, TERMS, methods=["oracle"])
    next(tmp_path.rglob("oracle*.json")).write_text("{}", encoding="utf-8")
    with pytest.raises(CorruptFile, match="delete it"):
        compete("causal", [MODEL], tmp_path, TERMS, methods=["oracle"])


def test_unknown_methods_and_networks_are_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="oracle"):
        compete("causal", [MODEL], tmp_path, TERMS, methods=["oracel"])
    with pytest.raises(UnknownName, match="planted"):
        compete("causal", [MODEL, "plantd/fact"], tmp_path, TERMS)
    assert asked == []


@pytest.mark.parametrize("knobs", [{"examples": 2}, {"alpha": 0.7}, {"claims": 0}, {"seeds": ()}, {"workers": 0}])
def test_terms_outside_their_range_are_refused(knobs: dict) -> None:
    with pytest.raises(BadInput):
        Terms(**knobs)
