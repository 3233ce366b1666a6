"""The residual stream of a compiled network in another basis, and the check that behaviour is as before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.direction import Direction
from openwork.errors import TaskFailed
from openwork.zoo.compiled.assemble import blocks
from openwork.zoo.compiled.compile import Compiled
from openwork.zoo.transformer import Transformer

ROWS = 1500
"""Rows on which the behaviour of a form is checked."""


def rebased(
    compiled: Compiled,
    write: Float[Tensor, "before after"],
    read: Float[Tensor, "after before"],
    offset: Float[Tensor, " before"],
    form: object,
) -> Compiled:
    """A network in which x of the residual stream became x `write`, and is read as that times `read`, plus `offset`.

    Args:
        compiled: the network.
        write: what is written to the stream goes through it.
        read: what each part reads goes through it.
        offset: what is then added.
        form: of which the result is the form.

    Returns:
        the network, with its directions in the new stream.

    Raises:
        TaskFailed: if it answers otherwise.
    """
    return checked(rebase(compiled, write, read, offset, form))


def rebase(compiled: Compiled, write: Tensor, read: Tensor, offset: Tensor, form: object) -> Compiled:
    """As `rebased`, without the check."""
    network = in_basis(compiled.network, write, read, offset)
    directions = {
        name: Direction(d.site, torch.as_tensor(d.array.numpy()).double() @ write.double(), d.origin)
        for name, d in compiled.known.directions.items()
    }
    known = replace(compiled.known, directions=directions)
    return replace(compiled, network=network, known=known, forms=(*compiled.forms, form))


@torch.no_grad()
def in_basis(network: Transformer, write: Tensor, read: Tensor, offset: Tensor) -> Transformer:
    """The network alone; see `rebased`."""
    write, read, offset = write.double(), read.double(), offset.double()
    made = copied(network, write.shape[1])
    for old, new in zip(_written(network), _written(made), strict=True):
        new.copy_((old.double() @ write).to(new))
    for old, new in zip(readers(network), readers(made), strict=True):
        new.weight.copy_((old.weight.double() @ read.T).to(new.weight))
        new.bias.copy_((old.bias.double() + old.weight.double() @ offset).to(new.bias))
    return made


def copied(network: Transformer, width: int) -> Transformer:
    """A copy of another width, with all parameters that are of the same shape."""
    # the layers' own initialisation draws from the global generator
    with torch.random.fork_rng(devices=[]):
        made = Transformer(replace(network.config, width=width)).eval()
    with torch.no_grad():
        for old, new in zip(network.parameters(), made.parameters(), strict=True):
            if old.shape == new.shape:
                new.copy_(old)
    return made


def readers(network: Transformer) -> Iterator[nn.Linear]:
    """The linear maps that read the residual stream."""
    for block in blocks(network):
        if hasattr(block, "attn"):
            yield from (block.attn.q, block.attn.k, block.attn.v)
        if hasattr(block, "mlp"):
            yield block.mlp.up
    yield network.unembed


def _written(network: Transformer) -> Iterator[Tensor]:
    """The parameters that are written to the residual stream, along their last axis."""
    yield from (network.tokens.weight, network.places.weight)
    for block in blocks(network):
        if hasattr(block, "attn"):
            yield from (block.attn.o.weight.T, block.attn.o.bias)
        if hasattr(block, "mlp"):
            yield from (block.mlp.down.weight.T, block.mlp.down.bias)


def checked(compiled: Compiled) -> Compiled:
    """The network, if it answers `ROWS` random rows as the program does.

    Raises:
        TaskFailed: if it does not.
    """
    if not behaves(compiled):
        right, asked = accuracy(compiled)
        raise TaskFailed(
            f"expected {compiled.program.name!r} to behave as before when {compiled.forms[-1]}; {asked - right} of "
            f"{asked} answers changed: make the form milder or take another seed"
        )
    return compiled


def behaves(compiled: Compiled) -> bool:
    """Whether it answers `ROWS` random rows as the program does."""
    right, asked = accuracy(compiled)
    return right == asked


@torch.no_grad()
def accuracy(compiled: Compiled, rows: int = ROWS) -> tuple[int, int]:
    """How many answers of random rows are right.

    Returns:
        (right, asked).
    """
    program = compiled.program
    sample = list(islice(program.rows(most=rows, otherwise=rows), rows))
    best = compiled.network(torch.tensor(program.encode(sample))).logits.argmax(-1).tolist()
    pairs = [
        (answer, program.domain.words[token])
        for row, tokens in zip(sample, best, strict=True)
        for answer, token in zip(program.algorithm(row), tokens, strict=True)
        if answer is not None
    ]
    return sum(answer == word for answer, word in pairs), len(pairs)
