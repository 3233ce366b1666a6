"""Sweeps by nnsight: one trace a cell, since it has no sweep of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from nnsight import NNsight

from peers.case import Case
from peers.sweeping import Cell, Pairs, Sweep, serve


def make(case: Case) -> Sweep:
    """A loop over traces."""
    net = NNsight(case.twin())
    width = case.shape.width // case.shape.heads

    def module(kind: str, layer: int):
        block = net.transformer.h[layer]
        return block if kind == "residual" else block.attn.c_proj

    def sweep(kind: str, pairs: Pairs, cells: Sequence[Cell]) -> np.ndarray:
        clean = []
        for layer in range(case.shape.layers):
            with net.trace(input_ids=pairs.clean):
                value = module(kind, layer).input.clone().save()
            clean.append(value)
        out = []
        for layer, *rest in cells:
            target, new = module(kind, layer), clean[layer]
            first = rest[0]
            with net.trace(input_ids=pairs.corrupted):
                value = target.input.clone()
                if kind == "residual":
                    value[:, first] = new[:, first]
                elif kind == "heads":
                    value[:, :, first * width : (first + 1) * width] = new[:, :, first * width : (first + 1) * width]
                else:
                    at = rest[1]
                    value[:, at, first * width : (first + 1) * width] = new[:, at, first * width : (first + 1) * width]
                target.input = value
                logits = net.lm_head.output.save()
            out.append(pairs.difference(logits))
        return torch.stack(out).detach().numpy()

    return sweep


if __name__ == "__main__":
    serve(make, ["nnsight", "torch", "transformers"])
