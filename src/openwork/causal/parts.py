"""The parts of a network that a causal method goes through: heads, units, whole sub-layers, or sets of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openwork.errors import BadInput
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

Components = Any
"""A site or pattern, several, or name -> sites that belong together; None for all heads and MLPs."""

EVERYTHING = ("blocks.*.attn.z", "blocks.*.mlp.out")


@dataclass(frozen=True)
class Part:
    """Something that is changed as one.

    Args:
        name: what to call it: its site, or the name of the set.
        sites: where it is read and written, in order of execution.
    """

    name: str
    sites: tuple[Site, ...]

    @property
    def layer(self) -> int:
        """The number of its first block; -1 outside the blocks."""
        block = self.sites[0].block
        return -1 if block is None else block

    @property
    def kind(self) -> str:
        """The name of its sites below the block, e.g. ``attn.z``; ``set`` if they differ."""
        kinds = {site.kind for site in self.sites}
        return kinds.pop() if len(kinds) == 1 else "set"

    @property
    def index(self) -> int:
        """The number of its head or unit; -1 if it is not a single one."""
        return self.sites[0].index[0] if len(self.sites) == 1 and len(self.sites[0].index) == 1 else -1


def parts_of(net: Network, components: Components = None) -> list[Part]:
    """The parts that patterns name.

    Heads are parts of their own, and so is each head, unit or channel of an index: ``blocks.0.attn.z`` gives one part
    for each head, ``blocks.0.mlp.hidden[0-511]`` one for each of 512 units, ``blocks.0.mlp.hidden`` a single one.

    Args:
        net: the network.
        components: a site or pattern; several; or name -> sites or patterns that make up one part.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: if nothing is selected, or something twice.
    """
    if components is None:
        components = [pattern for pattern in EVERYTHING if _exists(net, pattern)]
        if not components:
            raise BadInput(
                f"expected a network with heads or MLPs; {net.name} has none among its {len(net.sites)} sites. Name "
                "components= by site"
            )
    found: list[Part] = []
    if isinstance(components, Mapping):
        for name, patterns in components.items():
            sites = [site for pattern in _listed(patterns) for site in net.map.resolve(pattern)]
            if not sites:
                raise BadInput(f"expected at least one site in the set {name!r}; got none")
            found.append(Part(str(name), tuple(sorted(sites, key=lambda s: (net.map.order(s.path), s.index)))))
    else:
        for pattern in _listed(components):
            for site in net.map.resolve(pattern):
                info = net.map.info(site.path)
                split = site.index or (tuple(range(info.parts)) if info.axes[info.part_axis] == "head" else ())
                found += [Part(str(s), (s,)) for s in ([site[i] for i in split] if split else [site])]
    names = [part.name for part in found]
    if not found or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BadInput(f"expected at least one component, each once; got {twice if twice else 'none'}")
    return sorted(found, key=lambda p: (net.map.order(p.sites[0].path), p.sites[0].index))


def coordinates(parts: Sequence[Part], axis: str = "component") -> dict[str, Any]:
    """Coordinates of an axis of parts: its labels, and ``layer``, ``kind`` and ``index`` to draw a map from."""
    prefix = "" if axis == "component" else f"{axis}_"
    return {
        axis: [part.name for part in parts],
        f"{prefix}layer": (axis, [part.layer for part in parts]),
        f"{prefix}kind": (axis, [part.kind for part in parts]),
        f"{prefix}index": (axis, [part.index for part in parts]),
    }


def _listed(patterns: Any) -> list[Any]:
    return [patterns] if isinstance(patterns, (str, Site)) else list(patterns)


def _exists(net: Network, pattern: str) -> bool:
    kind = Site.parse(pattern).kind
    return any(Site.parse(name).kind == kind and name.startswith("blocks.") for name in net.sites)
