"""Times TransformerLens: a bridge over a twin of the network, on the same weight tensors."""

from __future__ import annotations

import sys

from transformer_lens.model_bridge import TransformerBridge

from peers.case import Case
from peers.serve import Mode, bare, serve


def modes(case: Case) -> dict[str, Mode]:
    """The bridge called, and `run_with_cache` filtered to the residual streams and unfiltered."""
    bridge = TransformerBridge.boot_transformers(sys.argv[1], hf_model=case.twin())
    streams = [f"blocks.{block}.hook_resid_post" for block in range(case.shape.layers)]

    return {
        "bare": bare(case.module, case.ids),
        "no keep": Mode(lambda: bridge(case.ids), lambda logits: logits),
        "residual streams": Mode(
            lambda: bridge.run_with_cache(case.ids, names_filter=streams),
            lambda result: result[0],
            lambda result: {name: result[1][name] for name in streams},
        ),
        "every site": Mode(
            lambda: bridge.run_with_cache(case.ids),
            lambda result: result[0],
            lambda result: dict(result[1].cache_dict),
        ),
    }


if __name__ == "__main__":
    serve(modes, ["transformer-lens", "torch", "transformers"])
