"""The network and the inputs that every worker times: built from a seed, written once, loaded and checked by hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

AGREEMENT = 1e-4
"""Largest difference from the reference logits that a tool may show, in logits."""


@dataclass(frozen=True)
class Shape:
    """A GPT-2 with random weights and one batch of random tokens.

    Args:
        name: what the tables call it.
        layers, width, heads, vocabulary: of the network.
        batch, length: of the inputs, in rows and tokens.
        warm, calls: untimed and timed calls of one timing request.
    """

    name: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    length: int
    warm: int
    calls: int


SHAPES = {
    "gpt2-small": Shape("gpt2-small", 12, 768, 12, 50257, 4, 64, warm=1, calls=2),
    "two-layer": Shape("two-layer", 2, 64, 4, 512, 1, 8, warm=5, calls=40),
}


@dataclass(frozen=True)
class Case:
    """What a worker loads: the plain network, the inputs and the logits that the writer got from them."""

    shape: Shape
    module: GPT2LMHeadModel
    ids: torch.Tensor
    reference: torch.Tensor

    def twin(self) -> GPT2LMHeadModel:
        """A second network on the very same weight tensors, for a tool that changes the module it is given."""
        with torch.device("meta"):
            twin = GPT2LMHeadModel(self.module.config)
        twin.load_state_dict(self.module.state_dict(keep_vars=True), assign=True)
        twin.tie_weights()
        return twin.eval()


def digest(module: torch.nn.Module, ids: torch.Tensor) -> str:
    """sha256 of the names, shapes and elements of all weights in memory and of the token ids."""
    total = hashlib.sha256()
    for name, tensor in [*sorted(module.named_parameters()), ("ids", ids)]:
        total.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        total.update(tensor.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


def write(shape: Shape, folder: Path, seed: int = 0) -> str:
    """Build the case and write it to `folder`; the digest that every worker must find again is returned."""
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=shape.layers, n_embd=shape.width, n_head=shape.heads, vocab_size=shape.vocabulary,
        bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip
    module = GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, shape.vocabulary, (shape.batch, shape.length))
    with torch.no_grad():
        reference = module(input_ids=ids).logits
    module.save_pretrained(folder)
    save_file({"ids": ids, "reference": reference.contiguous()}, folder / "inputs.safetensors")
    found = digest(module, ids)
    (folder / "case.json").write_text(json.dumps({"shape": asdict(shape), "sha256": found}), encoding="utf-8")
    return found


def read(folder: Path) -> Case:
    """Load the case and check it.

    Raises:
        ValueError: if weights or inputs are not those that were written.
    """
    record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    module = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    tensors = load_file(folder / "inputs.safetensors")
    found = digest(module, tensors["ids"])
    if found != record["sha256"]:
        raise ValueError(f"expected weights and inputs of sha256 {record['sha256']}; loaded {found}; write them again")
    return Case(Shape(**record["shape"]), module, tensors["ids"], tensors["reference"])
