"""Who adds to the residual stream, who reads it, and so which edges exist between the components of one network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from openwork.circuit import Node
from openwork.edit import Add, Edit, Patch
from openwork.errors import BadInput, SiteRefused
from openwork.site import Site, Where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openwork.network import Network

HEADS = ("q", "k", "v", "z")
NO_SENDER = {
    "resid_pre": "it is the sum of all earlier contributions; of these, name the ones that are meant",
    "resid_mid": "it is the sum of all earlier contributions; of these, name the ones that are meant",
    "resid_post": "it is the sum of all earlier contributions; of these, name the ones that are meant",
    "q": "it adds nothing to the stream itself; name z of its head",
    "k": "it adds nothing to the stream itself; name z of its heads",
    "v": "it adds nothing to the stream itself; name z of its heads",
    "scores": "they add nothing to the stream themselves; name z of their head",
    "pattern": "it adds nothing to the stream itself; name z of its head",
    "in": "it is what a sub-layer reads; as a sender, name the out of that sub-layer",
    "scale": "it is a divisor, which adds nothing to the stream",
    "router": "it chooses experts and adds nothing to the stream; name the out of its sub-layer",
    "final_norm": "nothing but the logits comes after it",
    "logits": "nothing comes after them",
}
NO_RECEIVER = {
    "resid_pre": "it is read by every later component; name these, or logits",
    "resid_mid": "it is read by every later component; name these, or logits",
    "resid_post": "it is read by every later component; name these, or logits",
    "z": "it does not read the stream itself; name q, k or v",
    "scores": "they follow from q and k; name these",
    "pattern": "it follows from q and k; name these",
    "out": "it is what a sub-layer adds; as a receiver, name in of that sub-layer, or q, k or v",
    "scale": "it is part of how its sub-layer reads; name in of that sub-layer",
    "final_norm": "only the logits read it; name logits",
    "embed": "nothing comes before it",
}
SENDERS, RECEIVERS = ("out", "z", "hidden"), ("in", "q", "k", "v", "hidden", "router")


@dataclass(frozen=True, eq=False)
class Wiring:
    """The contributions to the residual stream of the main tower of a network, and who can read which.

    Args:
        net: the network.
        tower: what stands before ``blocks`` in the names of the tower's sites, e.g. ``decoder.``; mostly nothing.
        outs: the contributions, ``blocks.0.attn.out`` and so on, in order of execution.
        within: pairs of sub-layers of one block of which the second reads what the first adds. In a parallel block
            there are none.
    """

    net: Network
    tower: str
    outs: tuple[str, ...]
    within: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, net: Network, inputs: Any) -> Wiring:
        """Find the contributions, and by experiment who reads what within each block.

        Every block gets the stream of the unedited run, while noise is added to one contribution of each; what differs
        then reads that contribution within the block.

        Args:
            net: the network.
            inputs: a few of its inputs.

        Raises:
            SiteRefused: for a network without blocks, or with a block of which it is not known what it adds.
        """
        tower = _tower(net)
        outs = _contributions(net, tower)
        starts = [f"{tower}blocks.{i}.resid_pre" for i in range(net.n_blocks)]
        readers = {name[: -len(".out")]: _reader(net, name) for name in outs}
        keep = [*starts, *(reader for reader in readers.values() if reader is not None)]
        plain = net.run(inputs, keep=sorted(set(keep), key=net.map.order))
        rows = Where(rows=range(plain.layout.rows))  # a copy: blocks may change in place what they are given
        held: list[Edit] = [Patch(start, rows, source="plain") for start in starts]
        within: set[tuple[str, str]] = set()
        generator = torch.Generator().manual_seed(0)
        for kind in dict.fromkeys(Site.parse(name).kind for name in outs):
            changed = [name for name in outs if Site.parse(name).kind == kind]
            noise = [
                Add(name, vector=torch.randn(net.map.info(name).shape[-1], generator=generator)) for name in changed
            ]
            run = net.run(inputs, keep=keep, edits=[*held, *noise], sources={"plain": plain})
            for name in changed:
                writer = name[: -len(".out")]
                for layer, reader in readers.items():
                    if reader is not None and layer != writer and layer.rpartition(".")[0] == writer.rpartition(".")[0]:
                        apart = (run[reader] - plain[reader]).abs().max()
                        if float(apart) > 1e-6 * float(plain[reader].abs().max()):
                            within.add((writer, layer))
        return cls(net, tower, tuple(outs), frozenset(within))

    @property
    def end(self) -> str:
        """The site from which the logits are read."""
        return f"{self.tower}blocks.{self.net.n_blocks - 1}.resid_post"

    @property
    def start(self) -> str:
        """The site at which the tower begins: the embedding with positions and all."""
        return f"{self.tower}blocks.0.resid_pre"

    def exists(self, sender: Node, receiver: Node) -> bool:
        """Whether the receiver reads what the sender adds to the stream."""
        if sender.site.path in ("embed", self.start) or receiver.site.path == "logits":
            return True
        first, second = sender.site.block, receiver.site.block
        assert first is not None
        assert second is not None
        if first != second:
            return first < second
        return (_layer(sender.site), _layer(receiver.site)) in self.within

    def senders(self, given: Any, apart: bool = False) -> list[Node]:
        """The components that are named as senders.

        Args:
            given: a site, a pattern, a `Node`, or several; ``z`` (heads), ``out`` and ``hidden`` (units) of sub-layers,
                ``embed``, and ``blocks.0.resid_pre`` for the embedding with positions.
            apart: one node for each head of a site.

        Raises:
            BadInput: for a site that adds nothing to the stream, with the reason, or no sender at all.
            SiteRefused: for a site that failed its certificate.
            UnknownName: for a site that does not exist.
        """
        return self._nodes(given, apart, "sender", SENDERS, NO_SENDER, ("embed", self.start))

    def receivers(self, given: Any, apart: bool = False) -> list[Node]:
        """The components that are named as receivers; as `senders`, with ``q``, ``k``, ``v``, ``in``, ``logits``."""
        nodes = self._nodes(given, apart, "receiver", RECEIVERS, NO_RECEIVER, ("logits",))
        for node in nodes:
            if re.search(r"\.cross\.[kv]$", node.site.path):
                raise BadInput(f"{node.site} cannot be a receiver: it reads the stream of another tower")
        return nodes

    def _nodes(
        self,
        given: Any,
        apart: bool,
        role: str,
        allowed: tuple[str, ...],
        reasons: dict[str, str],
        more: tuple[str, ...],
    ) -> list[Node]:
        several: Iterable[Any] = [given] if isinstance(given, (str, Site, Node)) else list(given)
        out: dict[Node, None] = {}
        for item in several:
            node = item if isinstance(item, Node) else Node(Site.parse(item))
            for site in self.net.map.resolve(node.site):
                last = site.path.rpartition(".")[2]
                if site.path not in more or (site.path == "embed" and self.tower):
                    self._check(site, last, role, allowed, reasons)
                split = apart and last in HEADS and len(site.index) != 1
                parts = (site.index or range(self.net.parts(site.path))) if split else ()
                for one in [site[i] for i in parts] or [site]:
                    out[Node(one, node.where)] = None
        if not out:
            raise BadInput(f"expected at least one {role}; got none")
        return list(out)

    def _check(self, site: Site, last: str, role: str, allowed: tuple[str, ...], reasons: dict[str, str]) -> None:
        inside = site.path.startswith(f"{self.tower}blocks.")
        if last in reasons:
            raise BadInput(f"{site} cannot be a {role}: {reasons[last]}")
        if not inside or last not in allowed:
            where = f"the blocks {self.tower}blocks.0-{self.net.n_blocks - 1}"
            raise BadInput(f"{site} cannot be a {role}: it is none of {', '.join(allowed)} of a sub-layer of {where}")


def layers_of(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Senders by the sub-layer that they are part of.

    Raises:
        BadInput: if one contains another.
    """
    out: dict[str, list[Node]] = {}
    for node in nodes:
        out.setdefault(_layer(node.site), []).append(node)
    for layer, inside in out.items():
        if len({node.site.path for node in inside}) > 1:
            raise BadInput(
                f"expected senders that do not contain each other; got {' and '.join(map(str, inside))} of {layer}"
            )
    return out


def placed(net: Network, inputs: Any, nodes: Iterable[Node]) -> None:
    """Check that every token group which nodes name exists in the inputs.

    Raises:
        UnknownName: if one does not.
        BadInput: if positions lie before a row.
    """
    layout = net.preparer.prepare(inputs).layout
    for node in nodes:
        if node.where != Where():
            for row in range(layout.rows):
                layout.positions(node.where, row)


def _layer(site: Site) -> str:
    embedding = site.path == "embed" or site.path.endswith("blocks.0.resid_pre")
    return "embed" if embedding else site.path.rpartition(".")[0]


def _tower(net: Network) -> str:
    found = [m for name in net.sites if (m := re.match(r"(.*?)blocks\.\d+\.", name))]
    towers = {m[1] for m in found}
    if not towers:
        raise SiteRefused(f"{net.name} has no blocks around a residual stream, so there are no paths to patch")
    return next((tower for tower in ("", "decoder.") if tower in towers), found[-1][1])


def _contributions(net: Network, tower: str) -> list[str]:
    out: list[str] = []
    for number in range(net.n_blocks):
        block = f"{tower}blocks.{number}"
        found = [name for name in net.sites if re.fullmatch(re.escape(block) + r"\.[^.]+\.out", name)]
        refused = {n: why for n, why in net.refused.items() if n.startswith(block + ".") and n.endswith(".out")}
        if refused or not found:
            name, why = next(iter(refused.items()), (f"{block}.*.out", "no contribution was found"))
            raise SiteRefused(f"paths need everything that {block} adds to the stream; {name} was refused: {why}")
        odd = next((name for name in found if net.map.info(name).axes != ("batch", "position", "channel")), None)
        if odd is not None:
            raise SiteRefused(f"paths need a stream (batch, position, channel); {odd} has {net.map.info(odd).axes}")
        out += found
    return sorted(out, key=net.map.order)


def _reader(net: Network, out: str) -> str | None:
    """A site at which one sees what the sub-layer of a contribution reads."""
    layer = out[: -len(".out")]
    return next((f"{layer}.{part}" for part in ("in", "q", "hidden") if f"{layer}.{part}" in net.sites), None)
