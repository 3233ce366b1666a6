"""Sweeps by hand: one full forward pass a cell with one plain torch hook."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from peers.case import Case
from peers.sweeping import Cell, Pairs, serve


class Sweeps:
    """A loop over cells."""

    def __init__(self, case: Case) -> None:
        self.case, self.blocks = case, case.module.transformer.h
        self.width = case.shape.width // case.shape.heads

    def prepare(self, kind: str, pairs: Pairs) -> list[torch.Tensor]:
        """What each block, or each output projection, reads in the clean run."""
        found: list[torch.Tensor] = []
        modules = [self._target(kind, layer) for layer in range(self.case.shape.layers)]
        handles = [m.register_forward_pre_hook(lambda _, args: found.append(args[0].clone())) for m in modules]
        self.case.module(input_ids=pairs.clean)
        for handle in handles:
            handle.remove()
        return found

    def run(self, kind: str, pairs: Pairs, cells: Sequence[Cell], prepared: list[torch.Tensor]) -> np.ndarray:
        """The loop."""
        out = []
        for layer, *rest in cells:
            new = prepared[layer]

            def patch(module: torch.nn.Module, args: tuple, rest: list[int] = rest, new: torch.Tensor = new) -> tuple:
                value = args[0].clone()
                if kind.startswith("residual"):
                    value[:, rest[0]] = new[:, rest[0]]
                else:
                    part = slice(rest[0] * self.width, (rest[0] + 1) * self.width)
                    at = slice(None) if kind == "heads" else rest[1]
                    value[:, at, part] = new[:, at, part]
                return (value, *args[1:])

            handle = self._target(kind, layer).register_forward_pre_hook(patch)
            out.append(pairs.difference(self.case.module(input_ids=pairs.corrupted).logits))
            handle.remove()
        return torch.stack(out).numpy()

    def _target(self, kind: str, layer: int) -> torch.nn.Module:
        block = self.blocks[layer]
        return block if kind.startswith("residual") else block.attn.c_proj


if __name__ == "__main__":
    serve(Sweeps, ["torch", "transformers"])
