"""Where the variables of a high-level model are to be in a network, and random places to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.causal.swaps import Place, Swap
from openwork.edit import Array, Edit, Patch, SwapAlong
from openwork.site import Site, Where
from openwork.task import Inputs, Tensors

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Alignment:
    """A variable of the high-level model and where the network is to hold it.

    Args:
        variable: its name.
        site: a `Site`: one site.
        where: a `Where`, from positions or a token group; None for everywhere.
        directions: the subspace that holds it, (count, channel); None for the whole part.
    """

    variable: str
    site: Any
    where: Any = None
    directions: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))
        object.__setattr__(self, "where", Where.of(self.where))
        if self.directions is not None:
            object.__setattr__(self, "directions", Array.of(self.directions))

    def edit(self, source: str) -> Edit:
        """The edit that gives the site its value in another run."""
        if self.directions is None:
            return Patch(self.site, self.where, source=source)
        return SwapAlong(self.site, self.where, directions=self.directions, source=source)

    def __str__(self) -> str:
        part = self.where.group or self.where.positions
        dimensions = "" if self.directions is None else f", {len(np.atleast_2d(self.directions.numpy()))} dimensions"
        return f"{self.variable} at {self.site}{'' if part is None else f'@{part}'}{dimensions}"


def said(hypothesis: Sequence[Alignment]) -> str:
    """A hypothesis in words."""
    return " with ".join(str(alignment) for alignment in hypothesis)


def elsewhere(
    net: Network, inputs: Inputs | Tensors, hypothesis: Sequence[Alignment], wanted: int, seed: int
) -> list[tuple[Alignment, ...]]:
    """Random hypotheses of equal kind, none twice.

    A subspace is compared with random ones of equal dimension at its place. Whole parts are compared with other places:
    heads of the same kind of site first and of others of that shape then, at any one position; sites without heads at
    other positions, for the residual stream carries on at the next site what it holds at this one.

    Args:
        net: the network.
        inputs: whose positions there are.
        hypothesis: the alignments to match.
        wanted: how many.
        seed: of the draws.

    Returns:
        as many as wanted, or all that there are.
    """
    rng = np.random.default_rng([seed, 7])
    places = [[] if a.directions is not None else _places(net, inputs, a, rng) for a in hypothesis]
    if len(hypothesis) == 1 and hypothesis[0].directions is None:
        return [(alignment,) for alignment in places[0][:wanted]]
    out: dict[tuple[Alignment, ...], None] = {}
    for _ in range(20 * wanted):
        drawn = [
            _turned(net, alignment, rng)
            if alignment.directions is not None
            else options[int(rng.integers(len(options)))]
            if options
            else None
            for alignment, options in zip(hypothesis, places, strict=True)
        ]
        if None in drawn or len(out) == wanted:
            break
        out[tuple(alignment for alignment in drawn if alignment is not None)] = None
    return list(out)


def _turned(net: Network, alignment: Alignment, rng: np.random.Generator) -> Alignment:
    """The same place with a random subspace of equal dimension."""
    count = len(np.atleast_2d(alignment.directions.numpy()))
    channels = Place.of(net, alignment.site, Swap(where=alignment.where)).channels
    return Alignment(alignment.variable, alignment.site, alignment.where, rng.standard_normal((count, channels)))


def _places(net: Network, inputs: Inputs | Tensors, alignment: Alignment, rng: np.random.Generator) -> list[Alignment]:
    """Other places in random order, those of the same kind of site first."""
    info, here = net.map.info(alignment.site.path), alignment.site
    positions, group = alignment.where.positions, alignment.where.group
    local = inputs if isinstance(inputs, Inputs) and (group is not None or positions is not None) else None
    wheres = [alignment.where]
    if local is not None:
        size = len(positions) if positions is not None else 1
        wheres = [Where(tuple(range(p, p + size))) for p in range(min(local.lengths) - size + 1)]
    near: list[Alignment] = []
    far: list[Alignment] = []
    for name, other in net.sites.items():
        if other.axes != info.axes or other.shape[-1] != info.shape[-1]:
            continue
        site, parts = Site(name), [Site(name)]
        if here.index:
            size = len(here.index)
            parts = [site[tuple(range(p, p + size))] for p in range(other.parts - size + 1)]
        for part in parts:
            for where in wheres:
                same_tokens = local is None or _overlaps(local, where, alignment.where)
                if same_tokens and (part == here or (local is not None and not here.index)):
                    continue
                (near if site.kind == here.kind else far).append(Alignment(alignment.variable, part, where))
    return [some[i] for some in (near, far) for i in rng.permutation(len(some))]


def _overlaps(inputs: Inputs, where: Where, other: Where) -> bool:
    """Whether positions are, in any example, among those of a token group or other positions."""
    mine = set(where.positions)
    for row, length in enumerate(inputs.lengths):
        if other.group in inputs.groups:
            theirs = set(inputs.groups[other.group][row])
        elif other.group is not None:
            theirs = {0 if other.group == "first" else length - 1}
        else:
            theirs = {p % length for p in other.positions}
        if mine & theirs:
            return True
    return False
