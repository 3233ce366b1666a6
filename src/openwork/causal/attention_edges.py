"""Attention edges as sets of (query, key) pairs, one set for each example, and the edits that cut them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from openwork.edit import KnockOut
from openwork.errors import BadInput, SiteRefused
from openwork.network.layout import Layout
from openwork.site import Site, Where
from openwork.task import Batch, Inputs

if TYPE_CHECKING:
    from openwork.network import Network

Pairs = list[Bool[np.ndarray, "_ _"]]
"""For each example, which of its (query, key) pairs, by position."""


def scores_of(net: Network, layers: Iterable[int]) -> list[Site]:
    """The attention scores of some blocks; blocks without attention, as in hybrids, have none.

    Raises:
        SiteRefused: for scores that failed their certificate, or a network without attention.
    """
    if not attended(net):
        raise SiteRefused(f"{net.name} has no attention scores that could be cut; see net.refused")
    out = []
    for layer in layers:
        name = f"blocks.{layer}.attn.scores"
        why = next(
            (reason for refused, reason in net.refused.items() if refused.startswith(f"blocks.{layer}.attn.q|")), ""
        )
        if name not in net.sites and (name in net.refused or why):
            raise SiteRefused(f"{name} was refused on this network: {net.refused.get(name, why)}")
        if name in net.sites:
            out.append(Site(name))
    return out


def attended(net: Network) -> list[int]:
    """The blocks whose attention can be cut."""
    return [layer for layer in range(net.n_blocks) if f"blocks.{layer}.attn.scores" in net.sites]


def layout_of(net: Network, batch: Batch) -> Layout:
    """Where the tokens of the clean examples lie.

    Raises:
        BadInput: for inputs that are no tokens.
    """
    if not isinstance(batch.clean, Inputs):
        raise BadInput("expected inputs of tokens to cut attention between their groups; got tensors")
    return net.preparer.prepare(batch.clean).layout


def visible(net: Network, layout: Layout) -> Pairs:
    """The pairs that exist: every key that a query may see."""
    return [np.tri(n, dtype=bool) if net.causal else np.ones((n, n), dtype=bool) for n in layout.lengths]


def between(net: Network, layout: Layout, queries: Where, keys: Where) -> Pairs:
    """The pairs that exist between two parts of each example.

    Raises:
        UnknownName: for a token group that does not exist.
        BadInput: for positions before a row.
    """
    out = []
    for row, seen in enumerate(visible(net, layout)):
        chosen = np.zeros_like(seen)
        chosen[np.ix_(layout.positions(queries, row), layout.positions(keys, row))] = True
        out.append(chosen & seen)
    return out


def existing(net: Network, layout: Layout, queries: Where, keys: Where) -> Pairs:
    """As `between`, and at least one pair.

    Raises:
        BadInput: if no query sees any of the keys in any example.
    """
    found = between(net, layout, queries, keys)
    if not any(own.any() for own in found):
        why = "keys come after queries, or a group is empty" if net.causal else "a group is empty"
        raise BadInput(f"{said(queries)!r} sees no token of {said(keys)!r} in any example: {why}")
    return found


def random_like(cut: Pairs, seen: Pairs, random: np.random.Generator) -> Pairs | None:
    """As many other pairs of each example, from the same queries as far as these have other keys.

    Args:
        cut: what to match.
        seen: the pairs that exist.
        random: generator.

    Returns:
        pairs of which none is in `cut`, or None if an example has too few others.
    """
    out = []
    for own, every in zip(cut, seen, strict=True):
        left, chosen, short = every & ~own, np.zeros_like(own), 0
        for query in np.flatnonzero(own.any(1)):
            options, wanted = np.flatnonzero(left[query]), int(own[query].sum())
            chosen[query, random.choice(options, min(wanted, len(options)), replace=False)] = True
            short += max(0, wanted - len(options))
        elsewhere = np.flatnonzero(left & ~chosen)
        if short > len(elsewhere):
            return None
        if short:
            chosen.flat[random.choice(elsewhere, short, replace=False)] = True
        out.append(chosen)
    return out


def as_many(counts: Sequence[int], among: Pairs, random: np.random.Generator) -> Pairs:
    """Random pairs of each example: `counts` of those in `among`."""
    out = []
    for count, options in zip(counts, among, strict=True):
        chosen = np.zeros_like(options)
        chosen.flat[random.choice(np.flatnonzero(options), count, replace=False)] = True
        out.append(chosen)
    return out


@dataclass(eq=False)
class Groups:
    """Token groups made for edits that cut arbitrary pairs, which differ from example to example.

    Args:
        causal: whether queries see no later keys, so that it does not matter whether these are cut.
        rows: positions of each example -> the name of that group.
    """

    causal: bool
    rows: dict[tuple[tuple[int, ...], ...], str] = field(default_factory=dict)

    def cut(self, pairs: Pairs, sites: Sequence[Site]) -> list[KnockOut]:
        """The edits that cut these pairs at each of the sites.

        Queries with the same keys share an edit, where future keys count as any.
        """
        per_example = [self._slots(own) for own in pairs]
        edits = []
        for slot in range(max(map(len, per_example), default=0)):
            sides = [slots[slot] if slot < len(slots) else ((), ()) for slots in per_example]
            queries, keys = (Where(group=self._name(tuple(side[i] for side in sides))) for i in (0, 1))
            edits += [KnockOut(site, queries, keys=keys) for site in sites]
        return edits

    def added_to(self, batch: Batch) -> Batch:
        """The batch with these groups in its clean inputs."""
        clean = batch.clean
        assert isinstance(clean, Inputs)
        new = {name: rows for rows, name in self.rows.items()}
        return replace(batch, clean=Inputs(clean.ids, {**clean.groups, **new}))

    def _name(self, rows: tuple[tuple[int, ...], ...]) -> str:
        return self.rows.setdefault(rows, f"cut {len(self.rows)}")

    def _slots(self, pairs: Bool[np.ndarray, "query key"]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Queries and the keys cut from them; what a slot cuts grows with its last query."""
        slots: list[tuple[list[int], bytes]] = []
        for query in np.flatnonzero(pairs.any(1)).tolist():
            keys = (pairs[query, : query + 1] if self.causal else pairs[query]).tobytes()
            for number, (queries, held) in enumerate(slots):
                if keys.startswith(held):
                    slots[number] = ([*queries, query], keys)
                    break
            else:
                slots.append(([query], keys))
        return [(tuple(queries), tuple(np.flatnonzero(np.frombuffer(keys, bool)).tolist())) for queries, keys in slots]


def said(place: Any) -> str:
    """A part of the tokens in a word."""
    where = Where.of(place)
    if where.group is not None:
        return where.group
    return "all" if where.positions is None else ",".join(map(str, where.positions))
