"""Where each variable of a program is computed, and the answer that follows: roles, edges, looks and directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openwork.circuit import Node
from openwork.direction import Direction
from openwork.site import Edge, Site, Where
from openwork.zoo.compiled.craft import Basis, Head
from openwork.zoo.compiled.language import Aggregate, Indices, Map, Tokens, Variable
from openwork.zoo.compiled.program import Program
from openwork.zoo.known import Known, Look

PRIME = "'"
"""What is added to the names of a circuit's copy."""
EMBED, LOGITS = Site("embed"), Site("logits")


@dataclass(frozen=True)
class Placement:
    """Which part of the network works for which variable.

    Args:
        heads: for each layer and head, the variable that it computes, or None for a head that computes none.
        maps: for each layer, the maps that its MLP computes.
    """

    heads: tuple[tuple[Variable | None, ...], ...]
    maps: tuple[tuple[Map, ...], ...]

    def senders(self, variable: Variable) -> tuple[Site, ...]:
        """The sites that write a variable."""
        if isinstance(variable, (Tokens, Indices)):
            return (EMBED,)
        for layer, (heads, maps) in enumerate(zip(self.heads, self.maps, strict=True)):
            if variable in maps:
                return (Site(f"blocks.{layer}.mlp.out"),)
            if variable in heads:
                mine = [number for number, owner in enumerate(heads) if owner is variable]
                return tuple(Site(f"blocks.{layer}.attn.z", (number,)) for number in mine)
        raise LookupError(f"{variable.name!r} is not placed")

    def written_at(self, variable: Variable) -> Site:
        """The site of the residual stream at which a variable first stands."""
        site = self.senders(variable)[0]
        if site.block is None:
            return site
        # a layer without an MLP has no middle
        between = self.maps[site.block] and not isinstance(variable, Map)
        return Site(f"blocks.{site.block}.resid_{'mid' if between else 'post'}")


def place(variables: Sequence[Variable], random_heads: int, rng: np.random.Generator) -> Placement:
    """Put each variable into the first layer in which all that it reads is there.

    Args:
        variables: in an order in which each stands after those that it reads.
        random_heads: heads of each layer that compute nothing.
        rng: of the order of the heads of a layer.
    """
    slot: dict[Variable, int] = {}
    for variable in variables:
        if isinstance(variable, (Tokens, Indices)):
            slot[variable] = -1
        else:
            earliest = 1 + max(slot[v] for v in variable.reads)
            # even slots are attention, odd ones MLPs
            slot[variable] = earliest + (earliest % 2 != isinstance(variable, Map))
    layers = max(slot.values()) // 2 + 1
    heads = []
    for layer in range(layers):
        owners: list[Variable | None] = [None] * random_heads
        for variable in variables:
            if slot[variable] == 2 * layer:
                owners += [variable] * (variable.heads if isinstance(variable, Aggregate) else 1)
        heads.append(tuple(owners[i] for i in rng.permutation(len(owners))))
    maps = [[v for v in variables if isinstance(v, Map) and slot[v] == 2 * layer + 1] for layer in range(layers)]
    return Placement(tuple(heads), tuple(tuple(row) for row in maps))


def known_of(
    program: Program,
    placement: Placement,
    heads: Mapping[Variable, Head],
    basis: Basis,
    variables: Sequence[Variable],
    outputs: Sequence[Variable],
) -> Known:
    """The answer: what of a compiled network takes part in the program.

    Args:
        program: the program.
        placement: of its variables.
        heads: what the heads of each variable read.
        basis: of the residual stream.
        variables: those of its circuits, without what is idle.
        outputs: those that are unembedded.
    """
    constant = _constant(variables)
    computed = [v for v in variables if v not in constant and not isinstance(v, (Tokens, Indices))]
    carried: dict[Edge, list[Variable]] = {}
    for edge, variable in _reading(placement, heads, variables, outputs):
        carried.setdefault(edge, []).append(variable)
    moving = {edge for edge, read in carried.items() if not constant.issuperset(read)}
    group = {v: program.acts.get(v.name.rstrip(PRIME)) for v in computed}
    roles = {v.name: tuple(Node(site, Where(group=group[v])) for site in placement.senders(v)) for v in computed}
    looks = [
        Look(_part(site, "pattern"), query, key)
        for name, query, key in program.looks
        for v in computed
        if v.name.rstrip(PRIME) == name
        for site in placement.senders(v)
    ]
    directions = {
        v.name: Direction(placement.written_at(v), basis.space(v), "compiled") for v in variables if v not in constant
    }
    return Known(
        roles, tuple(sorted(moving)), tuple(looks), directions, constant=tuple(sorted(carried.keys() - moving))
    )


def _constant(variables: Sequence[Variable]) -> set[Variable]:
    """The variables that are the same in every row, because they depend on positions alone."""
    constant: set[Variable] = set()
    for variable in variables:
        if not isinstance(variable, Tokens) and constant.issuperset(variable.reads):
            constant.add(variable)
    return constant


def _reading(
    placement: Placement, heads: Mapping[Variable, Head], variables: Sequence[Variable], outputs: Sequence[Variable]
) -> Iterator[tuple[Edge, Variable]]:
    """Every edge with a variable that goes along it."""
    for variable in variables:
        if isinstance(variable, (Tokens, Indices)):
            continue
        for site in placement.senders(variable):
            if isinstance(variable, Map):
                reads = {Site(f"blocks.{site.block}.mlp.in"): variable.reads}
            else:
                reads = {_part(site, part): read for part, read in heads[variable].reads.items()}
            for receiver, read in reads.items():
                yield from ((Edge(sender, receiver), v) for v in read for sender in placement.senders(v))
    yield from ((Edge(sender, LOGITS), output) for output in outputs for sender in placement.senders(output))


def _part(z: Site, part: str) -> Site:
    """Another site of the same head."""
    return Site(z.path.removesuffix("z") + part, z.index)
