"""Whether what is said to be true of a network is: the test that the answer of every model of the zoo has to pass.

**An item (a node, an edge, a direction) is true if resampling it alone moves the output by more than epsilon, while
resampling all that are not true, together, moves it by less.** To resample is to put in the value of another example's
unedited run, at all positions; the other is a row of the same task drawn at random, clean or corrupted.

    claims = Claims.of(network.known)
    print(check(network, task, claims))                  # holds or not, every effect, the slack
    claims, found = settle(network, task, proposed)      # the part of what was proposed that is true

*Moves* is the mean over examples of the total variation distance between the two predicted distributions at the asked
position: the most by which the probability of any event (an answer, a set of answers) changed. It lies between 0 and 1,
so that one epsilon serves every network; it sees a change to any answer, not to the two that a task names; and, unlike
a difference of logits, it does not grow with the size of logits where the answer has long been decided.

What is true by this test depends on the examples: a part that carries the same for every row of a task (where in the
row it stands, say) is structure that cannot be resampled, and is not true. A node is a head or an MLP with all that it
writes. What is not claimed of a kind is tested together; it is not tested one by one.

Source: Chan et al. 2022, Causal Scrubbing (resampling what a hypothesis calls irrelevant); Conmy et al. 2023, Towards
Automated Circuit Discovery (effects of edges by another example's activations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openwork.direction import Direction
from openwork.errors import BadInput, UnknownName
from openwork.evidence import bootstrap_interval
from openwork.finding import Interval
from openwork.site import Edge, Site
from openwork.task import Inputs, Task
from openwork.zoo import edgewise
from openwork.zoo.known import Known
from openwork.zoo.transformer import Block, Transformer

SCHEMA = 1
NUMBERS = 2**22
"""Numbers of the largest tensor of one forward: more rows at once are no faster."""
Kind = Literal["node", "edge", "direction"]
Forward = Callable[["_Rows"], Tensor]
"""Logits of rows into whose run something is put from that of others."""


@dataclass(frozen=True)
class TruthSettings:
    """The knobs of the test.

    Args:
        epsilon: what an item has to move the output by, and all untrue ones together must not.
        examples: most clean rows of the task, drawn at random.
        resamplings: other examples for each of them.
        level: two-sided confidence of the intervals.
        bootstraps: resamples behind each interval.
        seed: of rows, pairings and intervals.
    """

    epsilon: float = 0.05
    examples: int = 128
    resamplings: int = 3
    level: float = 0.95
    bootstraps: int = 1999
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1 or self.examples < 2 or self.resamplings < 1:
            raise BadInput(
                "expected epsilon between 0 and 1, at least two examples and one resampling; got "
                f"{self.epsilon}, {self.examples} and {self.resamplings}"
            )


@dataclass(frozen=True)
class Claims:
    """What is said to be all that is true of a network; None where nothing is said of that kind of item.

    Args:
        nodes: heads (``blocks.0.attn.z[1]``) and MLPs (``blocks.0.mlp.out``).
        edges: as in `edgewise.edges`.
        directions: name -> direction or subspace of the residual stream (``embed``, ``blocks.1.resid_mid``, ...); at
            each site that is named, they are all that is true.
    """

    nodes: tuple[Site, ...] | None = None
    edges: tuple[Edge, ...] | None = None
    directions: Mapping[str, Direction] | None = None

    def __post_init__(self) -> None:
        if self.nodes is None and self.edges is None and not self.directions:
            raise BadInput("expected claims about nodes, edges or directions; got none of them")

    @classmethod
    def of(cls, known: Known) -> Claims:
        """The heads and MLPs among the sites of a known mechanism, and its edges if it has any."""
        heads = [Site(s.path, (head,)) for s in known.sites if s.kind == "attn.z" for head in s.index]
        mlps = [s for s in known.sites if s.kind == "mlp.out"]
        return cls(tuple(sorted({*heads, *mlps})), known.edges or None)


@dataclass(frozen=True)
class Effect:
    """How far resampling moves the output.

    Args:
        kind: of item.
        item: what was resampled.
        count: of how many items it consists.
        size: mean total variation distance, with its interval over examples.
    """

    kind: Kind
    item: str
    count: int
    size: Interval

    def __str__(self) -> str:
        return f"{self.kind:<10}{self.item:<48}{self.size.estimate:7.4f} [{self.size.low:.4f}, {self.size.high:.4f}]"


@dataclass(frozen=True)
class Truth:
    """What the test found.

    Args:
        settings: how it was asked.
        true: the effect of each item that is claimed.
        untrue: the effect of all others together: of nodes, of edges, and at each site of what is orthogonal to all
            directions claimed there.
    """

    settings: TruthSettings
    true: tuple[Effect, ...]
    untrue: tuple[Effect, ...] = field(default=())

    @property
    def failures(self) -> tuple[Effect, ...]:
        """Claimed items whose interval does not lie above epsilon, and rests whose interval does not lie below."""
        epsilon = self.settings.epsilon
        weak = [e for e in self.true if not e.size.low > epsilon]
        return (*weak, *(e for e in self.untrue if not e.size.high < epsilon))

    @property
    def holds(self) -> bool:
        """Whether the claims pass."""
        return not self.failures

    @property
    def slack(self) -> tuple[float | None, float | None]:
        """(smallest effect of a claimed item − epsilon, epsilon − largest effect of the untrue together); None without.

        Both are positive where the claims hold.
        """
        epsilon = self.settings.epsilon
        above = min((e.size.estimate - epsilon for e in self.true), default=None)
        return above, min((epsilon - e.size.estimate for e in self.untrue), default=None)

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable record, for the card of a model."""
        both = {"true": self.true, "untrue": self.untrue}
        return {
            "schema": SCHEMA,
            "holds": self.holds,
            "epsilon": self.settings.epsilon,
            "slack": list(self.slack),
            "measure": "mean total variation distance of the prediction at the asked position",
            "settings": asdict(self.settings),
            **{name: [_record(effect) for effect in effects] for name, effects in both.items()},
        }

    def __str__(self) -> str:
        margins = ["nothing" if s is None else f"{s:.4f}" for s in self.slack]
        failed = set(map(id, self.failures))
        lines = [f"{e}{'   FAILS' if id(e) in failed else ''}" for e in (*self.true, *self.untrue)]
        said = "holds" if self.holds else "does not hold"
        return "\n".join(
            (f"{said} at epsilon {self.settings.epsilon}; slack {margins[0]} above, {margins[1]} below", *lines)
        )


def check(network: Transformer, task: Task, claims: Claims, settings: TruthSettings = TruthSettings()) -> Truth:
    """Test whether claims are true.

    Args:
        network: the network.
        task: whose rows are resampled from each other: all of one length, none is left out as held out.
        claims: what is said to be true.
        settings: the knobs.

    Returns:
        every effect.

    Raises:
        BadInput: for another kind of network, rows that are not tokens of one length, or directions that do not fit.
        UnknownName: for a node or an edge that the network does not have.
    """
    pairs = _pairs(network, task, settings)
    return Truth(settings, _effects(network, pairs, _items(network, claims)), _untrue(network, pairs, claims))


def settle(
    network: Transformer, task: Task, proposed: Claims, settings: TruthSettings = TruthSettings()
) -> tuple[Claims, Truth]:
    """Keep of a proposal what is true one by one, and test whether that is all: what was dropped joins the untrue.

    Args:
        network: the network.
        task: as in `check`.
        proposed: what may be true, structure that cannot be resampled included.
        settings: the knobs.

    Returns:
        (the items that are true, their truth).

    Raises:
        BadInput: as `check`.
        UnknownName: as `check`.
    """
    pairs = _pairs(network, task, settings)
    items = _items(network, proposed)
    found = _effects(network, pairs, items)
    true = tuple(effect for effect in found if effect.size.low > settings.epsilon)
    kept = {(effect.kind, effect.item) for effect in true}
    claims = Claims(
        None if proposed.nodes is None else tuple(n for n in proposed.nodes if ("node", str(n)) in kept),
        None if proposed.edges is None else tuple(e for e in proposed.edges if ("edge", str(e)) in kept),
        None
        if proposed.directions is None
        else {name: d for name, d in proposed.directions.items() if ("direction", _named(name, d)) in kept},
    )
    sites = {d.site for d in (proposed.directions or {}).values()}
    return claims, Truth(settings, true, _untrue(network, pairs, claims, sites))


@dataclass(frozen=True)
class _Item:
    """Something that can be resampled: how to run with it resampled."""

    kind: Kind
    name: str
    count: int
    forward: Forward


@dataclass(frozen=True)
class _Pairs:
    """Rows, the others that they are resampled from, and where the answer is read; example-major."""

    rows: Int[Tensor, "pair position"]
    others: Int[Tensor, "pair position"]
    at: Int[Tensor, " pair"]
    settings: TruthSettings

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Some of them at a time."""
        return zip(self.rows.split(size), self.others.split(size), self.at.split(size), strict=True)


@dataclass(frozen=True)
class _Rows:
    """Some rows and others, with what every sender wrote in their unedited runs."""

    rows: Int[Tensor, "pair position"]
    others: Int[Tensor, "pair position"]
    unedited: Float[Tensor, "sender pair position channel"]
    other: Float[Tensor, "sender pair position channel"]


def _pairs(network: Transformer, task: Task, settings: TruthSettings) -> _Pairs:
    if not isinstance(network, Transformer):
        raise BadInput(f"expected a Transformer of the zoo; got {type(network).__name__}")
    both = task.clean, task.corrupted
    lengths = {length for inputs in both if isinstance(inputs, Inputs) for length in inputs.lengths}
    if len(lengths) != 1:
        raise BadInput(f"expected rows of tokens, all of one length, so that each can stand in; got {sorted(lengths)}")
    rng, n = np.random.default_rng(settings.seed), len(task)
    chosen = np.sort(rng.permutation(n)[: settings.examples]).repeat(settings.resamplings)
    drawn = rng.integers(0, 2 * n - 1, len(chosen))
    other = drawn + (drawn >= chosen)
    device = network.unembed.weight.device
    pool = torch.tensor((*task.clean.ids, *task.corrupted.ids), device=device)
    rows, others = (pool[torch.as_tensor(index, device=device)] for index in (chosen, other))
    return _Pairs(rows, others, torch.tensor(task.at, device=device)[torch.as_tensor(chosen, device=device)], settings)


@torch.no_grad()
def _effects(network: Transformer, pairs: _Pairs, items: Sequence[_Item]) -> tuple[Effect, ...]:
    config, settings = network.config, pairs.settings
    widest = max(len(edgewise.senders(network)), 3 * max(config.heads))
    size = max(1, NUMBERS // (widest * config.width * pairs.rows.shape[1]))
    moved: list[list[Tensor]] = [[] for _ in items]
    for rows, others, at in pairs.chunks(size):
        here = torch.arange(len(rows), device=rows.device), at
        traced = edgewise.run(network, rows)
        plain = traced.logits[here].softmax(-1)
        both = _Rows(rows, others, traced.contributions, edgewise.run(network, others).contributions)
        for item, distances in zip(items, moved, strict=True):
            edited = item.forward(both)[here].softmax(-1)
            distances.append((edited - plain).abs().sum(-1) / 2)
    return tuple(_effect(item, torch.cat(distances), settings) for item, distances in zip(items, moved, strict=True))


def _effect(item: _Item, distances: Float[Tensor, " pair"], settings: TruthSettings) -> Effect:
    by_example = distances.double().unflatten(0, (-1, settings.resamplings)).mean(1).cpu().numpy()
    if not np.isfinite(by_example).all():
        raise BadInput(f"expected finite logits; with {item.name} resampled the network gives NaN or infinity")
    interval = bootstrap_interval(by_example, np.mean, settings.level, settings.bootstraps, settings.seed)
    return Effect(item.kind, item.name, item.count, interval)


def _items(network: Transformer, claims: Claims) -> list[_Item]:
    """Each claimed item by itself."""
    items = [_Item("node", str(node), 1, _without_nodes(network, [node])) for node in claims.nodes or ()]
    items += [_Item("edge", str(edge), 1, _without_edges(network, [edge])) for edge in claims.edges or ()]
    for name, direction in (claims.directions or {}).items():
        forward = _swapping(network, direction.site, _span(network, [direction]), within=True)
        items.append(_Item("direction", _named(name, direction), 1, forward))
    return items


def _untrue(network: Transformer, pairs: _Pairs, claims: Claims, sites: set[Site] | None = None) -> tuple[Effect, ...]:
    """All that is not claimed, together by kind; of directions at each site claimed or given."""
    items: list[_Item] = []
    if claims.nodes is not None:
        rest = [s for s in edgewise.senders(network)[1:] if s not in set(claims.nodes)]
        items.append(_Item("node", f"all {len(rest)} others", len(rest), _without_nodes(network, rest)))
    if claims.edges is not None:
        others = [e for e in edgewise.edges(network) if e not in set(claims.edges)]
        items.append(_Item("edge", f"all {len(others)} others", len(others), _without_edges(network, others)))
    by_site: dict[Site, list[Direction]] = {site: [] for site in sites or ()}
    for direction in (claims.directions or {}).values():
        by_site.setdefault(direction.site, []).append(direction)
    for site, claimed in sorted(by_site.items()):
        span = _span(network, claimed)
        count = network.config.width - span.shape[1]
        name = f"all {count} other dimensions of {site}"
        items.append(_Item("direction", name, count, _swapping(network, site, span, within=False)))
    return _effects(network, pairs, items)


def _record(effect: Effect) -> dict[str, Any]:
    ends = {"effect": effect.size.estimate, "low": effect.size.low, "high": effect.size.high}
    return {"kind": effect.kind, "item": effect.item, "count": effect.count, **ends}


def _named(name: str, direction: Direction) -> str:
    at = f" at {direction.site}"
    return name.removesuffix(at) + at


def _without_nodes(network: Transformer, nodes: Sequence[Site]) -> Forward:
    wrote = edgewise.senders(network)[1:]
    for node in nodes:
        if node not in wrote:
            raise UnknownName.among("node", str(node), map(str, wrote))
    return _without_edges(network, [edge for edge in edgewise.edges(network) if edge.sender in set(nodes)])


def _without_edges(network: Transformer, resampled: Sequence[Edge]) -> Forward:
    keep = ~edgewise.mask_of(network, resampled).to(network.unembed.weight.device)
    return lambda both: edgewise.run(network, both.rows, keep, both.other, both.unedited).logits


def _span(network: Transformer, directions: Sequence[Direction]) -> Float[Tensor, "channel count"]:
    """An orthonormal basis of the space that directions span."""
    weight = network.unembed.weight
    vectors = [torch.as_tensor(d.array.numpy()).reshape(-1, d.array.shape[-1]) for d in directions]
    if any(v.shape[1] != network.config.width for v in vectors):
        raise BadInput(
            f"expected directions of {network.config.width} channels, the width of the residual stream; got "
            f"{[v.shape[1] for v in vectors]}"
        )
    if not vectors:
        return weight.new_zeros(network.config.width, 0)
    u, s, _ = torch.linalg.svd(torch.cat(vectors).double().T, full_matrices=False)
    return u[:, s > 1e-6 * s[0]].to(weight)


def _swapping(network: Transformer, site: Site, span: Float[Tensor, "channel count"], within: bool) -> Forward:
    """Puts in the others' residual within a subspace of a site, or in all that is orthogonal to it."""
    if str(site) not in _streams(network):
        raise UnknownName.among("site of the residual stream", str(site), _streams(network))

    def forward(both: _Rows) -> Tensor:
        seen: list[Tensor] = []

        def look(x: Tensor) -> Tensor:
            seen.append(x)
            return x

        def put_in(x: Tensor) -> Tensor:
            step = seen[0] - x
            inside = step @ span @ span.T
            return x + (inside if within else step - inside)

        _run_stream(network, both.others, str(site), look)
        return _run_stream(network, both.rows, str(site), put_in)

    return forward


def _streams(network: Transformer) -> list[str]:
    names = ("resid_pre", "resid_mid", "resid_post")
    return ["embed", *(f"blocks.{i}.{name}" for i in range(network.config.layers) for name in names)]


def _run_stream(network: Transformer, ids: Tensor, site: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The plain forward, with the residual stream changed at one site."""

    def at(name: str, x: Tensor) -> Tensor:
        return change(x) if name == site else x

    x = at("embed", network.embed(ids, torch.arange(ids.shape[1], device=ids.device)[None]))
    for i, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        x = at(f"blocks.{i}.resid_pre", x)
        if network.config.heads[i]:
            x = x + block.attn(block.norm1(x))
        x = at(f"blocks.{i}.resid_mid", x)
        if network.config.mlp[i]:
            x = x + block.mlp(block.norm2(x))
        x = at(f"blocks.{i}.resid_post", x)
    return network.unembed(network.final_norm(x))
