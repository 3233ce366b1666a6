"""`openwork bench pando`: which tool helps to predict what networks with a hidden rule decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from openwork.cli.command import Common
from openwork.cli.output import remark, show, show_json
from openwork.store.files import read_json, write_json
from openwork.store.progress import Bar

if TYPE_CHECKING:
    from openwork.boards.pando import Game

RECORD, PICTURE, ROUNDS = "board.json", "board.svg", "rounds"
QUICK_NETWORKS, QUICK_REPEATS, QUICK_ALPHA = 4, 2, 0.1


def hidden_rules(
    quick: bool, networks: list[str] | None, tools: list[str] | None, folder: Path, common: Common
) -> None:
    """Play, and write record, findings, report and picture."""
    from openwork.boards.pando import play, summary
    from openwork.cli.inquiry import kept
    from openwork.reports.pando import draw_rules

    game = _game(quick, networks, tools, common)
    with Bar("bench pando", common.quiet) as bar:
        result = play(game, keep=folder / ROUNDS, tick=bar.tick)
    kept(result, folder)
    record = summary(result)
    write_json(folder / RECORD, record)
    print_rules(record, common)
    remark(f"{folder / RECORD}, {folder / 'report.html'}, {draw_rules(record, folder / PICTURE)}")


def _game(quick: bool, networks: list[str] | None, tools: list[str] | None, common: Common) -> Game:
    from openwork.boards.pando import Game
    from openwork.zoo.rules import names

    chosen = tuple(networks or (names()[:: len(names()) // QUICK_NETWORKS] if quick else names()))
    if quick:
        return Game(chosen, tuple(tools or ()), QUICK_REPEATS, QUICK_ALPHA, seed=common.seed)
    return Game(chosen, tuple(tools or ()), seed=common.seed)


def show_rules(path: Path, common: Common) -> None:
    """Print a record that is there."""
    print_rules(read_json(path if path.suffix == ".json" else path / RECORD), common)


def print_rules(record: dict, common: Common) -> None:
    """Print a record as a table, or as it is."""
    if common.json:
        show_json(record)
        return
    table = Table(
        "tool", "accuracy", "gain over samples only", *(f"depth {d}" for d in record["depths"]), "verdict", box=None
    )
    for row in record["tools"]:
        gain, low, high = row["gain"]
        deep = ["" if found is None else f"{found[0]:+.1%}" for found in row["gain_at_depth"]]
        table.add_row(
            row["tool"], f"{row['accuracy'][0]:.1%}", f"{gain:+.1%} [{low:+.1%}, {high:+.1%}]", *deep, row["verdict"]
        )
    show(table)
    for line in record["remarks"]:
        remark(f"note: {line}")
