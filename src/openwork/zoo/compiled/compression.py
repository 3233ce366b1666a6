"""Superposition: a residual stream squeezed into fewer dimensions than it has directions.

What is written goes through one matrix, what is read through another one and an offset, the same for every layer. Both
are trained on what each reader (queries, keys, values, MLP units, logits) makes of the stream, with errors measured in
units of what that reader bears, and large errors counting most.

Source: Elhage et al. 2022, Toy Models of Superposition (more features than dimensions, at the price of interference);
Lindner et al. 2023, Tracr (compressing a compiled residual stream by a learned projection).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openwork.zoo.compiled.assemble import blocks
from openwork.zoo.transformer import Transformer

SCORE, VALUE, UNIT, LOGIT = 4.0, 0.15, 0.25, 2.0
"""Errors that readers bear: of attention scores (nats), of values, of MLP inputs, of logits (nats)."""


@dataclass(frozen=True)
class Reading:
    """One part of the network that reads the residual stream.

    Args:
        states: what it reads in the uncompressed network.
        map: (width, output) what it makes of it, in units of the error that it bears.
    """

    states: Float[Tensor, "state width"]
    map: Float[Tensor, "width output"]


@dataclass(frozen=True)
class Squeeze:
    """The matrices of a compression; see `openwork.zoo.compiled.rebase.rebased`.

    Args:
        write: into the narrow stream.
        read: out of it.
        offset: added to what is read.
    """

    write: Float[Tensor, "before after"]
    read: Float[Tensor, "after before"]
    offset: Float[Tensor, " before"]


@torch.no_grad()
def readings(network: Transformer, ids: Int[Tensor, "row position"]) -> Iterator[Reading]:
    """Every reader of a network with what it reads on some rows."""
    x = network.embed(ids, torch.arange(ids.shape[1])[None])
    for block in blocks(network):
        if hasattr(block, "attn"):
            attn = block.attn
            channels = network.config.head_width
            k, q = (linear(x).flatten(0, 1).abs().amax(0) for linear in (attn.k, attn.q))
            states = x.flatten(0, 1)
            yield Reading(states, attn.q.weight.T * k / channels**0.5 / SCORE)
            yield Reading(states, attn.k.weight.T * q / channels**0.5 / SCORE)
            yield Reading(states, attn.v.weight.T / VALUE)
            x = x + attn(x)
        if hasattr(block, "mlp"):
            yield Reading(x.flatten(0, 1), block.mlp.up.weight.T / UNIT)
            x = x + block.mlp(x)
    yield Reading(x.flatten(0, 1), network.unembed.weight.T / LOGIT)
