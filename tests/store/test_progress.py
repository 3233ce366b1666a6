"""The bar: on a terminal only, after its patience, and what it says when all that is counted is done."""

from __future__ import annotations

import io
import sys

import pytest

from openwork.store.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO) -> io.StringIO:
    """Puts it in the place of stderr, which pytest sets anew before each test."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stderr)
    return stderr


def test_a_terminal_sees_what_goes_on_and_how_much_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = shown(monkeypatch, Terminal())
    with Bar("counting") as bar:
        bar.tick(0.5)
    assert "counting" in terminal.getvalue()
    assert "50%" in terminal.getvalue()


@pytest.mark.parametrize("options", [{"quiet": True}, {"patience": 60.0}])
def test_nothing_is_shown_when_quiet_or_before_its_time(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    terminal = shown(monkeypatch, Terminal())
    with Bar("counting", **options) as bar:
        bar.tick(0.5)
        bar.name("more")
        bar.tick(1.0)
    assert not terminal.getvalue()


def test_a_file_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = shown(monkeypatch, io.StringIO())
    with Bar("counting") as bar:
        bar.tick(0.5)
    assert not kept.getvalue()


def test_what_follows_the_counting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = shown(monkeypatch, Terminal())
    with Bar("counting", afterwards="held-out examples") as bar:
        bar.tick(1.0)
    assert "held-out examples" in terminal.getvalue()


def test_a_new_name_takes_the_place_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = shown(monkeypatch, Terminal())
    with Bar("counting") as bar:
        bar.tick(0.1)
        bar.name("adding")
    assert terminal.getvalue().rindex("adding") > terminal.getvalue().rindex("counting")
