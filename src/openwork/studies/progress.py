"""Progress of a study on stderr, with the time left."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHARES = {
    "gate": 1.0, "effects": 30.0, "clusters": 10.0, "candidates": 15.0, "validation": 55.0, "roles": 4.0,
    "side_effects": 15.0,
}  # fmt: skip
"""About how long each step takes, relative to the others, on the default study."""

NAMES = {
    "gate": "does it do the task", "effects": "effects of components", "clusters": "clusters",
    "candidates": "candidate circuits", "validation": "held-out validation", "roles": "roles of heads",
    "side_effects": "side effects",
}  # fmt: skip


class Reporter:
    """A bar on stderr; nothing at all if `quiet`.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool):
        self._bar = Progress(
            TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True), disable=quiet, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("opening", total=sum(SHARES.values()))
        self._step, self._before = "", 0.0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, step: str) -> None:
        """A step begins (or was already there): those before it are done."""
        steps = list(SHARES)
        self._step, self._before = step, sum(SHARES[s] for s in steps[: steps.index(step)])
        self._bar.update(self._task, description=NAMES[step], completed=self._before)

    def tick(self, share: float) -> None:
        """A share of the present step is done."""
        self._bar.update(self._task, completed=self._before + SHARES[self._step] * min(share, 1.0))
