"""What every command has in common: its options, its exit codes, and how it reports an error."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from typing import Annotated, get_type_hints

import typer

from openwork.cli.output import complain, log_to_stderr, remark
from openwork.errors import OpenworkError, TaskFailed

DONE, ERROR, USAGE, CANNOT, REJECTED, INTERRUPTED = 0, 1, 2, 3, 4, 130


class Dtype(StrEnum):
    """Precisions that a network can be opened in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    seed: Annotated[int, typer.Option(help="Seed of everything drawn at random.")] = 0
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps …")] = "cpu"
    dtype: Annotated[Dtype, typer.Option(help="Precision of the network.")] = Dtype.float32
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, warnings only.")] = False


def command(app: typer.Typer, name: str | None = None, kept: str = "nothing was written") -> Callable[..., Callable]:
    """Register a function of (its own arguments…, common) that returns an exit code or None.

    Args:
        app: where to register.
        name: of the command; the function's unless given.
        kept: what Ctrl-C leaves behind, for the reader.
    """

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        @wraps(function)
        def wrapped(**given: object) -> None:
            common = Common(**{item.name: given.pop(item.name) for item in fields(Common)})  # pyright: ignore
            raise typer.Exit(_guarded(lambda: function(**given, common=common), common, kept))

        wrapped.__signature__ = _signature(function)  # pyright: ignore[reportAttributeAccessIssue]
        wrapped.__annotations__ = {p.name: p.annotation for p in wrapped.__signature__.parameters.values()}  # pyright: ignore
        app.command(name)(wrapped)
        return function

    return register


def _signature(function: Callable[..., int | None]) -> inspect.Signature:
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "common"
    ]
    hints = get_type_hints(Common, include_extras=True)
    shared = [
        inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name])
        for item in fields(Common)
    ]
    return inspect.Signature([*own, *shared])


def _guarded(run: Callable[[], int | None], common: Common, kept: str) -> int:
    """Run a command; an error of ours becomes one clear line and an exit code, a bug keeps its traceback."""
    log_to_stderr(common.quiet)
    try:
        return run() or DONE
    except TaskFailed as error:
        complain(str(error))
        return CANNOT
    except OpenworkError as error:
        complain(str(error))
        return ERROR
    except KeyboardInterrupt:
        remark(f"interrupted; {kept}")
        return INTERRUPTED
