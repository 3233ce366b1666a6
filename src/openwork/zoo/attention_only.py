"""A transformer of attention layers alone, whose positions enter queries and keys only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class AttentionOnlyConfig:
    """Shape of an `AttentionOnly` network.

    Attributes:
        vocabulary: number of token ids.
        width: channels of the residual stream.
        heads: attention heads a layer; divides `width`.
        layers: number of attention layers.
        context: longest input, in tokens.
        embedding_sd: standard deviation of the token embeddings at initialisation.
    """

    vocabulary: int
    width: int = 192
    heads: int = 6
    layers: int = 2
    context: int = 128
    embedding_sd: float = 0.3


@dataclass(frozen=True)
class AttentionOnlyOutput:
    """What `AttentionOnly` returns.

    Attributes:
        logits: unnormalised log-probabilities of the next token, (batch, position, vocabulary).
    """

    logits: Float[Tensor, "batch position vocabulary"]


class Attention(nn.Module):
    """Causal multi-head attention whose queries and keys, and only they, see a position vector."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"expected heads to divide width, got width {width} and {heads} heads")
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch position channel"],
        places: Float[Tensor, "#batch position channel"],
        allowed: Bool[Tensor, "batch 1 position position"] | None = None,
    ) -> Float[Tensor, "batch position channel"]:
        """Attend.

        Args:
            x: normed residual stream.
            places: position vectors, added to what queries and keys read.
            allowed: which (query, key) pairs may attend; None means all causal ones.

        Returns:
            What the layer adds to the residual stream.
        """
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        placed = x + places
        q = self.q(placed).view(shape).transpose(1, 2)
        k = self.k(placed).view(shape).transpose(1, 2)
        v = self.v(x).view(shape).transpose(1, 2)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=allowed is None)
        return self.o(z.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """One layer: the residual stream plus attention over its layer norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = Attention(width, heads)

    def forward(
        self,
        x: Float[Tensor, "batch position channel"],
        places: Float[Tensor, "#batch position channel"],
        allowed: Bool[Tensor, "batch 1 position position"] | None = None,
    ) -> Float[Tensor, "batch position channel"]:
        """The residual stream after this layer; arguments as in `Attention.forward`."""
        return x + self.attn(self.norm(x), places, allowed)


class AttentionOnly(nn.Module):
    """Embedding, attention layers, final norm, unembedding.

    Since no position is ever written to the residual stream, what a head moves is about tokens, and a head that
    attends by offset does so through its queries and keys: the previous-token head is readable from weights.
    """

    def __init__(self, config: AttentionOnlyConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.unembed = nn.Linear(config.width, config.vocabulary, bias=False)
        nn.init.normal_(self.embed.weight, std=config.embedding_sd)
        nn.init.normal_(self.places.weight, std=config.embedding_sd)

    def forward(
        self,
        input_ids: Int[Tensor, "batch position"],
        attention_mask: Int[Tensor, "batch position"] | None = None,
        position_ids: Int[Tensor, "#batch position"] | None = None,
    ) -> AttentionOnlyOutput:
        """Predict the next token at every position.

        Args:
            input_ids: token ids.
            attention_mask: 1 where there is a token, 0 where there is padding; None means no padding.
            position_ids: index of each token in its text; None counts the unmasked tokens of each row from zero.

        Returns:
            The logits. Rows at padding are finite and mean nothing.

        Raises:
            ValueError: if the input is longer than the context.
        """
        length = input_ids.shape[1]
        if length > self.config.context:
            raise ValueError(f"expected at most {self.config.context} tokens, got {length}; cut the text")
        if position_ids is None:
            position_ids = count_tokens(input_ids, attention_mask)
        allowed = None if attention_mask is None else causal_mask(attention_mask)
        places = self.places(position_ids)
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, places, allowed)
        return AttentionOnlyOutput(self.unembed(self.final_norm(x)))


def count_tokens(
    input_ids: Int[Tensor, "batch position"], mask: Int[Tensor, "batch position"] | None
) -> Int[Tensor, "#batch position"]:
    """The index of each token in its row, which padding before it does not move."""
    if mask is None:
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def causal_mask(mask: Int[Tensor, "batch position"]) -> Bool[Tensor, "batch 1 position position"]:
    """Which (query, key) pairs may attend: no token sees what comes after it, none but itself sees padding."""
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    # a padding row that may attend to nothing would be NaN: let every row attend to itself
    return ((causal & mask.bool()[:, None, :]) | itself)[:, None]
