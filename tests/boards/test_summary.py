"""A scoreboard in one row a method, in a table, and as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from openwork.boards.schema import Board, Cost, Entry, Recovery
from openwork.boards.summary import families, overall, rows, table
from openwork.errors import BadInput
from openwork.evidence import record_provenance, wilson_interval
from openwork.reports.board import draw_board


def _entry(model: str, family: str, auroc: float | None, supported: int, false: int, method: str = "a") -> Entry:
    recovery = Recovery(
        items=4, true=2, auroc=auroc, rank=1, claims=3, supported=supported, false=false,
        precision=(supported - false) / supported if supported else None,
    )  # fmt: skip
    cost = Cost(forwards=10, seconds=2, bytes=100)
    return Entry(method=method, model=model, family=family, seed=0, items="components", recovery=recovery, cost=cost)


ENTRIES = (
    _entry("compiled/x", "compiled", 1.0, 2, 0),
    _entry("compiled/y", "compiled", 0.5, 1, 1),
    _entry("planted/z", "planted", 0.75, 0, 0),
    _entry("null/decoy/0", "null/decoy", None, 1, 1),
    _entry("null/decoy/1", "null/decoy", None, 0, 0),
    Entry(method="b", model="compiled/x", family="compiled", seed=0, items="edges", reason="no"),
)


@pytest.fixture
def board() -> Board:
    return Board(
        schema="openwork/board", name="causal", subset="chosen", alpha=0.05, examples=8, methods={"a": "A.", "b": "B."},
        entries=ENTRIES, provenance=record_provenance("zoo", "", "", "cpu", "float32"),
    )  # fmt: skip


def test_a_row_averages_over_networks_with_something_to_find(board: Board) -> None:
    row = rows(board)[0]
    assert row.auroc is not None
    assert row.auroc.estimate == pytest.approx(0.75)
    assert (row.asked, row.precision) == (3, pytest.approx(2 / 3))
    assert row.power == wilson_interval(1, 3)


def test_false_support_is_the_share_of_nulls_with_any_false_claim_supported(board: Board) -> None:
    row = rows(board)[0]
    assert (row.nulls, row.false) == (2, wilson_interval(1, 2))


def test_methods_without_a_network_of_the_family_have_no_line(board: Board) -> None:
    assert list(table(board).columns[0].cells) == ["a", "b"]
    assert list(table(board, ["planted"]).columns[0].cells) == ["a"]


def test_rows_of_one_family_know_of_no_other(board: Board) -> None:
    row = rows(board, ["planted"])[0]
    assert (row.asked, row.nulls, row.false) == (1, 0, None)


def test_refusals_are_counted_and_have_no_numbers(board: Board) -> None:
    row = rows(board)[1]
    assert (row.refused, row.asked, row.auroc, row.seconds) == (1, 0, None, None)


def test_families_with_something_to_find_come_first(board: Board) -> None:
    assert families(board) == ["compiled", "planted", "null/decoy"]


def test_totals(board: Board) -> None:
    assert overall(board) == {
        "entries": 6, "networks": 5, "methods": 2, "core_minutes": pytest.approx(10 / 60)
    }  # fmt: skip


def test_the_table_prints_every_method(board: Board) -> None:
    console = Console(width=200, record=True, file=None)
    with console.capture() as captured:
        console.print(table(board))
    assert "0.75 [" in captured.get()
    assert all(name in captured.get() for name in ("MB", "not asked"))
    assert captured.get().count("–") > 3


@pytest.mark.parametrize("kind", [".svg", ".png"])
def test_the_picture_is_drawn_and_the_same_each_time(board: Board, tmp_path: Path, kind: str) -> None:
    drawn = [draw_board(board, tmp_path / f"{n}{kind}").read_bytes() for n in range(2)]
    assert len(drawn[0]) > 5000
    if kind == ".svg":
        assert "decoy" in drawn[0].decode() or "<path" in drawn[0].decode()


def test_a_picture_of_nothing_or_in_another_form_is_refused(board: Board, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="svg"):
        draw_board(board, tmp_path / "board.txt")
    with pytest.raises(BadInput, match="entries"):
        draw_board(board.model_copy(update={"entries": ()}), tmp_path / "board.svg")
