"""What lies between a part and the output, and holding it at the values of another run.

Every block adds contributions (``attn.out``, ``mlp.out``) to the residual stream. A part reaches the output straight
through the residual stream, or by way of contributions that come after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openwork.causal.parts import Part
from openwork.edit import UNEDITED, Edit, Patch
from openwork.errors import BadInput, SiteRefused
from openwork.network.run import Run
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

CONTRIBUTION = re.compile(r"(?:\w+\.)*blocks\.\d+\.\w+\.out")
AT_ONCE = 1 << 28
"""Bytes of runs with an ablated part that are held at once."""


def contributions(net: Network) -> list[str]:
    """Everything that is added to the residual stream, in order of execution.

    Raises:
        SiteRefused: if a contribution failed its certificate, for then not all of them can be frozen.
        BadInput: if a block has none.
    """
    for name, reason in net.refused.items():
        if CONTRIBUTION.fullmatch(name):
            raise SiteRefused(f"{name} was refused on this network: {reason}. Direct effects need all contributions")
    found = sorted((name for name in net.sites if CONTRIBUTION.fullmatch(name)), key=net.map.order)
    without = {Site.parse(name).block for name in net.sites} - {None} - {Site.parse(name).block for name in found}
    if not found or without:
        raise BadInput(
            f"expected blocks that add contributions to a residual stream; {net.name} has "
            f"{'none' if not found else f'none in blocks {sorted(without, key=str)}'}: use ablate for total effects"
        )
    return found


def later(net: Network, part: Part) -> list[str]:
    """The contributions that a part can act through: those after it, its own sub-layer's left out.

    Raises:
        BadInput: if the part is not within one sub-layer.
    """
    subs = {site.path.rpartition(".")[0] for site in part.sites}
    own = f"{next(iter(subs))}.out"
    every = contributions(net)
    if len(subs) > 1 or own not in every:
        raise BadInput(
            f"expected parts within one sub-layer, such as blocks.0.attn.z[1] or blocks.0.mlp.out, for direct effects; "
            f"{part.name} is none: everything passes through the residual stream"
        )
    return [name for name in every if net.map.order(name) > net.map.order(own)]


def held(sites: Sequence[str], source: str = UNEDITED) -> tuple[Edit, ...]:
    """Edits that hold contributions at the values of another run."""
    return tuple(Patch(site, source=source) for site in sites)


def ablated_runs(
    net: Network, inputs: Any, parts: Sequence[tuple[Part, Sequence[Edit]]], sources: Mapping[str, Run]
) -> Iterator[dict[str, tuple[Part, Run]]]:
    """Runs with one part ablated in each, which keep all later contributions; a few at a time.

    Args:
        net: the network.
        inputs: the examples.
        parts: each part and the edits that ablate it.
        sources: the runs that these edits read.

    Yields:
        name of the source -> the part and its run.
    """
    group: dict[str, tuple[Part, Run]] = {}
    size = 0
    for part, edits in parts:
        run = net.run(inputs, keep=later(net, part), edits=edits, sources=sources)
        group[f"without {part.name}"] = part, run
        size += sum(value.nbytes for value in run.values.values())
        if size > AT_ONCE:
            yield group
            group, size = {}, 0
    if group:
        yield group
