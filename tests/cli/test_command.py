"""Options, exit codes and errors that all commands share."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from openwork.cli.command import Common, Dtype, command, line_of
from openwork.errors import BadInput, TaskFailed

COMMANDS = [["open"], ["study"], ["report"], ["zoo", "list"], ["zoo", "card"], ["zoo", "build"], ["cache", "list"],
            ["cache", "clean"]]  # fmt: skip


def invoke(function: Callable[..., int | None], *words: str, kept: str = "nothing") -> Result:
    app = typer.Typer()
    command(app, "go", kept=kept)(function)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["go", *words])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_the_common_options(words: list[str], call: Callable[..., Result]) -> None:
    shown = call(*words, "--help")
    assert shown.exit_code == 0
    for option in ("--seed", "--device", "--dtype", "--json", "--quiet"):
        assert option in shown.stdout


def test_a_command_gets_its_own_arguments_and_the_common_ones() -> None:
    seen: list[object] = []

    def go(
        name: Annotated[str, typer.Argument()], count: Annotated[int, typer.Option()] = 1, *, common: Common
    ) -> None:
        seen.extend([name, count, common])

    done = invoke(go, "x", "--count", "3", "--seed", "7", "--dtype", "bfloat16", "--json", "-q")
    assert done.exit_code == 0
    assert seen == ["x", 3, Common(seed=7, dtype=Dtype.bfloat16, json=True, quiet=True)]


@dataclass(frozen=True)
class Group:
    """Options that stand together."""

    alpha: Annotated[float, typer.Option()] = 0.05
    n: Annotated[int, typer.Option()] = 4


def test_a_group_of_options_is_taken_apart_and_has_the_defaults_of_its_command() -> None:
    seen: list[object] = []

    def go(group: Group = Group(alpha=0.25), *, common: Common) -> None:
        seen.append(group)

    for words in ((), ("--alpha", "0.5"), ("--n", "7")):
        assert invoke(go, *words).exit_code == 0
    assert seen == [Group(0.25, 4), Group(0.5, 4), Group(0.25, 7)]


def test_the_line_of_a_call_says_all_that_was_asked_for_and_nothing_else() -> None:
    options = {"target_at": -1, "site": ["a", "b c"], "text": None, "no_use": True, "trust_remote_code": False}
    line = line_of("go", ["net"], options, Common(seed=3, json=True))
    assert line == "openwork go net --target-at -1 --site a --site 'b c' --no-use --seed 3 --device cpu --dtype float32"


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (4, 4)])
def test_what_a_command_returns_is_the_exit_code(returned: int | None, code: int) -> None:
    def go(common: Common) -> int | None:
        return returned

    assert invoke(go).exit_code == code


@pytest.mark.parametrize(("error", "code"), [(BadInput("bad [red]thing[/]"), 1), (TaskFailed("cannot"), 3)])
def test_our_errors_are_one_line_on_stderr(error: Exception, code: int) -> None:
    def go(common: Common) -> None:
        raise error

    done = invoke(go)
    assert done.exit_code == code
    assert done.stderr.strip() == f"error: {error}"
    assert done.stdout == ""


def test_a_bug_keeps_its_traceback() -> None:
    def go(common: Common) -> None:
        raise ZeroDivisionError("a bug")

    assert isinstance(invoke(go).exception, ZeroDivisionError)


def test_interrupting_says_what_is_kept() -> None:
    def go(common: Common) -> None:
        raise KeyboardInterrupt

    done = invoke(go, kept="half of it is kept")
    assert done.exit_code == 130
    assert "half of it is kept" in done.stderr


def test_logs_go_to_stderr_unless_quiet() -> None:
    def go(common: Common) -> None:
        logging.getLogger("openwork.test").info("some progress")
        logging.getLogger("openwork.test").warning("a warning")
        typer.echo("data")

    loud, quiet = invoke(go), invoke(go, "--quiet")
    assert loud.stdout == quiet.stdout == "data\n"
    assert "some progress" in loud.stderr
    assert "some progress" not in quiet.stderr
    assert "a warning" in quiet.stderr


@pytest.mark.parametrize(
    "words", [[], ["open"], ["open", "a", "b"], ["no-such"], ["open", "a", "--dtype", "int3"], ["study", "--seed", "x"]]
)
def test_wrong_usage_is_2(words: list[str], call: Callable[..., Result]) -> None:
    assert call(*words).exit_code == 2


def test_version(call: Callable[..., Result]) -> None:
    import openwork

    assert call("--version").stdout == f"openwork {openwork.__version__}\n"


def test_cache_lists_and_cleans(call: Callable[..., Result], tmp_path: Path) -> None:
    from openwork.store import CacheKey, write_json

    key = CacheKey("activations", "m", "d", "embed", "float32", "old")
    write_json(key.folder / "index.json", {"key": key.__dict__})
    listed = json.loads(call("cache", "list", "--json").stdout)
    assert [entry["key"]["site"] for entry in listed["entries"]] == ["embed"]
    assert listed["entries"][0]["current"] is False
    assert "another version" in call("cache", "list").stdout
    assert call("cache", "clean", "lenses").exit_code == 0
    assert key.folder.exists()
    cleaned = json.loads(call("cache", "clean", "--stale", "--json").stdout)
    assert cleaned["bytes"] > 0
    assert not key.folder.exists()
