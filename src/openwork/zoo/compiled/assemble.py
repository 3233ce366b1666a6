"""Crafted heads and units, written into the parameters of a `Transformer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.zoo.compiled.craft import Basis, Head, Units, units
from openwork.zoo.compiled.language import Variable
from openwork.zoo.compiled.program import Program
from openwork.zoo.compiled.wiring import Placement
from openwork.zoo.transformer import MLP, Attention, Block, Transformer, TransformerConfig


def assemble(
    placement: Placement,
    heads: Mapping[Variable, Head],
    basis: Basis,
    words: int,
    causal: bool,
    rng: np.random.Generator,
) -> Transformer:
    """The transformer of a placement, with embeddings and unembedding still zero.

    Args:
        placement: which part computes what.
        heads: the weights of each variable that attention computes.
        basis: of the residual stream.
        words: size of the vocabulary.
        causal: whether a position sees only itself and what came before.
        rng: of the heads that compute nothing.
    """
    mlps = [[units(v, basis) for v in layer] for layer in placement.maps]
    config = TransformerConfig(
        vocabulary=words,
        context=basis.positions,
        width=basis.width,
        heads=[len(layer) for layer in placement.heads],
        mlp=[sum(len(part.up) for part in layer) for layer in mlps],
        head_width=max((each.channels for each in heads.values()), default=1),
        causal=causal,
    )
    # the layers' own initialisation, overwritten below, draws from the global generator
    with torch.random.fork_rng(devices=[]):
        network = Transformer(config).eval()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    for block, owners, parts in zip(blocks(network), placement.heads, mlps, strict=True):
        for number, owner in enumerate(owners):
            rows = slice(number * config.head_width, (number + 1) * config.head_width)
            if owner is None:
                _write_random_head(block.attn, rows, basis, rng)
            else:
                _write_head(block.attn, rows, heads[owner])
        if parts:
            _write_units(block.mlp, parts)
    return network


def embed(network: Transformer, basis: Basis, tokens: Variable, indices: Variable) -> None:
    """Write the embeddings of words and positions."""
    _write(network.tokens.weight, basis.space(tokens))
    _write(network.places.weight, basis.space(indices))


@torch.no_grad()
def unembed(network: Transformer, basis: Basis, output: Variable, program: Program, lead: float) -> None:
    """Let the word for each value of `output` have `lead` as its logit, beside what it has already."""
    for value in output.values:
        answer = program.domain.words.index(program.word(value))
        network.unembed.weight[answer] += torch.tensor(lead * basis.direction(output, value))


def blocks(network: Transformer) -> list[Block]:
    """The layers."""
    return [cast(Block, block) for block in network.blocks]


def _write_head(attention: Attention, rows: slice, head: Head) -> None:
    channels = rows.stop - rows.start
    scoring, moving = slice(rows.start, rows.start + len(head.q)), slice(rows.start, rows.start + len(head.v))
    _write(attention.q.weight[scoring], channels**0.5 * head.q)
    _write(attention.q.bias[scoring], channels**0.5 * head.q_bias)
    _write(attention.k.weight[scoring], head.k)
    _write(attention.k.bias[scoring], head.k_bias)
    _write(attention.v.weight[moving], head.v)
    _write(attention.o.weight[:, moving], head.o.T)


def _write_random_head(attention: Attention, rows: slice, basis: Basis, rng: np.random.Generator) -> None:
    """A head that looks somewhere and moves something, into channels that nothing reads."""
    channels, unread = rows.stop - rows.start, basis.unread.stop - basis.unread.start
    for linear in (attention.q, attention.k, attention.v):
        _write(linear.weight[rows, : basis.unread.start], rng.normal(size=(channels, basis.unread.start)))
    _write(attention.o.weight[basis.unread, rows], rng.normal(size=(unread, channels)) / channels**0.5)


def _write_units(mlp: MLP, parts: list[Units]) -> None:
    _write(mlp.up.weight, np.vstack([part.up for part in parts]))
    _write(mlp.up.bias, np.concatenate([part.up_bias for part in parts]))
    _write(mlp.down.weight, np.vstack([part.down for part in parts]).T)
    _write(mlp.down.bias, np.sum([part.down_bias for part in parts], axis=0))


@torch.no_grad()
def _write(part: Float[Tensor, ...], values: Float[np.ndarray, ...]) -> None:
    """Copy numbers into a part of a parameter."""
    part.copy_(torch.as_tensor(values))
