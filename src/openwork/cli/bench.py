"""`openwork bench`: methods against networks whose answer is known."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from openwork.cli.command import Common, command
from openwork.cli.output import remark, show_json
from openwork.cli.output import show as print_table
from openwork.store.progress import Bar

if TYPE_CHECKING:
    from openwork.boards.schema import Board

RUNS = Path("runs")
PICTURE = "board.svg"


class BoardName(StrEnum):
    """The scoreboards."""

    causal = "causal"
    reading = "reading"
    seeing = "seeing"
    pando = "pando"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "bench", kept="entries that are done are kept: the same command goes on")(bench)


def bench(
    board: Annotated[BoardName, typer.Argument(help="Which methods.")] = BoardName.causal,
    quick: Annotated[bool, typer.Option("--quick", help="A subset, in under two minutes.")] = False,
    model: Annotated[
        list[str] | None, typer.Option(help="A network of the zoo, such as compiled/ioi; again for more.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="A method of the board; again for more.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/bench-BOARD unless given.")] = None,
    nulls: Annotated[int, typer.Option(help="Nulls of each kind, of 24.")] = 24,
    workers: Annotated[int, typer.Option(help="Networks worked on at once.")] = 2,
    seeds: Annotated[int, typer.Option(help="How many seeds, from --seed on.")] = 1,
    show: Annotated[Path | None, typer.Option(help="Print a board.json that is there, and run nothing.")] = None,
    *,
    common: Common,
) -> None:
    """Ask every method about networks whose answer is known: what it recovers, what it supports falsely, what it costs.

    The whole board takes under an hour on two cores and goes on where it stopped.
    """
    from openwork.boards.frame import load

    if board is BoardName.pando:
        from openwork.cli.pando import hidden_rules, show_rules

        if show is not None:
            return show_rules(show, common)
        folder = out or RUNS / f"bench-pando{'-quick' if quick else ''}"
        return hidden_rules(quick, model, method, folder, common)
    if show is not None:
        found = load(show)
    else:
        subset = "chosen" if model or method else "quick" if quick else "whole"
        folder = out or RUNS / f"bench-{board}{'-quick' if quick else ''}"
        found = _run(board.value, subset, model, nulls, method, folder, common, workers, seeds)
    if common.json:
        show_json(found.model_dump(mode="json", by_alias=True))
    else:
        _print(found)


def _run(
    board: str,
    subset: Literal["quick", "whole", "chosen"],
    models: list[str] | None,
    nulls: int,
    methods: list[str] | None,
    folder: Path,
    common: Common,
    workers: int,
    seeds: int,
) -> Board:
    from openwork.boards.frame import RECORD, Terms, compete
    from openwork.boards.subsets import few, networks
    from openwork.reports.board import draw_board

    terms = Terms(seeds=tuple(range(common.seed, common.seed + seeds)), workers=workers)
    chosen = models or (few(board) if subset == "quick" else networks(board, nulls))
    with Bar(f"bench {board}", common.quiet) as bar:
        found = compete(board, chosen, folder, terms, subset=subset, methods=methods, tick=bar.tick)
    remark(f"{folder / RECORD}, {draw_board(found, folder / PICTURE)}")
    return found


def _print(found: Board) -> None:
    from openwork.boards.summary import families, overall, table

    print_table(table(found))
    for family in families(found):
        if family.startswith("null/"):
            print_table(Text(f"\n{family}", style="bold"))
            print_table(table(found, [family]))
    totals = overall(found)
    remark(f"{totals['entries']} entries, {totals['networks']} networks, {totals['core_minutes']:.1f} core minutes")
