"""A bar on stderr for what takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 1.0
"""Seconds without a bar."""


@contextmanager
def bar(text: str) -> Iterator[Callable[[float], None]]:
    """Report shares of what is done; the bar shows the time left, on a terminal only.

    Args:
        text: what is being done.
    """
    if not sys.stderr.isatty():
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("left")
    progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = progress.add_task(text, total=1.0)
    start = time.monotonic()

    def tick(share: float) -> None:
        if not progress.live.is_started and time.monotonic() - start > PATIENCE:
            progress.start()
        progress.update(task, completed=share)

    try:
        yield tick
    finally:
        progress.stop()
