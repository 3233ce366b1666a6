"""The components that circuits are made of (heads and MLPs), and random circuits of a given layer profile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import TYPE_CHECKING, Literal

import numpy as np

from openwork.errors import BadInput
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

Kind = Literal["head", "mlp"]


@dataclass(frozen=True, order=True)
class Component:
    """One head or one MLP.

    Args:
        layer: the block it lies in.
        kind: ``head`` or ``mlp``; heads sort before the MLP of their block.
        index: the head's number; -1 for an MLP.
    """

    layer: int
    kind: Kind
    index: int = -1

    @property
    def site(self) -> Site:
        """Where its output is read and written: ``attn.z`` of one head, ``mlp.out``."""
        if self.kind == "head":
            return Site(f"blocks.{self.layer}.attn.z", (self.index,))
        return Site(f"blocks.{self.layer}.mlp.out")

    @property
    def class_(self) -> tuple[int, str]:
        """Components of the same class may stand for each other in a random circuit: same block, same kind."""
        return self.layer, self.kind

    def __str__(self) -> str:
        return str(self.site)


def components_of(net: Network) -> list[Component]:
    """All heads and MLPs of a network whose sites are certified, in order of the network.

    Raises:
        BadInput: if there is none.
    """
    found: list[Component] = []
    for layer in range(net.n_blocks):
        z = f"blocks.{layer}.attn.z"
        if z in net.sites:
            found += [Component(layer, "head", head) for head in range(net.parts(z))]
        if f"blocks.{layer}.mlp.out" in net.sites:
            found.append(Component(layer, "mlp"))
    if not found:
        raise BadInput(
            f"expected a network with heads or MLPs to study; {net.name} has none among its {len(net.sites)} sites "
            f"(openwork open prints them, and why others were refused)"
        )
    return found


def profile(circuit: Iterable[Component]) -> dict[tuple[int, str], int]:
    """How many components of each class a circuit has."""
    return dict(sorted(Counter(c.class_ for c in circuit).items()))


def describe_profile(circuit: Iterable[Component]) -> str:
    """The profile in words, e.g. ``block 1: 2 heads, 1 MLP``."""
    words: dict[int, list[str]] = {}
    for (layer, kind), count in profile(circuit).items():
        name = "MLP" if kind == "mlp" else "head" if count == 1 else "heads"
        words.setdefault(layer, []).append(f"{count} {name}")
    return "; ".join(f"block {layer}: {', '.join(parts)}" for layer, parts in words.items())


def count_alike(circuit: Sequence[Component], components: Sequence[Component]) -> int:
    """How many circuits have the same profile, itself included."""
    sizes = Counter(c.class_ for c in components)
    return math.prod(math.comb(sizes[key], count) for key, count in profile(circuit).items())


def random_circuits(
    circuit: Sequence[Component], components: Sequence[Component], count: int, rng: np.random.Generator
) -> list[tuple[Component, ...]]:
    """Random circuits of the same size and layer profile, the circuit itself not excluded.

    If there are no more than `count` of them, every one is given, all equally often, in all `count` or a few more;
    otherwise they are drawn with replacement. Either way (1 + number at least as good) / (1 + number) is a p-value,
    which few circuits of the same profile cannot make small: each copy of the circuit itself counts against it.

    Args:
        circuit: the one to match.
        components: those to draw from.
        count: how many.
        rng: generator.

    Returns:
        Sorted tuples of components.
    """
    alike = count_alike(circuit, components)
    if alike <= count:
        return [found for found in _all_alike(circuit, components) for _ in range(-(-count // alike))]
    pools, wanted = _pools(components), profile(circuit)
    drawn = []
    for _ in range(count):
        picked: list[Component] = []
        for key, size in wanted.items():
            pool = pools[key]
            picked += [pool[i] for i in rng.permutation(len(pool))[:size]]
        drawn.append(tuple(sorted(picked)))
    return drawn


def smallest_p(alike: int, count: int) -> float:
    """The p-value of a circuit that beats all others, when `alike` circuits have its profile (itself included).

    Args:
        alike: how many there are.
        count: how many are asked of `random_circuits`.
    """
    if alike > count:
        return (1 + count / alike) / (1 + count)
    copies = -(-count // alike)
    return (1 + copies) / (1 + copies * alike)


def _all_alike(circuit: Sequence[Component], components: Sequence[Component]) -> list[tuple[Component, ...]]:
    pools = _pools(components)
    parts = [combinations(pools[key], size) for key, size in profile(circuit).items()]
    return [tuple(sorted(chain(*choice))) for choice in product(*parts)]


def _pools(components: Sequence[Component]) -> dict[tuple[int, str], list[Component]]:
    pools: dict[tuple[int, str], list[Component]] = {}
    for component in sorted(components):
        pools.setdefault(component.class_, []).append(component)
    return pools
