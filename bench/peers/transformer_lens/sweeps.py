"""Sweeps by TransformerLens's own patching functions, on a bridge over the network's weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from peers.case import Case
from peers.sweeping import Cell, Pairs, Sweep, serve

SETTERS = {
    "residual": (patching.layer_pos_patch_setter, "resid_pre", ["layer", "pos"]),
    "heads": (patching.layer_head_vector_patch_setter, "z", ["layer", "head"]),
    "heads x positions": (patching.layer_pos_head_vector_patch_setter, "z", ["layer", "pos", "head"]),
}
"""As `get_act_patch_resid_pre`, `…_attn_head_out_all_pos` and `…_attn_head_out_by_pos` are made."""


def make(case: Case) -> Sweep:
    """A bridge, and its patching function with the cells as its index."""
    bridge = TransformerBridge.boot_transformers(sys.argv[1], hf_model=case.twin())

    def sweep(kind: str, pairs: Pairs, cells: Sequence[Cell]) -> np.ndarray:
        setter, name, columns = SETTERS[kind]
        index = pd.DataFrame([dict(zip(_order(columns), cell, strict=True)) for cell in cells])[columns]
        filtered = partial(str.endswith)
        _, cache = bridge.run_with_cache(pairs.clean, names_filter=lambda hook: filtered(hook, f"hook_{name}"))
        found = patching.generic_activation_patch(
            bridge, pairs.corrupted, cache, pairs.difference, setter, name, index_df=index, reduce="none"
        )
        return found.values.numpy()

    return sweep


def _order(columns: list[str]) -> list[str]:
    """The columns in the order of a cell: layer, head, position."""
    return ["layer", "head", "pos"] if len(columns) == 3 else columns


if __name__ == "__main__":
    serve(make, ["transformer-lens", "torch", "transformers"])
