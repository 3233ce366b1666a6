"""A trained GPT that sorts six digits, and its published activations (folder ``lm_nanogpt_sort``).

The layout is that of GPT-2: learned positions, pre-norm blocks, fused q, k and v, tanh GELU, no bias in the
unembedding. Weights and activations are float32 in base64.
"""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FOLDER = "lm_nanogpt_sort"
DIGITS, VALUES = 6, 3
GROUPS = ("changed", "digits", "written", "answering")


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.c_attn(x).split(width, -1)
        )
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        pattern = scores.masked_fill(~past, float("-inf")).softmax(-1)
        return self.c_proj((pattern @ v).transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Sorter(nn.Module):
    """Digits, then their sorted sequence, one token at a time."""

    def __init__(self, vocabulary: int, context: int, width: int, heads: int, layers: int):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, width),
                "wpe": nn.Embedding(context, width),
                "h": nn.ModuleList(Block(width, heads) for _ in range(layers)),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        parts = self.transformer
        x = parts["wte"](input_ids) + parts["wpe"](torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in parts["h"].children():
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


def tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the named float32 tensors of one file."""
    record = json.loads(path.read_text(encoding="utf-8"))
    config = record.pop("config")
    return config, {
        name: torch.frombuffer(bytearray(base64.b64decode(item["data"])), dtype=torch.float32).reshape(item["shape"])
        for name, item in record.items()
    }


def load(data: Path) -> Sorter:
    """The trained network."""
    config, weights = tensors(data / FOLDER / "gpt-nano-sort-model.json")
    shape = (config[key] for key in ("vocab_size", "block_size", "n_embd", "n_head", "n_layer"))
    module = Sorter(*shape)
    masks = [name for name in weights if name.endswith(".attn.bias")]
    module.load_state_dict({name: value for name, value in weights.items() if name not in masks})
    return module.eval()


def published(data: Path) -> dict[str, Tensor]:
    """Activations that the authors published, of three inputs."""
    return tensors(data / FOLDER / "gpt-nano-sort-t0-partials.json")[1]


def every_input() -> Tensor:
    """All 729 sequences of six digits, (input, 6)."""
    return torch.tensor(list(product(range(VALUES), repeat=DIGITS)))


def sequences(digits: Tensor) -> Tensor:
    """Digits followed by all but the last of the sorted digits, (input, 11)."""
    return torch.cat((digits, digits.sort(-1).values[:, :-1]), -1)


@dataclass(frozen=True)
class Pairs:
    """Inputs that differ in one digit, and with it in the next token of the answer.

    Args:
        clean: digits and as much of the answer as is the same in both, one row an example.
        corrupted: the same with one digit changed.
        right: the next token of the clean row.
        wrong: that of the corrupted row.
        groups: ``changed`` the digit that differs, ``digits`` the others, ``written`` the answer so far, ``answering``
            the last position, from which the next token is read.
    """

    clean: list[list[int]]
    corrupted: list[list[int]]
    right: list[int]
    wrong: list[int]
    groups: dict[str, list[list[int]]]


def pairs(n: int, seed: int = 0) -> Pairs:
    """`n` random pairs of different inputs; each change of one digit that changes the answer is as likely."""
    rng = random.Random(seed)
    clean, corrupted, right, wrong = [], [], [], []
    groups: dict[str, list[list[int]]] = {name: [] for name in GROUPS}
    for digits in rng.sample(list(product(range(VALUES), repeat=DIGITS)), n):
        place = rng.randrange(DIGITS)
        other = list(digits)
        other[place] = rng.choice([value for value in range(VALUES) if value != digits[place]])
        answer, changed = sorted(digits), sorted(other)
        same = next(i for i in range(DIGITS) if answer[i] != changed[i])
        clean.append([*digits, *answer[:same]])
        corrupted.append([*other, *answer[:same]])
        right.append(answer[same])
        wrong.append(changed[same])
        last = DIGITS + same - 1
        groups["changed"].append([place])
        groups["digits"].append([i for i in range(DIGITS) if i not in (place, last)])
        groups["written"].append(list(range(DIGITS, last)))
        groups["answering"].append([last])
    return Pairs(clean, corrupted, right, wrong, groups)
