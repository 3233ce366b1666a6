"""Superposition: a residual stream squeezed into fewer dimensions than it has directions.

What is written goes through one matrix, what is read through another one and an offset, the same in every layer. Errors
are those of what each reader (queries, keys, values, MLP units, logits) makes of the stream, in units of what that
reader bears. The matrices that make the mean square error smallest have a closed form; descent from there makes large
errors smaller, which is what behaviour depends on.

Source: Elhage et al. 2022, Toy Models of Superposition (more features than dimensions, at the price of interference);
Lindner et al. 2023, Tracr (compressing a compiled residual stream by a learned projection); Izenman 1975, Reduced-rank
regression for the multivariate linear model (the closed form).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from openwork.errors import CorruptFile, UnknownName
from openwork.zoo import edgewise
from openwork.zoo.compiled.assemble import blocks
from openwork.zoo.compiled.compile import Compiled
from openwork.zoo.transformer import Attention, Transformer

SCORE, EVEN_SCORE, VALUE, UNIT, LOGIT = 4.0, 0.4, 0.15, 0.25, 2.0
"""Errors that readers bear: of attention scores (nats), where one key takes all and where several share; of values, of
MLP inputs, of logits (nats)."""
SHIPPED = Path(__file__).parent / "compressed.safetensors"
"""The matrices of the plain programs, which `openwork.recipes.compressed` makes."""
STATES = 256
"""States of each reader that a step of descent looks at."""


@dataclass(frozen=True)
class SqueezeSettings:
    """The knobs of a compression.

    Args:
        steps: of descent after the closed form.
        rows: rows of the domain whose states are fitted.
        rate: first learning rate; it falls to zero along a cosine.
        power: of errors in the loss; the larger, the more the largest count.
        seed: of rows and steps.
    """

    steps: int = 0
    rows: int = 2000
    rate: float = 0.01
    power: int = 4
    seed: int = 1


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


@dataclass(frozen=True)
class Reading:
    """A part of the network that reads the residual stream.

    Args:
        states: what it reads, each state once.
        map: what it makes of it, in units of the error that it bears.
    """

    states: Float[Tensor, "state width"]
    map: Float[Tensor, "width output"]


def squeezes(
    compiled: Compiled, widths: Iterable[int], settings: SqueezeSettings = SqueezeSettings()
) -> Iterator[Squeeze]:
    """The matrices that squeeze a network into fewer channels.

    Args:
        compiled: the network.
        widths: channels to squeeze it into, one after the other.
        settings: the knobs.
    """
    program = compiled.program
    rows = program.rows(most=settings.rows, otherwise=settings.rows, seed=settings.seed)
    parts = list(_readings(compiled.network, torch.tensor(program.encode(rows))))
    for width in widths:
        first = _closed_form(parts, width)
        yield _descended(first, parts, settings) if settings.steps else first


def shipped(program: str) -> Squeeze:
    """The matrices that ship for a plain program.

    Raises:
        UnknownName: if none ship for it.
        CorruptFile: if their file is damaged.
    """
    try:
        with safe_open(SHIPPED, "pt") as file:
            names = {key.rpartition(".")[0] for key in file.keys()}  # noqa: SIM118  # not a dict
            if program not in names:
                raise UnknownName.among("compressed program", program, names)
            return Squeeze(*(file.get_tensor(f"{program}.{part}") for part in ("write", "read", "offset")))
    except (SafetensorError, OSError) as error:
        raise CorruptFile(f"expected matrices of the compressed programs in {SHIPPED.name}; {error}") from error


@torch.no_grad()
def _readings(network: Transformer, ids: Int[Tensor, "row position"]) -> Iterator[Reading]:
    """Every reader of a network with what it reads: on some rows, and where each part wrote on a row of its own.

    The latter keeps parts apart that say the same of a row: without, what one of them wrote may come to be read from
    the other, and the answer is no longer known.
    """
    wrote = edgewise.run(network, ids).contributions
    generator = torch.Generator().manual_seed(0)
    mixed = torch.stack([part[torch.randperm(len(ids), generator=generator)] for part in wrote])
    so_far = 1
    for block in blocks(network):
        if hasattr(block, "attn"):
            maps = _attention_map(block.attn, wrote[:so_far].sum(0))
            yield _reading((wrote[:so_far], mixed[:so_far]), *maps)
            so_far += block.attn.heads
        if hasattr(block, "mlp"):
            yield _reading((wrote[:so_far], mixed[:so_far]), block.mlp.up.weight.T / UNIT)
            so_far += 1
    yield _reading((wrote, mixed), network.unembed.weight.T / LOGIT)


def _reading(written: Sequence[Float[Tensor, "sender row position width"]], *maps: Float[Tensor, "width _"]) -> Reading:
    states = torch.cat([parts.sum(0).flatten(0, 1) for parts in written]).double()
    # states are told apart by a random projection, as sorting whole states takes long
    along = torch.randn(states.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, which = (states @ along).round(decimals=4).unique(return_inverse=True)
    last_of = torch.zeros(int(which.max()) + 1, dtype=torch.long).scatter(0, which, torch.arange(len(states)))
    return Reading(states[last_of], torch.cat(maps, 1).double())


def _attention_map(attn: Attention, x: Float[Tensor, "row position width"]) -> list[Float[Tensor, "width _"]]:
    """What an error in queries, keys and values comes to, next to the largest key or query that it meets."""
    q, k = (f(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for f in (attn.q, attn.k))
    scale = q.shape[-1] ** 0.5
    even = _shares(q @ k.transpose(2, 3) / scale, attn.causal)
    bears = torch.where(even, EVEN_SCORE, SCORE).repeat_interleave(q.shape[-1])
    largest_q, largest_k = (part.abs().amax((0, 2)).flatten() for part in (q, k))
    return [
        attn.q.weight.T * largest_k / scale / bears,
        attn.k.weight.T * largest_q / scale / bears,
        attn.v.weight.T / VALUE,
    ]


def _shares(scores: Float[Tensor, "row head query key"], causal: bool) -> Bool[Tensor, " head"]:
    """Whether several keys ever share a query of each head."""
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0]).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1).amax(-1) < 0.99).flatten(2).any(-1).any(0)


def _closed_form(parts: Sequence[Reading], width: int) -> Squeeze:
    """The least mean square error: the largest singular vectors of whitened states as all readers see them."""
    states = torch.cat([part.states for part in parts])
    mean = states.mean(0)
    variance, axes = torch.linalg.eigh((states - mean).T @ (states - mean) / len(states))
    varies = variance > 1e-9
    root = axes[:, varies] * variance[varies].sqrt()
    seen = torch.linalg.svd(root.T @ torch.cat([part.map for part in parts], 1), full_matrices=False).U[:, :width]
    write, read = axes[:, varies] / variance[varies].sqrt() @ seen, seen.T @ root.T
    # columns of length one, so that no channel is much larger than another
    sizes = write.norm(dim=0)
    write, read = write / sizes, read * sizes[:, None]
    return Squeeze(write, read, mean - mean @ write @ read)


def _descended(first: Squeeze, parts: Sequence[Reading], settings: SqueezeSettings) -> Squeeze:
    generator = torch.Generator().manual_seed(settings.seed)
    write, read, offset = (x.float().requires_grad_() for x in (first.write, first.read, first.offset))
    optimizer = torch.optim.Adam([write, read, offset], settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    pairs = [(part.states.float(), part.map.float()) for part in parts]
    for _ in range(settings.steps):
        loss = torch.zeros(())
        through = write @ read
        for states, read_as in pairs:
            some = states[torch.randint(len(states), (STATES,), generator=generator)]
            errors = (some @ through + offset - some) @ read_as
            loss = loss + errors.abs().pow(settings.power).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Squeeze(write.detach(), read.detach(), offset.detach())
