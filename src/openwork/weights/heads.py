"""The weights of every head, read off the running network: query, key, value and output matrices, and their circuits.

    heads = Heads.of(net)
    heads.ov(0, 3)                 # Factored (channel, channel): what a channel of the stream makes the head write
    heads.qk(1, 7, distance=4)     # with queries 4 tokens after their keys, where positions turn queries and keys

Matrices read the stream in front of the norm: its gain and its centring are folded in, its scale is 1 and its constant
is left out. So a score is that of the weights up to one positive factor for each token. Under grouped-query attention,
heads of a group share keys and values.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (QK and OV circuits, folding the norm).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Custom
from openwork.errors import BadInput, SiteRefused
from openwork.network.anatomy import deviation, tolerance
from openwork.network.ends import NormMap, norm_maps
from openwork.network.linear import LinearMap, linear_maps
from openwork.weights.factored import Factored

if TYPE_CHECKING:
    from openwork.network import Network

LENGTHS = (3, 8, 24)
"""Tokens of the rows that scores are compared with products on: more where few tell nothing."""
ROWS = 64
"""Random inputs by which turns are found, for each channel of a head at least two."""


@dataclass(frozen=True, eq=False)
class Layer:
    """The weights of one attention layer.

    Args:
        block: the number of its block.
        norm: from the stream to what it reads.
        q: (head, inner, channel) behind the norm, at the first position.
        k: (group, inner, channel).
        v: (group, value, channel).
        o: (head, channel, value).
        v_constant: (group, value) biases of values.
        o_constant: (channel,) the bias of the output.
        scaling: the factor of scores, before a softcap.
        scaled: which of ``q``, ``k``, ``v``, ``o`` a norm of the network's own divides, so that their size is typical.
    """

    block: int
    norm: NormMap
    q: Float[Tensor, "head inner channel"]
    k: Float[Tensor, "group inner channel"]
    v: Float[Tensor, "group value channel"]
    o: Float[Tensor, "head channel value"]
    v_constant: Float[Tensor, "group value"]
    o_constant: Float[Tensor, " channel"]
    scaling: float
    scaled: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The layer's sites begin so."""
        return f"blocks.{self.block}.attn"

    @property
    def count(self) -> int:
        """How many heads."""
        return len(self.q)

    def group(self, head: int) -> int:
        """Which group of keys and values a head reads."""
        return head * len(self.k) // self.count


@dataclass(frozen=True, eq=False)
class Heads:
    """The weights of all heads.

    Args:
        net: the network.
        layers: number of the block -> weights of its attention, for blocks that have any.
    """

    net: Network
    layers: Mapping[int, Layer]

    @classmethod
    def of(cls, net: Network) -> Heads:
        """Read them.

        Raises:
            SiteRefused: if queries, keys, values or outputs are no linear functions, or the network has no attention
                whose parts were found.
            BadInput: if it reads no tokens.
        """
        blocks = [i for i in range(net.n_blocks) if f"blocks.{i}.attn.z" in net.sites]
        gone = next((n for n in net.refused if n.startswith("blocks.") and ".attn." in n), None)
        if not blocks or gone is not None:
            why = f"{gone}: {net.refused[gone]}" if gone else "no attention was found in any block"
            raise SiteRefused(f"the heads of {net.name} have no weights that could be read; {why}")
        ways = {f"blocks.{i}.attn.in": [f"blocks.{i}.attn.{part}" for part in "qkv"] for i in blocks}
        ways |= {f"blocks.{i}.attn.z": [f"blocks.{i}.attn.out"] for i in blocks}
        maps = linear_maps(net, ways)
        norms = norm_maps(net, {f"blocks.{i}.resid_pre": f"blocks.{i}.attn.in" for i in blocks})
        scalings = _scalings(net, blocks)
        return cls(net, {i: _layer(net, i, maps, norms[f"blocks.{i}.attn.in"], scalings[i]) for i in blocks})

    @cached_property
    def names(self) -> list[str]:
        """Every head by its site, in order."""
        return [f"{layer.name}.z[{head}]" for layer in self.layers.values() for head in range(layer.count)]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Block and number of every head, in order."""
        return [(block, head) for block, layer in self.layers.items() for head in range(layer.count)]

    def layer(self, block: int, head: int = 0) -> Layer:
        """The weights of one layer that has such a head.

        Raises:
            BadInput: if there is none.
        """
        layer = self.layers.get(block)
        if layer is None or not 0 <= head < layer.count:
            sizes = {i: layer.count for i, layer in self.layers.items()}
            raise BadInput(f"expected a head of {self.net.name}, whose numbers of heads by block are {sizes}; got "
                           f"head {head} of block {block}")  # fmt: skip
        return layer

    def ov(self, block: int, head: int) -> Factored:
        """The OV circuit (channel read, channel written): ``x @ ov`` is what attending to a token with x adds.

        Raises:
            BadInput: for a head that does not exist.
        """
        layer = self.layer(block, head)
        return Factored(layer.norm.fold(layer.v[layer.group(head)]).T, layer.o[head].T)

    def qk(self, block: int, head: int, distance: int = 0) -> Factored:
        """The QK circuit (channel of the query, channel of the key): ``x @ qk @ y`` is the score, before a softcap.

        Args:
            block: number of the block.
            head: which head.
            distance: how many tokens the query stands after the key; it matters where positions turn them (rotary).

        Raises:
            BadInput: for a head that does not exist, or a negative distance.
            SiteRefused: if positions change queries or keys in another way than turning them.
        """
        layer = self.layer(block, head)
        if distance < 0:
            raise BadInput(f"expected queries at or after their keys; got a distance of {distance}")
        q = layer.q[head]
        if distance:
            q = self.turns(distance)[block] @ q
        return Factored(layer.norm.fold(q).T, layer.norm.fold(layer.k[layer.group(head)])) * layer.scaling

    def turns(self, distance: int) -> dict[int, Float[Tensor, "inner inner"]]:
        """By block, what turns a query of the first position into that of a later one; keys stay at the first.

        Constants of positions, such as those of embeddings within the attention, take no part.

        Raises:
            SiteRefused: if queries of one layer are not all turned alike.
        """
        generator = torch.Generator().manual_seed(0)
        rows = max(ROWS, 2 * max(layer.q.shape[1] for layer in self.layers.values()))
        writes = {
            f"{layer.name}.in": torch.randn(rows, layer.q.shape[2], generator=generator)
            for layer in self.layers.values()
        }
        keep = [f"{layer.name}.q" for layer in self.layers.values()]
        ids = torch.zeros(rows, distance + 1, dtype=torch.long)
        found = [
            self.net.run(
                ids, keep=keep, edits=[Custom(s, fn=_everywhere(size * x)) for s, x in writes.items()], until=keep[-1]
            )
            for size in (1.0, 0.0)
        ]
        out = {}
        for block, layer in self.layers.items():
            site = f"{layer.name}.q"
            q, constant = (run[site].detach().double() for run in found)
            scaled = "q" in layer.scaled
            start, later = ((q[:, p] - (0 if scaled else constant[:, p])).flatten(0, 1) for p in (0, distance))
            turn = torch.linalg.lstsq(start, later, driver="gelsd").solution.T
            if deviation(start @ turn.T, later) > 10 * tolerance(self.net.dtype):
                raise SiteRefused(
                    f"{site} at position {distance} is not {site} at the first position turned, so the layer has no QK "
                    "circuit at a distance"
                )
            out[block] = turn.float()
        return out


def _everywhere(x: Tensor):
    def write(value: Tensor) -> Tensor:
        return x.to(value)[:, None].expand_as(value).clone()

    return write


def _layer(net: Network, block: int, maps: Mapping[str, LinearMap], norm: NormMap, scaling: float) -> Layer:
    name = f"blocks.{block}.attn"
    parts = {part: maps[f"{name}.{part}"] for part in "qkv"}
    q, k, v = (found.heads(net.map.info(found.gives).parts) for found in parts.values())
    if v.shape[0] != k.shape[0]:  # some networks hand over values for every head
        count = max(v.shape[0], k.shape[0])
        k, v = (x.repeat_interleave(count // len(x), 0) for x in (k, v))
    v_constant = (
        parts["v"]
        .constant.unflatten(0, (-1, v.shape[1]))
        .repeat_interleave(len(v) // net.map.info(f"{name}.v").parts, 0)
    )
    out = maps[f"{name}.out"]
    o = out.matrix.unflatten(1, (len(q), -1)).transpose(0, 1)
    scaled = tuple(part for part, found in {**parts, "o": out}.items() if found.scaled)
    return Layer(block, norm, q, k, v, o, v_constant, out.constant, scaling, scaled)


def _scalings(net: Network, blocks: list[int]) -> dict[int, float]:
    """What scores are of the products of queries and keys: from how two keys of one query differ, or behind a softcap.

    Differences over keys, less their mean over rows, are free of sinks, of shifts and of biases of distance.
    """
    out: dict[int, float] = {}
    longest = net.preparer.longest or LENGTHS[-1]
    for length in LENGTHS:
        left = [i for i in blocks if i not in out]
        # where keys of few tokens are all alike to every query, as in networks made by hand, more of them may not be
        if left and length <= max(longest, LENGTHS[0]):
            out |= _measured(net, left, length)
    # what no products differ in, no scores can tell the scale of: nothing is read there
    return {i: out.get(i, 0.0) for i in blocks}


def _measured(net: Network, blocks: list[int], length: int) -> dict[int, float]:
    """Scalings of the blocks in which keys of rows of so many tokens differ, by the last query of each row."""
    assert net.vocabulary is not None
    ids = torch.randint(net.vocabulary, (ROWS, length), generator=torch.Generator().manual_seed(0))
    keep = [f"blocks.{i}.attn.{part}" for i in blocks for part in ("q", "k", "scores")]
    run = net.run(ids, keep=keep, until=max(keep, key=net.map.order))
    out = {}
    for i in blocks:
        q, k, scores = (run[f"blocks.{i}.attn.{part}"].detach().double().cpu() for part in ("q", "k", "scores"))
        products = torch.einsum("rhc,rkhc->rhk", q[:, -1], k.repeat_interleave(q.shape[2] // k.shape[2], 2))
        seen = scores[:, :, -1]
        x, y = (_differences(v) for v in (products, seen))
        if not x.any():
            continue
        slope = float((x * y).sum() / x.pow(2).sum().clamp_min(1e-300))
        out[i] = slope if deviation(x * slope, y) <= 10 * tolerance(net.dtype) else _behind_cap(products, seen, slope)
    return out


def _differences(values: Float[Tensor, "row head key"]) -> Float[Tensor, "row head other"]:
    """From the first key to every other one but the query's own, less their mean over rows."""
    found = values[..., 1:-1] - values[..., :1]
    return found - found.mean(0)


def _behind_cap(products: Tensor, scores: Tensor, slope: float) -> float:
    """The factor f of ``c tanh(f product / c)``."""
    from scipy.optimize import curve_fit

    x, y = products.flatten().numpy(), scores.flatten().numpy()
    start = (slope, 2 * float(abs(y).max()) + 1e-12)
    return float(curve_fit(lambda v, f, c: c * np.tanh(f * v / c), x, y, start)[0][0])
