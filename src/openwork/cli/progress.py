"""A bar on stderr, with the time left as soon as it can be told."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from openwork.cli.output import notes

AFTERWARDS = "held-out examples"
"""What goes on when everything that is counted is done."""


class Bar:
    """Shows what is going on; nothing at all if `quiet`. It moves back and forth while no share is known.

    Args:
        name: what is going on.
        quiet: show nothing.
    """

    def __init__(self, name: str, quiet: bool):
        self._bar = Progress(
            TextColumn("{task.description:<18}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=notes(), disable=quiet, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(name, total=None)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tick(self, share: float) -> None:
        """A share of what can be counted is done."""
        if share < 1:
            self._bar.update(self._task, total=1.0, completed=share)
        else:
            self._bar.reset(self._task, total=None, description=AFTERWARDS)
            self._bar.tasks[0].total = None
