"""Sweeps by openwork, all cells in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import openwork as ow
from peers.case import Case
from peers.sweeping import Cell, Pairs, Sweep, cells_of, serve


def make(case: Case) -> Sweep:
    """A sweep of the network opened once."""
    net = ow.open(case.module)
    edits = {
        "residual": (ow.Patch("blocks.*.resid_pre"), ("site", "position")),
        "heads": (ow.Patch("blocks.*.attn.z"), ("site", "head")),
        "heads x positions": (ow.Patch("blocks.*.attn.z"), ("site", "head", "position")),
    }

    def sweep(kind: str, pairs: Pairs, cells: Sequence[Cell]) -> np.ndarray:
        task = ow.Task.from_tokens(clean=pairs.clean, corrupted=pairs.corrupted, right=pairs.right, wrong=pairs.wrong)
        edit, over = edits[kind]
        values = ow.sweep(net, task, edit, over=over).values.reshape(-1, len(pairs.right))
        place = {cell: i for i, cell in enumerate(cells_of(kind, case))}
        return values[[place[cell] for cell in cells]]

    return sweep


if __name__ == "__main__":
    serve(make, ["openwork", "torch", "transformers"])
