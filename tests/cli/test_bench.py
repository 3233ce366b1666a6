"""`openwork bench`: a scoreboard from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

CHOSEN = ("--model", "planted/direction", "--method", "ablate, mean", "--workers", "1", "--quiet")


def test_a_chosen_part_is_run_recorded_and_drawn(call: Callable[..., Result], tmp_path: Path) -> None:
    done = call("bench", "causal", *CHOSEN, "--out", "board")
    assert done.exit_code == 0
    assert "ablate, mean" in done.stdout
    record = json.loads((tmp_path / "board" / "board.json").read_text(encoding="utf-8"))
    assert (record["subset"], len(record["entries"])) == ("chosen", 1)
    assert (tmp_path / "board" / "board.svg").stat().st_size > 5000


def test_a_board_that_is_there_is_shown_without_running(call: Callable[..., Result], tmp_path: Path) -> None:
    first = call("bench", *CHOSEN, "--out", "board")
    shown = call("bench", "--show", "board/board.json")
    assert shown.stdout == first.stdout
    assert json.loads(call("bench", "--show", "board", "--json").stdout)["name"] == "causal"


def test_mistakes_are_told_in_one_line(call: Callable[..., Result], tmp_path: Path) -> None:
    for words, says in (
        (("--model", "compiled/oi", "--workers", "1"), "ioi"),
        (("--model", "planted/fact", "--method", "ablate"), "ablate, mean"),
        (("--show", "nowhere"), "nowhere"),
    ):
        done = call("bench", *words)
        assert (done.exit_code, says in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "runs").exists()
