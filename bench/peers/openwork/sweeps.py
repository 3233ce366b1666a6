"""Sweeps by openwork, all cells in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import openwork as ow
from peers.case import Case
from peers.sweeping import MIDDLE, Cell, Pairs, cells_of, serve


class Sweeps:
    """Sweeps of the network opened once."""

    def __init__(self, case: Case) -> None:
        self.case, self.net = case, ow.open(case.module)
        self.edits = {
            "residual": (ow.Patch("blocks.*.resid_pre"), ("site", "position")),
            MIDDLE: (ow.Patch(f"blocks.{case.shape.layers // 2}.resid_pre"), ("site", "position")),
            "heads": (ow.Patch("blocks.*.attn.z"), ("site", "head")),
            "heads x positions": (ow.Patch("blocks.*.attn.z"), ("site", "head", "position")),
        }

    def prepare(self, kind: str, pairs: Pairs) -> None:
        """Nothing: the sweep makes its own unedited runs."""

    def run(self, kind: str, pairs: Pairs, cells: Sequence[Cell], prepared: None) -> np.ndarray:
        """The values of some cells of a whole sweep."""
        task = ow.Task.from_tokens(clean=pairs.clean, corrupted=pairs.corrupted, right=pairs.right, wrong=pairs.wrong)
        edit, over = self.edits[kind]
        values = ow.sweep(self.net, task, edit, over=over).values.reshape(-1, len(pairs.right))
        place = {cell: i for i, cell in enumerate(cells_of(kind, self.case))}
        return values[[place[cell] for cell in cells]]


if __name__ == "__main__":
    serve(Sweeps, ["openwork", "torch", "transformers"])
