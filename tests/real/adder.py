"""Trained transformers that add two numbers modulo 59, by the algorithms Clock and Pizza (folder ``lm_pizza_clock``).

Each block is attention without mask, whose weights are ``rate * softmax + (1 - rate)``, and an MLP; there are no norms.
Weights are a state dict in which the matrices of the embedding and the MLP stand as (out, in) and those of the
attention as (head, channel, in).

Source:
    Zhong, Liu, Tegmark and Andreas 2023, The Clock and the Pizza: section 2 for the network, 3 and 4 for the metrics.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from torch import Tensor, nn

FOLDER = "lm_pizza_clock"
MODULUS = 59
NAMES = {
    **{"W_pos": "weight", "W_Q": "query.weight", "W_K": "key.weight", "W_V": "value.weight", "W_O": "out.weight"},
    **{"W_in": "up.weight", "b_in": "up.bias", "W_out": "down.weight", "b_out": "down.bias"},
}
ACTIVATIONS = {"ReLU": nn.ReLU, "GeLU": nn.GELU}


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, rate: float):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.heads, self.rate = heads, rate

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        pattern = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        z = (self.rate * pattern + (1 - self.rate)) @ v
        return self.out(z.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, activation: str):
        super().__init__()
        self.up, self.act, self.down = (
            nn.Linear(width, 4 * width),
            ACTIVATIONS[activation](),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, rate: float, activation: str):
        super().__init__()
        self.attn, self.mlp = Attention(width, heads, rate), MLP(width, activation)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Adder(nn.Module):
    """Two tokens in; the logits of the sum are those at the second."""

    def __init__(self, vocabulary: int, width: int, heads: int, layers: int, rate: float, activation: str):
        super().__init__()
        self.embed, self.pos_embed = nn.Embedding(vocabulary, width), nn.Embedding(2, width)
        self.blocks = nn.ModuleList(Block(width, heads, rate, activation) for _ in range(layers))
        self.unembed = nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.from_embeddings(self.embed(input_ids))

    def from_embeddings(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed.weight
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


def config(data: Path, run: str) -> dict:
    """The published configuration of one run."""
    return json.loads((data / FOLDER / "code" / "save" / f"config_{run}.json").read_text(encoding="utf-8"))


def load(data: Path, run: str) -> Adder:
    """The trained network of one run."""
    knobs = config(data, run)
    path = data / FOLDER / "code" / "save" / f"model_{run}.pt"
    weights = torch.load(path, map_location="cpu", weights_only=True)
    ours = {"embed.weight": weights.pop("embed.W_E").T, "unembed.weight": weights.pop("unembed.W_U").T}
    for name, value in weights.items():
        if not name.endswith(".mask"):
            stem, _, leaf = name.rpartition(".")
            ours[f"{stem}.{NAMES[leaf]}"] = (
                value.flatten(0, -2) if value.ndim > 2 else value
            )  # heads one below the other
    vocabulary, width = ours["embed.weight"].shape
    module = Adder(vocabulary, width, knobs["n_heads"], knobs["n_layers"], knobs["attn_coeff"], knobs["act_fn"])
    module.load_state_dict(ours)
    return module.eval()


def published(data: Path, run: str) -> dict[str, float]:
    """The published accuracy and metrics of one run; empty where the table does not list it."""
    wanted = ("validation_accuracy", "gradient_sim", "distance_irrelevance", "circularity")
    with (data / FOLDER / "result" / "1l_fixedwidth.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["runid"] == run]
    return {name: float(rows[0][name]) for name in wanted} if rows else {}


def pairs(module: Adder) -> Tensor:
    """All pairs of operands as tokens, a major, (pair, 2); the second has its own vocabulary where there are two."""
    second = module.embed.num_embeddings - MODULUS
    a, b = torch.meshgrid(torch.arange(MODULUS), torch.arange(MODULUS) + second, indexing="ij")
    return torch.stack((a.flatten(), b.flatten()), -1)


def sums(ids: Tensor) -> Tensor:
    """The right answers, (pair,)."""
    return ids.sum(-1) % MODULUS
