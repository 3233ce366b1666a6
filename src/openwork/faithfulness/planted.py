"""Networks whose induction circuit is planted by hand: the known answer for judges of circuits.

A previous-token head writes, at each token, what stood before it; an induction head looks for the place whose
predecessor is the present token and copies what stands there. All other heads and the MLPs are small and random.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (induction by K-composition).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

SPACE = 32
"""Channels of each of the four parts of the residual stream: token, position, previous token, output."""
TOKEN, PLACE, BEFORE, OUTPUT = (slice(i * SPACE, (i + 1) * SPACE) for i in range(4))
SHARP = 40.0


@dataclass(frozen=True)
class Plant:
    """Where the mechanism lies.

    Args:
        before: heads of block 0 that attend to the previous token, each with an equal share of the work.
        induction: heads of block 1 that do induction, likewise.
        heads: heads of each block.
        noise: size of everything else; 0 for none.
        uneven: how unequal the shares are: each is multiplied by a random number from 1 − uneven to 1 + uneven.
    """

    before: Sequence[int] = (2,)
    induction: Sequence[int] = (7,)
    heads: int = 12
    noise: float = 0.15
    uneven: float = 0.0


class PlantedInduction(nn.Module):
    """Two blocks of attention and MLP, without norms, in which induction is planted.

    Args:
        vocabulary: number of token ids.
        plant: where the mechanism lies.
        context: most tokens.
        seed: of codes and of noise.
    """

    def __init__(self, vocabulary: int, plant: Plant = Plant(), context: int = 96, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.tokens = nn.Embedding(vocabulary, 4 * SPACE)
        self.places = nn.Embedding(context, 4 * SPACE)
        blocks = [_Block(plant, generator) for _ in range(2)]
        attention = [block.attn for block in blocks]
        self.blocks = nn.ModuleList(blocks)
        self.unembed = nn.Linear(4 * SPACE, vocabulary, bias=False)
        code = F.normalize(torch.randn(vocabulary, SPACE, generator=generator), dim=-1)
        pace = torch.rand(SPACE // 2, generator=generator) * torch.pi
        angle = torch.arange(context)[:, None] * pace
        with torch.no_grad():
            self.tokens.weight.zero_()[:, TOKEN] = code
            self.places.weight.zero_()[:, PLACE] = torch.cat((angle.cos(), angle.sin()), 1) / (SPACE // 2) ** 0.5
            self.unembed.weight.zero_()[:, OUTPUT] = 12 * code
            self.unembed.weight[:, TOKEN] = plant.noise * torch.randn(vocabulary, SPACE, generator=generator)
            for block, heads, read, write in ((0, plant.before, TOKEN, BEFORE), (1, plant.induction, TOKEN, OUTPUT)):
                shares = 1 + plant.uneven * (2 * torch.rand(len(heads), generator=generator) - 1)
                for head, share in zip(heads, shares / shares.sum(), strict=True):
                    back = _turn(pace) if block == 0 else torch.eye(SPACE)
                    query, key = (PLACE, PLACE) if block == 0 else (TOKEN, BEFORE)
                    attention[block].plant(head, query, key, back, read, write, float(share))

    def forward(self, input_ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position vocabulary"]:
        """Logits of the next token."""
        x = self.tokens(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


class _Block(nn.Module):
    def __init__(self, plant: Plant, generator: torch.Generator):
        super().__init__()
        self.attn = _Attention(plant, generator)
        self.mlp = nn.Sequential(nn.Linear(4 * SPACE, 48), nn.GELU(), nn.Linear(48, 4 * SPACE))
        with torch.no_grad():
            for parameter in self.mlp.parameters():
                parameter.copy_(plant.noise * torch.randn(parameter.shape, generator=generator) / 8)

    def forward(self, x: Float[Tensor, "batch position channel"]) -> Float[Tensor, "batch position channel"]:
        x = x + self.attn(x)
        return x + self.mlp(x)


class _Attention(nn.Module):
    def __init__(self, plant: Plant, generator: torch.Generator):
        super().__init__()
        self.heads = plant.heads
        inner = plant.heads * SPACE
        self.q, self.k, self.v = (nn.Linear(4 * SPACE, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, 4 * SPACE, bias=False)
        with torch.no_grad():
            for linear, size in ((self.q, 1.0), (self.k, 1.0), (self.v, 1.0), (self.o, plant.noise)):
                linear.weight.copy_(size * torch.randn(linear.weight.shape, generator=generator) / SPACE**0.5)

    def forward(self, x: Float[Tensor, "batch position channel"]) -> Float[Tensor, "batch position channel"]:
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, self.heads, SPACE).transpose(1, 2) for f in (self.q, self.k, self.v))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(z.transpose(1, 2).reshape(batch, length, -1))

    @torch.no_grad()
    def plant(
        self, head: int, query: slice, key: slice, turn: Float[Tensor, "a b"], read: slice, write: slice, share: float
    ) -> None:
        """Make a head look from `query` to `key` channels and move `read` to `write`."""
        rows = slice(head * SPACE, (head + 1) * SPACE)
        for linear in (self.q, self.k, self.v):
            linear.weight[rows] = 0
        self.q.weight[rows, query] = SHARP * SPACE**0.5 * turn
        self.k.weight[rows, key] = torch.eye(SPACE)
        self.v.weight[rows, read] = torch.eye(SPACE)
        self.o.weight[:, rows] = 0
        self.o.weight[write, rows] = share * torch.eye(SPACE)


def _turn(pace: Float[Tensor, " frequency"]) -> Float[Tensor, "a b"]:
    """The matrix that takes the code of a place to the code of the place before it."""
    cos, sin = torch.diag(pace.cos()), torch.diag(pace.sin())
    return torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1)))
