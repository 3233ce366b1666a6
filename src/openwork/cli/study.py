"""`openwork study`: find the mechanism of a behaviour, prove or reject it, and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from openwork.cli.command import Common, command, line_of
from openwork.cli.loading import open_network
from openwork.cli.options import RealText, TrustRemoteCode
from openwork.cli.output import remark, show, show_json

if TYPE_CHECKING:
    from openwork.studies import Study

DEFAULT_OUT = Path("study")
STYLES = {"supported": "bold green", "rejected": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, kept="the steps that were done are kept: the same command goes on where it stopped")
    def study(
        model: Annotated[str, typer.Argument(help="An embedded name, a local folder, or a hub id.")] = "py-4l",
        task: Annotated[str, typer.Option(help="Name of a task, or a .jsonl file of your own.")] = "induction",
        text: RealText = None,
        out: Annotated[Path, typer.Option(help="Folder for study.json, arrays.npz and report.html.")] = DEFAULT_OUT,
        trust_remote_code: TrustRemoteCode = False,
        *,
        common: Common,
    ) -> int:
        """Find the mechanism behind a behaviour and test it on held-out data against controls."""
        from openwork import studies, tasks
        from openwork.reports import render

        net = open_network(model, common, trust_remote_code)
        behaviour = tasks.make(task, net, seed=common.seed, source=text if reads_text(task) else None)
        result = studies.study(
            net,
            behaviour,
            text=text,
            out=out,
            seed=common.seed,
            quiet=common.quiet,
            command=repeat(model, task, text, out, trust_remote_code, common),
        )
        page = render(out)
        if common.json:
            show_json(result.model_dump(mode="json"))
        else:
            show(summary(result))
            remark(f"report: {page}")
        return result.exit_code


def reads_text(task: str) -> bool:
    """Whether the examples of a task are drawn from real text; the others write theirs, a JSONL file brings it."""
    return task in ("induction", "bracket")


def repeat(model: str, task: str, text: Path | None, out: Path, trust_remote_code: bool, common: Common) -> str:
    """The command line that does the same again."""
    options = {"task": task, "text": text, "out": None if out == DEFAULT_OUT else out}
    return line_of("study", [model], {**options, "trust_remote_code": trust_remote_code}, common)


def summary(result: Study) -> RenderableType:
    """A study for a terminal: the verdict, the criteria, the circuit."""
    from openwork.reports.words import VERDICTS, between, component, number, p_value

    title, sign = VERDICTS[result.status]
    parts: list[RenderableType] = [
        Text(f"{sign} {title}", style=STYLES.get(result.status, "bold yellow")),
        Text(result.summary),
    ]
    if result.gate and not result.gate.passed:
        table = Table("split", "accuracy", "interval", "needed", box=None)
        for split in result.gate.splits:
            row = (split.split, number(split.accuracy.value), between(split.accuracy), number(result.gate.needed))
            table.add_row(*row)
        parts.append(table)
    if v := result.validation:
        table = Table("", "faithfulness", "interval", "against the circuit", box=None)
        table.add_row("the circuit", number(v.faithfulness.value), between(v.faithfulness), "")
        for rival in v.rivals:
            estimate = rival.faithfulness
            table.add_row(Text(rival.name), number(estimate.value), between(estimate), p_value(rival.p_value))
        name = f"{v.random.n} random circuits"
        table.add_row(name, number(v.random.value), between(v.random), p_value(v.random.p_value))
        parts += [Text(), table]
    chosen = next((c for c in result.candidates.candidates if c.selected), None) if result.candidates else None
    if chosen:
        table = Table("component", "role", f"effect ({result.task.unit})", box=None)
        for node in chosen.nodes:
            table.add_row(component(node.site), node.role or "–", number(node.score))
        parts += [Text(), table]
    return Group(*parts)
