"""Sweeps by hand: one full forward pass a cell with one plain torch hook."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from peers.case import Case
from peers.sweeping import Cell, Pairs, Sweep, serve


def make(case: Case) -> Sweep:
    """A loop over cells."""
    blocks, heads = case.module.transformer.h, case.shape.heads

    def inputs(kind: str, ids: torch.Tensor) -> list[torch.Tensor]:
        """What each block, or each output projection, reads."""
        found: list[torch.Tensor] = []
        modules = blocks if kind == "residual" else [block.attn.c_proj for block in blocks]
        handles = [m.register_forward_pre_hook(lambda _, args: found.append(args[0].clone())) for m in modules]
        case.module(input_ids=ids)
        for handle in handles:
            handle.remove()
        return found

    def sweep(kind: str, pairs: Pairs, cells: Sequence[Cell]) -> np.ndarray:
        clean = inputs(kind, pairs.clean)
        width = case.shape.width // heads
        out = []
        for layer, *rest in cells:
            block = blocks[layer]

            def patch(module: torch.nn.Module, args: tuple, layer: int = layer, rest: list[int] = rest) -> tuple:
                value = args[0].clone()
                if kind == "residual":
                    value[:, rest[0]] = clean[layer][:, rest[0]]
                else:
                    part = slice(rest[0] * width, (rest[0] + 1) * width)
                    at = slice(None) if kind == "heads" else rest[1]
                    value[:, at, part] = clean[layer][:, at, part]
                return (value, *args[1:])

            target = block if kind == "residual" else block.attn.c_proj
            handle = target.register_forward_pre_hook(patch)
            out.append(pairs.difference(case.module(input_ids=pairs.corrupted).logits))
            handle.remove()
        return torch.stack(out).numpy()

    return sweep


if __name__ == "__main__":
    serve(make, ["torch", "transformers"])
