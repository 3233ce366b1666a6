"""A bar on stderr for what takes longer than a second, with the time left as soon as it can be told."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """Shows what is going on, on a terminal only. It moves back and forth while no share is known.

    Args:
        name: what is going on.
        quiet: show nothing.
        patience: seconds without a bar.
        afterwards: what goes on when everything that is counted is done; nothing unless given.
    """

    def __init__(self, name: str, quiet: bool = False, patience: float = 0.0, afterwards: str | None = None):
        self._patience, self._afterwards, self._start = patience, afterwards, time.monotonic()
        self._bar = None if quiet or not sys.stderr.isatty() else _drawn(name)

    def __enter__(self) -> Bar:
        if self._bar is not None and not self._patience:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tick(self, share: float) -> None:
        """A share of what can be counted is done."""
        if self._bar is None:
            return
        if not self._bar.live.is_started and time.monotonic() - self._start > self._patience:
            self._bar.start()
        (task,) = self._bar.tasks
        if share < 1 or self._afterwards is None:
            self._bar.update(task.id, total=1.0, completed=share)
        else:
            self._bar.reset(task.id, total=None, description=self._afterwards)
            task.total = None

    def name(self, text: str) -> None:
        """Something else is going on from now on."""
        if self._bar is not None:
            self._bar.update(self._bar.tasks[0].id, description=text)


def _drawn(name: str) -> Progress:
    # what never shows a bar does not wait for rich either
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Left

    bar = Progress(
        TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("left"), Left(), console=Console(stderr=True), transient=True,
    )  # fmt: skip
    bar.add_task(name, total=None)
    return bar
