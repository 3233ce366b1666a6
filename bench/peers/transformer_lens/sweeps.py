"""Sweeps by TransformerLens's own patching functions, on a bridge over the network's weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from peers.case import Case
from peers.sweeping import Cell, Pairs, serve

SETTERS = {
    "residual": (patching.layer_pos_patch_setter, "resid_pre", ["layer", "pos"]),
    "heads": (patching.layer_head_vector_patch_setter, "z", ["layer", "head"]),
    "heads x positions": (patching.layer_pos_head_vector_patch_setter, "z", ["layer", "pos", "head"]),
}
"""As `get_act_patch_resid_pre`, `…_attn_head_out_all_pos` and `…_attn_head_out_by_pos` are made."""


class Sweeps:
    """A bridge, and its patching function with the cells as its index."""

    def __init__(self, case: Case) -> None:
        self.bridge = TransformerBridge.boot_transformers(sys.argv[1], hf_model=case.twin())

    def prepare(self, kind: str, pairs: Pairs) -> Any:
        """The clean cache, filtered to what is patched."""
        name = f"hook_{SETTERS[kind][1]}"
        return self.bridge.run_with_cache(pairs.clean, names_filter=lambda hook: hook.endswith(name))[1]

    def run(self, kind: str, pairs: Pairs, cells: Sequence[Cell], prepared: Any) -> np.ndarray:
        """Its generic function, which all of its named ones are made of."""
        setter, name, columns = SETTERS[kind]
        index = pd.DataFrame([dict(zip(_order(columns), cell, strict=True)) for cell in cells])[columns]
        found = patching.generic_activation_patch(
            self.bridge, pairs.corrupted, prepared, pairs.difference, setter, name, index_df=index, reduce="none"
        )
        return found.values.numpy()


def _order(columns: list[str]) -> list[str]:
    """The columns in the order of a cell: layer, head, position."""
    return ["layer", "head", "pos"] if len(columns) == 3 else columns


if __name__ == "__main__":
    serve(Sweeps, ["transformer-lens", "torch", "transformers"])
