"""Trained networks whose circuits are known: each was trained to do a compiled program part by part.

    trained = open("induction")
    trained.network                  # an ordinary transformer with norms, as trained
    trained.known                    # roles and edges, in its own places
    trained.compiled                 # what it was trained to do, see `openwork.zoo.compiled`
    trained.card["truth"]            # the test that its answer passes

Source: Gupta et al. 2024, "InterpBench: Semi-Synthetic Transformers for Evaluating Mechanistic Interpretability
Techniques" (strict interchange training).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from openwork.errors import BadInput, UnknownName
from openwork.site import Edge, Site
from openwork.zoo import compiled as programs
from openwork.zoo import embedded
from openwork.zoo.compiled import Compiled
from openwork.zoo.known import Known
from openwork.zoo.transformer import Transformer

FAMILY = "siit/"


@dataclass(frozen=True)
class Correspondence:
    """Which part of a trained network does what a part of a compiled one does.

    Args:
        parts: head (``blocks.0.attn.z[0]``) or MLP (``blocks.0.mlp.out``) of the compiled network -> of the trained.

    Raises:
        BadInput: if two parts have the same place, or a head is to be an MLP.
    """

    parts: Mapping[Site, Site]

    def __post_init__(self) -> None:
        pairs = self.parts.items()
        if len(set(self.parts.values())) < len(self.parts) or any(old.kind != new.kind for old, new in pairs):
            raise BadInput(f"expected heads and MLPs, each with a place of its own; got {_written(self.parts)}")

    def site(self, site: Site) -> Site:
        """The place in the trained network of anything that a part of the compiled one reads or writes.

        Raises:
            UnknownName: if no such part was placed.
        """
        if site.block is None:
            return site
        sublayer, _, tensor = site.kind.partition(".")
        whole = "z" if sublayer == "attn" else "out"
        part = Site(f"blocks.{site.block}.{sublayer}.{whole}", site.index)
        if part not in self.parts:
            raise UnknownName.among("part of the compiled network", str(part), map(str, self.parts))
        return Site(self.parts[part].path.removesuffix(whole) + tensor, self.parts[part].index)

    def edge(self, edge: Edge) -> Edge:
        """The place of an edge."""
        return Edge(self.site(edge.sender), self.site(edge.receiver))

    def known(self, known: Known) -> Known:
        """The answer in the places of the trained network.

        Attention patterns and directions are left out: training does not ask for them.
        """
        roles = {
            role: tuple(replace(node, site=self.site(node.site)) for node in nodes)
            for role, nodes in known.roles.items()
        }
        edges, constant = (tuple(sorted(map(self.edge, some))) for some in (known.edges, known.constant))
        return Known(roles, edges, constant=constant)

    def to_json(self) -> dict[str, str]:
        """For a card."""
        return _written(self.parts)

    @classmethod
    def from_json(cls, written: Mapping[str, str]) -> Correspondence:
        """What `to_json` wrote."""
        return cls({Site.parse(old): Site.parse(new) for old, new in written.items()})


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with its answer.

    Attributes:
        name: of the network, as `openwork.open` knows it.
        network: as it ships, in float32.
        compiled: the program, and the network that it was trained to be like.
        correspondence: of the parts of both.
        known: its roles and edges.
        card: what was measured of it.
    """

    name: str
    network: Transformer
    compiled: Compiled
    correspondence: Correspondence
    known: Known
    card: Mapping[str, Any]


def names() -> list[str]:
    """The programs that a network was trained to do."""
    return [name.removeprefix(FAMILY) for name in embedded.names() if name.startswith(FAMILY)]


def open(name: str) -> Trained:
    """A trained network.

    Args:
        name: of `names`.

    Raises:
        UnknownName: if there is none.
        CorruptFile: if a file of the package is damaged.
    """
    if name not in names():
        raise UnknownName.among("network trained to do a program", name, names())
    network, _ = embedded.load(FAMILY + name)
    card = embedded.card(FAMILY + name)
    high = programs.open(card["program"])
    correspondence = Correspondence.from_json(card["correspondence"])
    assert isinstance(network, Transformer)
    return Trained(FAMILY + name, network, high, correspondence, correspondence.known(high.known), card)


def _written(parts: Mapping[Site, Site]) -> dict[str, str]:
    return {str(old): str(new) for old, new in parts.items()}
