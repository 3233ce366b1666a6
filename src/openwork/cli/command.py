"""What every command has in common: its options, its exit codes, and how it reports an error."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any, get_type_hints

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

    An argument that is a dataclass of options, as `Common` is, stands for all of these; its default holds theirs.

    Args:
        app: where to register.
        name: of the command; the function's unless given.
        kept: what Ctrl-C leaves behind, for the reader.
    """

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        hints = get_type_hints(function, include_extras=True)
        grouped = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

        @wraps(function)
        def wrapped(**given: Any) -> None:
            for name, kind in grouped.items():
                given[name] = kind(**{item.name: given.pop(item.name) for item in fields(kind)})  # pyright: ignore
            raise typer.Exit(_guarded(lambda: function(**given), given["common"], kept))

        wrapped.__signature__ = _signature(function)  # pyright: ignore[reportAttributeAccessIssue]
        wrapped.__annotations__ = {p.name: p.annotation for p in wrapped.__signature__.parameters.values()}  # pyright: ignore
        app.command(name)(wrapped)
        return function

    return register


def line_of(name: str, arguments: Sequence[str], options: Mapping[str, Any], common: Common) -> str:
    """The command line that does the same again.

    Args:
        name: of the command.
        arguments: what stands behind it.
        options: parameter -> value. None and False are left out; a list gives its option again for every value.
        common: what every command takes; printing has no part in it.
    """
    words = ["openwork", name, *arguments]
    for option, value in options.items():
        flag = f"--{option.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [word for one in (value if isinstance(value, list) else [value]) for word in (flag, str(one))]
    return shlex.join([*words, "--seed", str(common.seed), "--device", common.device, "--dtype", common.dtype.value])


def _signature(function: Callable[..., int | None]) -> inspect.Signature:
    """Of a function whose groups of options are taken apart."""
    hints = get_type_hints(function, include_extras=True)
    found: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            found.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        usual = kind() if parameter.default is parameter.empty else parameter.default  # pyright: ignore
        inner = get_type_hints(kind, include_extras=True)
        found += [
            inspect.Parameter(
                item.name, inspect.Parameter.KEYWORD_ONLY, default=getattr(usual, item.name),
                annotation=inner[item.name],
            )
            for item in fields(kind)
        ]  # fmt: skip
    return inspect.Signature(found)


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
