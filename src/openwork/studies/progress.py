"""Progress of a study on stderr, with the time left."""

from __future__ import annotations

from openwork.store.progress import Bar

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


class Reporter(Bar):
    """The bar of a whole study, whose parts are its steps.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool):
        super().__init__("opening", quiet)
        self._step, self._before = "", 0.0

    def __enter__(self) -> Reporter:
        super().__enter__()
        return self

    def begin(self, step: str) -> None:
        """A step begins (or was already there): those before it are done."""
        steps = list(SHARES)
        self._step, self._before = step, sum(SHARES[s] for s in steps[: steps.index(step)])
        self.name(NAMES[step])
        self.tick(0.0)

    def tick(self, share: float) -> None:
        """A share of the present step is done."""
        super().tick((self._before + SHARES[self._step] * min(share, 1.0)) / sum(SHARES.values()))
