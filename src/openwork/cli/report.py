"""`openwork report DIR`: render a study or a causal result again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openwork.cli.command import Common, command
from openwork.cli.output import show_json


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, kept="an earlier report.html is as it was")
    def report(
        folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds a study.json or a result.json.")],
        *,
        common: Common,
    ) -> None:
        """Render the report of a study or of a causal method again, from its record and arrays.npz alone."""
        from openwork.reports import render

        page = render(folder)
        if common.json:
            show_json({"report": str(page), "bytes": page.stat().st_size})
        else:
            typer.echo(page)
