"""A transformer of random weights over which a mechanism is written by hand.

It has no norm on the residual stream, which is made of equal parts with a meaning each; attention heads are as wide as
a part. What is not written by hand stays random: it does real work, that has nothing to do with the mechanism.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

SPACE = 32
"""Channels of each part of the residual stream, and of each head."""
PARTS = 4
WIDTH = PARTS * SPACE
SHARP = 40.0
"""Attention score of a match between unit vectors."""


@dataclass(frozen=True)
class Shape:
    """The shape of a handmade network.

    Args:
        vocabulary: number of token ids.
        blocks: number of blocks.
        heads: heads of each block.
        mlp: hidden units of the MLP of each block; 0 for attention alone.
        normed: whether an RMS norm without weights stands before each MLP.
        activation: of the MLPs.
        context: most tokens.
        noise: size of what every head and MLP that is not written by hand adds to the residual stream.
    """

    vocabulary: int
    blocks: int = 2
    heads: int = 12
    mlp: int = 0
    normed: bool = False
    activation: Literal["gelu", "relu"] = "gelu"
    context: int = 96
    noise: float = 0.15


class Attention(nn.Module):
    """Causal multi-head attention; each head is random until it is planted."""

    def __init__(self, shape: Shape, generator: torch.Generator):
        super().__init__()
        self.heads = shape.heads
        inner = shape.heads * SPACE
        self.q, self.k, self.v = (nn.Linear(WIDTH, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, WIDTH, bias=False)
        with torch.no_grad():
            for linear, size in ((self.q, 1.0), (self.k, 1.0), (self.v, 1.0), (self.o, shape.noise)):
                linear.weight.copy_(size * torch.randn(linear.weight.shape, generator=generator) / SPACE**0.5)

    def forward(self, x: Float[Tensor, "batch position channel"]) -> Float[Tensor, "batch position channel"]:
        """What the layer adds to the residual stream."""
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, self.heads, SPACE).transpose(1, 2) for f in (self.q, self.k, self.v))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(z.transpose(1, 2).reshape(batch, length, -1))

    @torch.no_grad()
    def plant(
        self, head: int, query: slice, key: slice, turn: Float[Tensor, "a b"], read: slice, write: slice, share: float
    ) -> None:
        """Make a head look from the `query` part, turned, to the `key` part, and move the `read` to the `write` part.

        Args:
            head: which head.
            query: the part of the residual stream that queries read.
            key: the part that keys read.
            turn: the matrix that takes what a query reads to the key that it looks for.
            read: the part that values read.
            write: the part that the output goes to.
            share: how much of it.
        """
        rows = slice(head * SPACE, (head + 1) * SPACE)
        for linear in (self.q, self.k, self.v):
            linear.weight[rows] = 0
        self.q.weight[rows, query] = SHARP * SPACE**0.5 * turn
        self.k.weight[rows, key] = torch.eye(SPACE)
        self.v.weight[rows, read] = torch.eye(SPACE)
        self.o.weight[:, rows] = 0
        self.o.weight[write, rows] = share * torch.eye(SPACE)


class Block(nn.Module):
    """Attention, and an MLP if the shape has one."""

    def __init__(self, shape: Shape, generator: torch.Generator):
        super().__init__()
        self.attn = Attention(shape, generator)
        self.mlp: nn.Sequential | None = None
        if shape.mlp:
            self.norm = nn.RMSNorm(WIDTH, elementwise_affine=False) if shape.normed else None
            between = nn.ReLU() if shape.activation == "relu" else nn.GELU()
            self.mlp = nn.Sequential(nn.Linear(WIDTH, shape.mlp), between, nn.Linear(shape.mlp, WIDTH))
            with torch.no_grad():
                for parameter in self.mlp.parameters():
                    parameter.copy_(shape.noise * torch.randn(parameter.shape, generator=generator) / 8)

    def forward(self, x: Float[Tensor, "batch position channel"]) -> Float[Tensor, "batch position channel"]:
        """The residual stream after this block."""
        x = x + self.attn(x)
        if self.mlp is None:
            return x
        return x + self.mlp(x if self.norm is None else self.norm(x))

    @property
    def layers(self) -> tuple[nn.Linear, nn.Linear]:
        """Up- and down-projection of the MLP."""
        assert self.mlp is not None
        up, down = self.mlp[0], self.mlp[2]
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        return up, down


class Handmade(nn.Module):
    """Embeddings, blocks and unembedding; embeddings and unembedding are zero until they are written."""

    def __init__(self, shape: Shape, generator: torch.Generator):
        super().__init__()
        self.shape = shape
        # the layers' own initialisation, overwritten below, draws from the global generator
        with torch.random.fork_rng(devices=[]):
            self.tokens = nn.Embedding(shape.vocabulary, WIDTH)
            self.places = nn.Embedding(shape.context, WIDTH)
            self.blocks = nn.ModuleList(Block(shape, generator) for _ in range(shape.blocks))
            self.unembed = nn.Linear(WIDTH, shape.vocabulary, bias=False)
        for module in (self.tokens, self.places, self.unembed):
            nn.init.zeros_(module.weight)

    def forward(self, input_ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch read vocabulary"]:
        """Logits of the next token, at every position or at those alone that a replay reads."""
        x = self.tokens(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)

    def block(self, number: int) -> Block:
        """One of the blocks."""
        found = self.blocks[number]
        assert isinstance(found, Block)
        return found


def codes(count: int, generator: torch.Generator) -> Float[Tensor, "count channel"]:
    """Random unit vectors, as many as there are tokens."""
    return F.normalize(torch.randn(count, SPACE, generator=generator), dim=-1)


def paces(generator: torch.Generator) -> Float[Tensor, " frequency"]:
    """The angles by which the code of a place turns from one place to the next."""
    return torch.rand(SPACE // 2, generator=generator) * torch.pi


def place_codes(context: int, pace: Float[Tensor, " frequency"]) -> Float[Tensor, "position channel"]:
    """A unit vector for each place."""
    angle = torch.arange(context)[:, None] * pace
    return torch.cat((angle.cos(), angle.sin()), 1) / (SPACE // 2) ** 0.5


def back(pace: Float[Tensor, " frequency"]) -> Float[Tensor, "a b"]:
    """The matrix that takes the code of a place to the code of the place before it."""
    cos, sin = torch.diag(pace.cos()), torch.diag(pace.sin())
    return torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1)))
