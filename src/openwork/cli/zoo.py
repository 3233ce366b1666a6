"""`openwork zoo`: the networks that ship with openwork, their cards, and training them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from openwork.cli.command import Common, command
from openwork.cli.output import remark, show, show_json

app = typer.Typer(help="The networks that ship with openwork.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of an embedded network.")]


@command(app, "list")
def list_(common: Common) -> None:
    """List the embedded networks."""
    from openwork import zoo

    found = [{"name": name, "checkpoints": zoo.checkpoints(name)} for name in zoo.names()]
    if common.json:
        show_json(found)
        return
    table = Table("name", "checkpoints", box=None)
    for item in found:
        table.add_row(item["name"], str(len(item["checkpoints"])))
    show(table)


@command(app)
def card(name: Name, *, common: Common) -> None:
    """Print the card of an embedded network: its data, its training, what it can do."""
    from openwork import zoo

    found = zoo.card(name)
    if common.json:
        show_json(found)
        return
    table = Table(box=None, show_header=False, title=name, title_justify="left")
    for key, value in _flat(found):
        table.add_row(key, value)
    show(table)


@command(app, kept="what was trained is kept: the same command with --resume goes on")
def build(
    name: Name,
    minutes: Annotated[float, typer.Option(help="Time to train in this call.")] = 60.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that is there.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME unless given.")] = None,
    *,
    common: Common,
) -> None:
    """Train an embedded network again, from the standard library of the running Python."""
    from openwork.recipes import build as train

    built = train(name, minutes=minutes, resume=resume, out=out, seed=common.seed, device=common.device)
    if common.json:
        exported = None if built.exported is None else str(built.exported)
        show_json({"name": built.name, "folder": str(built.folder), "step": built.step, "steps": built.steps,
                   "exported": exported})  # fmt: skip
    elif built.exported is None:
        remark(f"step {built.step} of {built.steps}; run it again with --resume to go on")
    else:
        typer.echo(built.exported)


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested records as rows of dotted name and value; lists in one row."""
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)))]
    return [(name, str(value))]
