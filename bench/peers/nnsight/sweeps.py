"""Sweeps by nnsight: one trace a cell, since it has no sweep of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnsight
import numpy as np
import torch

from peers.case import Case
from peers.sweeping import Cell, Pairs, serve


class Sweeps:
    """A loop over traces."""

    def __init__(self, case: Case) -> None:
        self.net = nnsight.NNsight(case.twin())
        self.layers, self.width = case.shape.layers, case.shape.width // case.shape.heads

    def prepare(self, kind: str, pairs: Pairs) -> Any:
        """What is patched, of the clean run, in one trace."""
        targets = [self._target(kind, layer) for layer in range(self.layers)]
        with self.net.trace(input_ids=pairs.clean):
            kept = nnsight.save([target.input.clone() for target in targets])
        return kept

    def run(self, kind: str, pairs: Pairs, cells: Sequence[Cell], prepared: Any) -> np.ndarray:
        """The loop."""
        net, out = self.net, []
        for layer, *rest in cells:
            target, new, first = self._target(kind, layer), prepared[layer], rest[0]
            part = slice(first * self.width, (first + 1) * self.width)
            with net.trace(input_ids=pairs.corrupted):
                value = target.input.clone()
                if kind == "residual":
                    value[:, first] = new[:, first]
                elif kind == "heads":
                    value[:, :, part] = new[:, :, part]
                else:
                    value[:, rest[1], part] = new[:, rest[1], part]
                target.input = value
                logits = net.lm_head.output.save()
            out.append(pairs.difference(logits))
        return torch.stack(out).detach().numpy()

    def _target(self, kind: str, layer: int) -> Any:
        block = self.net.transformer.h[layer]
        return block if kind == "residual" else block.attn.c_proj


if __name__ == "__main__":
    serve(Sweeps, ["nnsight", "torch", "transformers"])
