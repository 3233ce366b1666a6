"""What the commands of methods have in common: network and task, the gate, the folder, the verdict."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from openwork.cli.command import DONE, REJECTED, Common, command, line_of
from openwork.cli.loading import open_network
from openwork.cli.options import Model, Out, RealText, TrustRemoteCode
from openwork.cli.output import remark, show, show_json
from openwork.cli.study import STYLES, reads_text
from openwork.errors import OpenworkError, OutputOccupied, TaskFailed
from openwork.store import read_json
from openwork.store.progress import Bar

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.results.result import Result
    from openwork.task import Task

RECORD = "result.json"
FILES = ("arrays.npz", "report.html", RECORD)
"""What a folder holds, in the order in which it is put there."""
DEFAULT = "induction"
"""The task of a network that is known for nothing."""
LARGEST = 10
"""Cells that are printed of a result without claims."""
AFTERWARDS = "held-out examples"
"""What goes on when everything that is counted is done."""


@dataclass(frozen=True)
class Asked:
    """The options that every command of a method takes."""

    model: Model = "py-4l"
    task: Annotated[
        str | None,
        typer.Option(help="Name of a task, or a .jsonl file of your own; what it is known for, or else induction."),
    ] = None
    n: Annotated[int, typer.Option(help="Examples, half of them held out; a .jsonl file brings its own.")] = 64
    text: RealText = None
    out: Out = None
    trust_remote_code: TrustRemoteCode = False


@dataclass(frozen=True)
class Inquiry:
    """What a method is asked about.

    Args:
        net: the opened network.
        task: the behaviour, which the network can do.
        seed: of everything drawn at random.
        tick: told the share that is done.
    """

    net: Network
    task: Task
    seed: int
    tick: Callable[[float], None]


@dataclass(frozen=True)
class Call:
    """A command that was called.

    Args:
        name: of the command.
        line: what does the same again, wherever it writes to.
        out: the folder for its result; unwritten if None.
        common: what every command takes.
    """

    name: str
    line: str
    out: Path | None
    common: Common


Method = Callable[..., "Result"]


def inquiry(app: typer.Typer, name: str, claims: bool = True) -> Callable[[Method], Method]:
    """Register a function of (an `Inquiry`, its own options…) that returns a `Result`.

    Args:
        app: where to register.
        name: of the command.
        claims: whether the method makes claims; a result without any then is not a success.
    """

    def register(function: Method) -> Method:
        own = list(inspect.signature(function).parameters.values())[1:]
        hints = get_type_hints(function, include_extras=True, localns={"Result": object})

        def run(asked: Asked, common: Common, **given: Any) -> int:
            options = {p.name: given[p.name] for p in own if given[p.name] != p.default}
            asks = {"task": asked.task, "n": asked.n, "text": asked.text}
            trust = {"trust_remote_code": asked.trust_remote_code}
            line = line_of(name, [asked.model], {**asks, **trust, **options}, common)

            def answer(tick: Callable[[float], None]) -> Result:
                net, task = behaving(asked, common)
                require_able(net, task, common.seed)
                return function(Inquiry(net, task, common.seed, tick), **given)

            result = carried_out(Call(name, line, asked.out, common), answer)
            return exit_code(result, claims and given.get("claims") != 0)

        grouped = [inspect.Parameter(group, inspect.Parameter.KEYWORD_ONLY) for group in ("asked", "common")]
        parameters = [grouped[0], *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), grouped[1]]
        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {"asked": Asked, **{p.name: hints[p.name] for p in own}, "common": Common}
        run.__name__, run.__doc__ = name, function.__doc__
        command(app, name, kept="nothing was written")(run)
        return function

    return register


def carried_out(
    call: Call,
    run: Callable[[Callable[[float], None]], Result],
    told: Callable[[Result], RenderableType] | None = None,
) -> Result:
    """Run, print what came out, and keep it if there is a folder to keep it in.

    Args:
        call: the command.
        run: given what is told the share that is done; its result.
        told: what a reader is shown of it; its `summary` unless given.

    Raises:
        OutputOccupied: before anything runs, if the folder holds something else.
    """
    out = None if call.out is None else call.out.resolve()
    if out is not None:
        require_vacant(out, call.line)
    with Bar(call.name, call.common.quiet, afterwards=AFTERWARDS) as bar:
        found = run(bar.tick)
    result = replace(found, settings={**found.settings, "command": call.line})
    record = kept(result, out)
    if call.common.json:
        show_json(record)
    else:
        show((told or summary)(result))
        if call.out is not None:
            remark(f"report: {call.out / 'report.html'}")
    return result


def behaving(asked: Asked, common: Common) -> tuple[Network, Task]:
    """The network and its task; of a network whose answer is known, its own unless another one is named."""
    from openwork import tasks, zoo
    from openwork.zoo.opening import is_member

    if asked.task is None and is_member(asked.model):
        member = zoo.open(asked.model)
        return open_network(member, common), member.task(asked.n, common.seed)
    net = open_network(asked.model, common, asked.trust_remote_code)
    name = asked.task or DEFAULT
    return net, tasks.make(name, net, n=asked.n, seed=common.seed, source=asked.text if reads_text(name) else None)


def require_able(net: Network, task: Task, seed: int) -> None:
    """Refuse to look for the mechanism of what is not there; the same gate as that of a study.

    Raises:
        TaskFailed: if the network's accuracy does not clear chance and a margin on both splits.
    """
    from openwork.studies.gate import check
    from openwork.studies.settings import StudySettings

    gate = check(net, task, StudySettings(), seed)
    if not gate.passed:
        raise TaskFailed(f"{net.name} cannot do {task.name}, so nothing was measured: {gate.reason}")


def require_vacant(out: Path, line: str) -> None:
    """Refuse a folder that holds anything but an earlier result of the same command.

    Raises:
        OutputOccupied: naming what it holds.
    """
    try:
        there = sorted(path.name for path in out.iterdir() if not path.name.endswith(".partial"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputOccupied(f"expected a folder at {out}; {error.strerror}. Choose another with --out") from error
    if not there:
        return
    if RECORD not in there:
        raise OutputOccupied(
            f"expected an empty folder or an earlier result in {out}; it holds {', '.join(there[:5])}; choose another "
            "with --out"
        )
    try:
        earlier = read_json(out / RECORD)["settings"]["command"]
    except (OpenworkError, KeyError, TypeError):
        earlier = "a command that is not recorded"
    if earlier != line:
        raise OutputOccupied(f"{out} holds the result of another call ({earlier}); choose another with --out")


def kept(result: Result, out: Path | None) -> Any:
    """The record of a result; if there is a folder, it gets record, arrays and report, each whole or not at all.

    Raises:
        OutputOccupied: if the folder cannot be written.
    """
    from openwork.reports import render

    try:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
        folder = None if out is None else out.parent
        with tempfile.TemporaryDirectory(dir=folder, prefix=".openwork.", suffix=".partial") as made:
            result.save(made)
            record = read_json(Path(made) / RECORD)
            if out is not None:
                render(made)
                out.mkdir(exist_ok=True)
                for name in FILES:
                    os.replace(Path(made) / name, out / name)
    except OSError as error:
        raise OutputOccupied(f"expected a folder that can be written at {out}; {error.strerror or error}") from error
    return record


def exit_code(result: Result, claims: bool) -> int:
    """0 if anything is supported, or nothing was to be claimed; 4 if nothing is."""
    supported = any(finding.verdict == "supported" for finding in result.findings)
    return DONE if supported or not claims else REJECTED


def summary(result: Result) -> RenderableType:
    """A result for a terminal: the verdict and the claims, or the largest effects where nothing is claimed."""
    from openwork.reports.labelled import rows_of
    from openwork.reports.result import Outcome

    outcome = Outcome.of(result)
    head = Text(f"{outcome.sign} {outcome.title}", style=STYLES.get(outcome.status, "bold yellow"))
    parts: list[RenderableType] = [head, Text(outcome.text)]
    if result.findings:
        return Group(*parts, Text(), result.__rich__())
    table = Table("what", "where", "effect", "95 % interval", "p", box=None)
    for row in rows_of(result.table, LARGEST):
        table.add_row(*map(Text, row))
    return Group(*parts, Text(), table, *(Text(f"note: {remark}") for remark in result.remarks))
