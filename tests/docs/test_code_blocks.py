"""Every code block of the docs and the README runs, and says what it says it says.

A ``python`` block runs in one namespace a page; ``# -> text`` after an expression is its expected value. A ``bash``
block runs the `openwork` commands in it; ``# exit 4`` after a command is its expected exit code, 0 unless given. A
block after ``<!-- shown, not run: reason -->`` is left out.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openwork.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?P<before>[^\n]*)\n+```(?P<language>\w*)\n(?P<code>.*?)\n```", re.DOTALL)
SHOWN = re.compile(r"<!-- shown, not run: \S.* -->")
EXPECTED = re.compile(r"#\s*->\s*(.+)$")
EXIT = re.compile(r"#\s*exit (\d)\s*$")


@dataclass(frozen=True)
class Block:
    """One code block that runs: its language, its code, and the line of the page that it begins on."""

    language: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """The blocks of a page that run."""
    return [
        Block(match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1)
        for match in FENCE.finditer("\n" + text)
        if match["language"] in ("python", "bash") and not SHOWN.fullmatch(match["before"].strip())
    ]


def run_python(block: Block, namespace: dict[str, Any], page: str) -> None:
    """Run the statements one by one and compare what is marked."""
    lines = block.code.splitlines()
    for statement in ast.parse(block.code).body:
        where = f"{page}:{block.line + statement.lineno - 1}"
        expected = EXPECTED.search(lines[(statement.end_lineno or 1) - 1])
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), where, "eval"), namespace)
            if expected:
                assert expected[1].strip() in (repr(value), str(value)), where
        else:
            assert not expected, f"{where}: only an expression has a value"
            exec(compile(ast.Module([statement], []), where, "exec"), namespace)


def run_bash(block: Block, page: str) -> None:
    """Run the `openwork` commands; anything else is not ours to test."""
    for number, line in enumerate(block.code.splitlines()):
        wanted = EXIT.search(line)
        words = shlex.split(line, comments=True)
        if words[:1] == ["openwork"]:
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == (int(wanted[1]) if wanted else 0), f"{page}:{block.line + number}: {done.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_code_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            run_python(block, namespace, page.name)
        else:
            run_bash(block, page.name)


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {path.name for path in PAGES[1:]} - {"index.md"} == set(re.findall(r"\]\(([\w-]+\.md)\)", index))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_wrong_values_and_codes_are_caught() -> None:
    with pytest.raises(AssertionError, match="page:4"):
        run_python(blocks("a\n\n```python\n1 + 1  # -> 3\n```\n")[0], {}, "page")
    run_python(blocks("a\n```python\nx = 1\nx + 1  # -> 2\n```\n")[0], {}, "page")
    with pytest.raises(AssertionError, match="page:2"):
        run_bash(blocks("```bash\nopenwork no-such-command\n```\n")[0], "page")
    run_bash(blocks("```bash\nopenwork no-such-command  # exit 2\npip install x\n```\n")[0], "page")
    assert blocks("<!-- shown, not run: long -->\n```bash\nopenwork no\n```\n") == []
