"""`openwork bench`: methods against networks whose answer is known."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from openwork.cli.command import Common, command
from openwork.cli.output import remark, show, show_json
from openwork.cli.progress import Bar

RUNS = Path("runs")
PICTURE = "board.svg"


class BoardName(StrEnum):
    """The scoreboards."""

    causal = "causal"


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
    workers: Annotated[int, typer.Option(help="Networks worked on at once.")] = 2,
    seeds: Annotated[int, typer.Option(help="How many seeds, from --seed on.")] = 1,
    *,
    common: Common,
) -> None:
    """Ask every method about networks whose answer is known: what it recovers, what it supports falsely, what it costs.

    The whole board takes under an hour on two cores and goes on where it stopped.
    """
    from openwork.boards.frame import RECORD, Terms, compete
    from openwork.boards.subsets import networks
    from openwork.boards.summary import families, overall, table
    from openwork.reports.board import draw_board

    subset = "chosen" if model or method else "quick" if quick else "whole"
    folder = out or RUNS / f"bench-{board}{'-quick' if quick else ''}"
    terms = Terms(seeds=tuple(range(common.seed, common.seed + seeds)), workers=workers)
    with Bar(f"bench {board}", common.quiet) as bar:
        found = compete(
            board.value, model or networks(quick), folder, terms, subset=subset, methods=method, tick=bar.tick
        )
    picture = draw_board(found, folder / PICTURE)
    if common.json:
        show_json(found.model_dump(mode="json", by_alias=True))
        return
    show(table(found))
    for family in families(found):
        if family.startswith("null/"):
            remark(f"\n{family}")
            show(table(found, [family]))
    totals = overall(found)
    remark(
        f"\n{totals['entries']} entries, {totals['networks']} networks, {totals['core_minutes']:.1f} core minutes; "
        f"{folder / RECORD}, {picture}"
    )
