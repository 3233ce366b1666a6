"""A `Transformer` run edge by edge: each part reads, from each earlier part, this run or another example's.

The residual stream is a sum of what the embedding, the heads and the MLPs wrote. Kept apart, each of these *senders*
can be handed to each *receiver* (the query, key or value of a head, the input of an MLP, the logits) either as it is in
this run or as it was in the unedited run of another example. Every receiver norms the sum that it reads itself.

    edges(network)                                     # all of them, embed -> blocks.0.attn.q[0] first
    other = run(network, other_ids).contributions      # what every sender wrote, unedited
    keep = mask_of(network, circuit)                   # (receiver, sender): the edges of a circuit
    run(network, ids, keep, other).logits              # all edges outside the circuit resampled

It is differentiable in the weights, so that it also serves as a loss. Constants (the bias of an attention layer's
output) belong to no sender and are the same in every run.

Source: Conmy et al. 2023, Towards Automated Circuit Discovery (edges between heads' inputs, MLPs and logits).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openwork.errors import BadInput, UnknownName
from openwork.site import Edge, Site
from openwork.zoo.transformer import Block, Transformer, TransformerConfig


@dataclass(frozen=True)
class Traced:
    """A run with what every sender wrote.

    Args:
        logits: of the answer at every position.
        contributions: what each sender wrote to the residual stream, in the order of `senders`.
    """

    logits: Float[Tensor, "batch position vocabulary"]
    contributions: Float[Tensor, "sender batch position channel"]


def senders(network: Transformer) -> tuple[Site, ...]:
    """What writes to the residual stream, in order: the embedding, then by layer its heads and its MLP."""
    return _parts(network.config)[0]


def receivers(network: Transformer) -> tuple[Site, ...]:
    """What reads it, in order: by layer the queries, keys and values of its heads and its MLP; the logits last."""
    return _parts(network.config)[1]


def edges(network: Transformer) -> tuple[Edge, ...]:
    """Every sender as read by every later receiver, receiver by receiver."""
    wrote, reads, before = _parts(network.config)
    return tuple(Edge(s, r) for r, count in zip(reads, before, strict=True) for s in wrote[:count])


def mask_of(network: Transformer, kept: Iterable[Edge]) -> Bool[Tensor, "receiver sender"]:
    """A set of edges as the `keep` of `run`.

    Args:
        network: the network.
        kept: edges of it.

    Returns:
        True at the kept edges.

    Raises:
        UnknownName: for an edge that the network does not have; it names the nearest.
    """
    wrote, reads, before = _parts(network.config)
    row, column = ({site: i for i, site in enumerate(sites)} for sites in (reads, wrote))
    keep = torch.zeros(len(reads), len(wrote), dtype=torch.bool)
    for edge in kept:
        at, source = row.get(edge.receiver), column.get(edge.sender)
        if at is None or source is None or source >= before[at]:
            raise UnknownName.among("edge", str(edge), map(str, edges(network)))
        keep[at, source] = True
    return keep


def run(
    network: Transformer,
    input_ids: Int[Tensor, "batch position"],
    keep: Bool[Tensor, "*batch receiver sender"] | None = None,
    other: Float[Tensor, "sender batch position channel"] | None = None,
    unedited: Float[Tensor, "sender batch position channel"] | None = None,
) -> Traced:
    """Run with some edges taken from other examples.

    Args:
        network: the network; the sizes of its layers are free.
        input_ids: token ids, rows of one length without padding.
        keep: the edges that carry this run, one set for all examples or one for each; the others carry `other`. What
            it says of edges that do not exist is ignored.
        other: the contributions of the unedited runs of other examples, row i for row i of `input_ids`.
        unedited: the contributions of the unedited run of `input_ids`, if at hand: what stands before the first edge
            that is not kept is then not computed again.

    Returns:
        logits and contributions; without `keep`, those of the plain forward.

    Raises:
        BadInput: if `keep` and `other` are not given together, or do not fit the network and the inputs.
    """
    wrote, reads, _ = _parts(network.config)
    _check(network.config, input_ids, keep, (other, unedited), (len(reads), len(wrote)))
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    stream = _Stream(network.embed(input_ids, places)[None], keep, other, unedited)
    for number, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        if heads := network.config.heads[number]:
            known = stream.known(3 * heads, heads)
            stream.write(_attend(block, *stream.read(3 * heads)) if known is None else known, block.attn.o.bias)
        if network.config.mlp[number]:
            known = stream.known(1, 1)
            stream.write(block.mlp(block.norm2(stream.read(1)[0][0]))[None] if known is None else known)
    logits = network.unembed(network.final_norm(stream.read(1)[0][0]))
    return Traced(logits, torch.cat([written.own for written in stream.parts]))


class _Written:
    """What the senders of one sub-layer wrote in this run, and in the others' if that is given."""

    def __init__(self, own: Tensor, other: Tensor | None):
        self.own, self.total, self._other = own, own.sum(0), other

    @cached_property
    def other(self) -> Tensor:
        """The sum over senders of what they wrote in the others' run, (batch, position, channel)."""
        assert self._other is not None
        return self._other.sum(0)

    @cached_property
    def difference(self) -> Tensor:
        """This run minus the others', (sender, batch, position, channel)."""
        assert self._other is not None
        return self.own - self._other


class _Stream:
    """The residual stream as its summands; receivers read in their order, senders write in theirs."""

    def __init__(self, embedded: Tensor, keep: Tensor | None, other: Tensor | None, unedited: Tensor | None):
        self.keep, self.other, self.unedited = keep, other, unedited
        self.constant = embedded.new_zeros(())
        self.parts: list[_Written] = []
        self.readers = self.senders = 0
        self.edited = False
        self.write(embedded)

    def write(self, contributions: Tensor, constant: Tensor | None = None) -> None:
        """What the next senders wrote, (sender, batch, position, channel), and a vector that belongs to none."""
        end = self.senders + len(contributions)
        self.parts.append(_Written(contributions, None if self.other is None else self.other[self.senders : end]))
        self.senders = end
        if constant is not None:
            self.constant = self.constant + constant

    def known(self, readers: int, count: int) -> Tensor | None:
        """What the next `count` senders wrote, if all that their `readers` read is as in the unedited run."""
        if self.keep is None or self.unedited is None:
            return None
        rows = self.keep[..., self.readers : self.readers + readers, : self.senders]
        self.edited = self.edited or not bool(rows.all())
        if self.edited:
            return None
        self.readers += readers
        return self.unedited[self.senders : self.senders + count]

    def read(self, count: int) -> tuple[Tensor, Tensor]:
        """What the next `count` receivers read.

        Returns:
            (the different sums that are read (sum, batch, position, channel), which of them each receiver reads).
        """
        first, self.readers = self.readers, self.readers + count
        if self.keep is None:
            total = sum((part.total for part in self.parts), self.constant)
            return total[None], torch.zeros(count, dtype=torch.long, device=total.device)
        rows = self.keep[..., first : first + count, : self.senders].movedim(-2, 0)
        unique, which = torch.unique(rows.flatten(1), dim=0, return_inverse=True)
        rows = unique.view(len(unique), *rows.shape[1:])
        equation = "us,sbpc->ubpc" if rows.ndim == 2 else "ubs,sbpc->ubpc"
        shared, by_row, start = self.constant, [], 0
        for part in self.parts:
            keep, start = rows[..., start : start + len(part.own)], start + len(part.own)
            if bool(keep.all()):
                shared = shared + part.total
                continue
            shared = shared + part.other
            if bool(keep.any()):
                by_row.append(torch.einsum(equation, keep.to(part.own), part.difference))
        total = sum(by_row, shared[None])
        return total.expand(len(unique), *total.shape[1:]), which


def _attend(block: Block, x: Float[Tensor, "sum batch position channel"], which: Int[Tensor, " receiver"]) -> Tensor:
    """What each head writes, (head, batch, position, channel), where receivers are its queries, keys and values."""
    attn, x = block.attn, block.norm1(x)
    reads = which.unflatten(0, (3, attn.heads))
    q, k, v = (_project(linear, x, read) for linear, read in zip((attn.q, attn.k, attn.v), reads, strict=True))
    z = F.scaled_dot_product_attention(q, k, v, is_causal=attn.causal)
    return torch.einsum("bhpd,chd->hbpc", z, attn.o.weight.unflatten(1, (attn.heads, -1)))


def _project(linear: nn.Linear, x: Float[Tensor, "sum batch position channel"], which: Int[Tensor, " head"]) -> Tensor:
    """Each head's part of a projection, of the sum that it reads: (batch, head, position, channel of the head)."""
    used = which.unique().tolist()
    if len(used) == 1:
        return linear(x[used[0]]).unflatten(-1, (len(which), -1)).transpose(1, 2)
    weight, bias = (tensor.unflatten(0, (len(which), -1)) for tensor in (linear.weight, linear.bias))
    readers = [(which == number).nonzero()[:, 0] for number in used]
    parts = [
        F.linear(x[number], weight[heads].flatten(0, 1), bias[heads].flatten()).unflatten(-1, (len(heads), -1))
        for number, heads in zip(used, readers, strict=True)
    ]
    return torch.cat(parts, -2)[..., torch.cat(readers).argsort(), :].transpose(1, 2)


@lru_cache(maxsize=256)
def _parts(config: TransformerConfig) -> tuple[tuple[Site, ...], tuple[Site, ...], tuple[int, ...]]:
    """Senders, receivers, and how many senders each receiver reads."""
    wrote, reads, before = [Site("embed")], [], []
    for number, (heads, units) in enumerate(zip(config.heads, config.mlp, strict=True)):
        path = f"blocks.{number}"
        reads += [Site(f"{path}.attn.{part}", (head,)) for part in "qkv" for head in range(heads)]
        before += [len(wrote)] * (3 * heads)
        wrote += [Site(f"{path}.attn.z", (head,)) for head in range(heads)]
        if units:
            reads.append(Site(f"{path}.mlp.in"))
            before.append(len(wrote))
            wrote.append(Site(f"{path}.mlp.out"))
    return tuple(wrote), (*reads, Site("logits")), (*before, len(wrote))


def _check(
    config: TransformerConfig,
    ids: Tensor,
    keep: Tensor | None,
    runs: tuple[Tensor | None, Tensor | None],
    sizes: tuple[int, int],
) -> None:
    if ids.shape[1] > config.context:
        raise BadInput(f"expected at most {config.context} tokens, got {ids.shape[1]}; cut the row")
    if (keep is None) != (runs[0] is None):
        raise BadInput("expected keep and other together; got one of them: edges not kept carry another example's run")
    if keep is not None and keep.shape not in (sizes, (len(ids), *sizes)):
        raise BadInput(
            f"expected keep of shape {sizes}, receivers by senders, or one for each of {len(ids)} examples; got "
            f"{tuple(keep.shape)}"
        )
    wanted = (sizes[1], *ids.shape, config.width)
    for given in runs:
        if given is not None and given.shape != wanted:
            raise BadInput(f"expected contributions of shape {wanted}, by sender; got {tuple(given.shape)}")
