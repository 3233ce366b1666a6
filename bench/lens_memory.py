"""The largest tensor that a lens makes of a long text over a large vocabulary, against all logits of one site.

    python bench/lens_memory.py                 # 512 tokens, width 2048, vocabulary 128,256

Every tensor that an operation gives is seen through a dispatch mode; the weights, which are there before, are not
counted, nor are views of them. The network is a Llama of random weights, of few layers, since a layer adds nothing to
the largest tensor. The exit code is 1 where the lens makes a tensor as large as a tenth of all logits.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from openwork.lenses import Reading, ReadOut, read
from openwork.network import open as open_network

MIB = 2**20
ALLOWED = 0.1


class Largest(TorchDispatchMode):
    """Sees what every operation gives, and remembers the largest.

    Args:
        known: storages that are there before.
    """

    def __init__(self, known: set[int]):
        super().__init__()
        self.known, self.bytes, self.what = known, 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                size = tensor.numel() * tensor.element_size()
                if size > self.bytes:
                    self.bytes, self.what = size, f"{func} {tuple(tensor.shape)} {tensor.dtype}"
        return out


def main() -> int:
    """Read a text and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--memory", default=Reading().memory, help="what openwork lens --memory takes")
    args = parser.parse_args()
    config = LlamaConfig(
        vocab_size=args.vocabulary, hidden_size=args.width, intermediate_size=2 * args.width,
        num_hidden_layers=args.layers, num_attention_heads=args.width // 64, num_key_value_heads=args.width // 256,
        tie_word_embeddings=True, max_position_embeddings=args.tokens,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("meta"):
        module: Any = LlamaForCausalLM(config)
    module = module.to_empty(device="cpu").eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    module.model.rotary_emb = type(module.model.rotary_emb)(config)
    module.tie_weights()
    net = open_network(module, example={"input_ids": torch.arange(8)[None]})
    # the check that the read-out gives the network's logits is made once for a network, on its short example
    ReadOut.of(net)
    ids = torch.randint(0, args.vocabulary, (1, args.tokens), generator=torch.Generator().manual_seed(0))
    known = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    with Largest(known) as seen:
        table = read(net, ids, method=Reading(memory=args.memory)).table
    everything = args.tokens * args.vocabulary * 4
    print(json.dumps({
        "tokens": args.tokens, "width": args.width, "vocabulary": args.vocabulary, "memory": args.memory,
        "sites": table.sizes["site"], "largest_mib": round(seen.bytes / MIB, 1), "largest": seen.what,
        "all_logits_of_a_site_mib": round(everything / MIB, 1),
    }))  # fmt: skip
    return int(seen.bytes > ALLOWED * everything)


if __name__ == "__main__":
    sys.exit(main())
