"""The `openwork` command: its groups, and what runs when it is called."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from openwork.cli import (
    attribute,
    bench,
    cache,
    causal,
    dissect,
    geometry,
    judge,
    lens,
    open,
    patches,
    probe,
    report,
    see,
    seeing,
    steer,
    study,
    tuning,
    watch,
    weights,
    zoo,
)

app = typer.Typer(
    name="openwork",
    help="Open any neural network, find the mechanism behind a behaviour, prove it, change it.\n\n"
    "Exit codes: 0 supported or done, 1 error, 2 wrong usage, 3 the network cannot do the task, "
    "4 rejected or inconclusive, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"openwork {version('openwork')}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


open.register(app)
study.register(app)
tuning.register(app)
patches.register(app)
causal.register(app)
dissect.register(app)
attribute.register(app)
geometry.register(app)
judge.register(app)
lens.register(app)
probe.register(app)
report.register(app)
see.register(app)
seeing.register(app)
steer.register(app)
bench.register(app)
watch.register(app)
weights.register(app)
app.add_typer(zoo.app, name="zoo")
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the command line."""
    # rows without padding need no mask, whatever the library says of tokens that begin them
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    app()
