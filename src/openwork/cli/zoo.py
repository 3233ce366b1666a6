"""`openwork zoo`: the networks that ship with openwork, their cards, and training them again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from openwork.cli.command import Common, command
from openwork.cli.output import remark, show, show_json

app = typer.Typer(help="The networks that ship with openwork.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of a network, as `openwork zoo list` gives it.")]
SHOWN = 12
"""Names of a family that are listed when all families are."""


@command(app, "list")
def list_(
    family: Annotated[str | None, typer.Argument(help="Only one family, such as compiled or null.")] = None,
    *,
    common: Common,
) -> None:
    """List the networks: embedded models, and those whose answer is known."""
    from openwork import zoo

    families = {name: known.about for name, known in zoo.FAMILIES.items()}
    chosen = families if family is None else {family: families.get(family, "")}
    known = {name: zoo.members(name) for name in chosen}
    alone = [name for name in zoo.names() if name.partition("/")[0] not in families and family is None]
    embedded = [{"name": name, "checkpoints": zoo.checkpoints(name)} for name in alone]
    if common.json:
        show_json({"embedded": embedded, "known": known})
        return
    table = Table("family", "networks", box=None)
    if embedded:
        kept = [
            f"{i['name']} ({len(i['checkpoints'])} checkpoints)" if i["checkpoints"] else i["name"] for i in embedded
        ]
        table.add_row("trained", Text("models that ship with their weights", style="dim"))
        table.add_row("", ", ".join(kept))
    for name, about in chosen.items():
        table.add_row(name, Text(about, style="dim"))
        shown = known[name] if family is not None else known[name][:SHOWN]
        left = len(known[name]) - len(shown)
        more = f" … {left} more: openwork zoo list {name}" if left else ""
        table.add_row("", ", ".join(one.removeprefix(f"{name}/") for one in shown) + more)
    show(table)


@command(app)
def card(name: Name, *, common: Common) -> None:
    """Print the card of a network: where it comes from, what was measured of it."""
    from openwork import zoo

    found = dict(zoo.open(name).card) if name.partition("/")[0] in zoo.FAMILIES else zoo.card(name)
    if common.json:
        show_json(found)
        return
    table = Table(box=None, show_header=False, title=name, title_justify="left")
    for key, value in _flat(found):
        table.add_row(key, value)
    show(table)


@command(app)
def open(
    name: Name,
    answer: Annotated[bool, typer.Option("--answer", help="Show the circuit too: the answer to be found.")] = False,
    examples: Annotated[int, typer.Option(help="How many examples to show.")] = 4,
    *,
    common: Common,
) -> None:
    """Open a network whose answer is known: its shape, its task, and, if asked, the answer."""
    from openwork import zoo
    from openwork.causal.parts import parts_of

    member = zoo.open(name)
    task = member.task(max(2, examples), common.seed)
    words = member.words or tuple(map(str, range(10**6)))
    shown = [
        {"input": [words[i] for i in ids], "asked": at, "answer": words[right]}
        for ids, at, right in zip(task.clean.ids, task.at, task.answer, strict=True)
    ][:examples]
    if common.json:
        circuit = {"circuit": member.circuit.to_json()} if answer else {}
        show_json({"name": name, "family": member.family, "about": member.about, "blocks": member.net.n_blocks,
                   "examples": shown, **circuit})  # fmt: skip
        return
    parts = Counter(".".join(str(part.sites[0].path).split(".")[:3]) for part in parts_of(member.net))
    show(Text(f"{name}: {member.about}", style="bold"))
    show(
        Text(
            ", ".join(
                f"{block}: {n} head{'s'[: n - 1]}" if block.endswith("attn") else block for block, n in parts.items()
            )
        )
    )
    show("")
    table = Table("input", "asked at", "answer", box=None)
    for item in shown:
        table.add_row(" ".join(item["input"]), str(item["asked"]), item["answer"])
    show(table)
    if not answer:
        remark("\n--answer shows the circuit")
        return
    table = Table("role", "where", box=None)
    for role, nodes in member.known.roles.items():
        table.add_row(role, ", ".join(map(str, nodes)))
    show(table)
    for edge in member.known.edges:
        show(Text(f"  {edge}"))


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
