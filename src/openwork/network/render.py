"""The anatomy and the certificates of a network as a readable tree."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    from openwork.network.anatomy import SiteInfo
    from openwork.network.network import Network


def anatomy_tree(net: Network) -> Tree:
    """Every site, its shape, what was checked with its residual, and what was refused and why.

    Blocks with the same sites and checks are drawn once.
    """
    inert = sum(s.status == "inert" for s in net.sites.values())
    counts = f"{len(net.sites) - inert} certified, {inert} inert, {len(net.refused)} refused"
    order = "causal" if net.causal else "not causal"
    tree = Tree(Text.assemble((net.name, "bold"), f"  {net.n_blocks} blocks, {order}; sites: {counts}"))
    branches: dict[str, Tree] = {}
    for name, sites in _grouped(net).items():
        branch = branches[name] = tree.add(Text(name, style="bold cyan"))
        for site in sites:
            branch.add(_line(site, name))
    if net.refused:
        branch = tree.add(Text("refused", style="bold red"))
        for reason, names in _reasons(net.refused).items():
            branch.add(Text.assemble((names, "red"), f"  {reason}"))
    tree.add(Text("module:<path>.in and module:<path>.out of any module that runs", style="dim"))
    return tree


def _grouped(net: Network) -> dict[str, list[SiteInfo]]:
    """Sites by block; runs of alike blocks under one name such as ``blocks.0-11``."""
    blocks: dict[str, list[SiteInfo]] = defaultdict(list)
    for name, site in net.sites.items():
        match = re.match(r"((?:.*\.)?blocks\.\d+)\.", name)
        blocks[match[1] if match else ""].append(site)
    out: dict[str, list[SiteInfo]] = {}
    before: tuple[str, int, int, list[SiteInfo], tuple[object, ...]] | None = None

    def flush() -> None:
        if before is not None:
            stem, first, last, sites, _ = before
            out[f"{stem}{first}" if first == last else f"{stem}{first}-{last}"] = sites

    for name, sites in blocks.items():
        if not name:
            continue
        stem, number = name.rsplit(".", 1)
        key = tuple((s.name[len(name) :], s.shape, s.status) for s in sites)
        if before is not None and before[0] == stem + "." and before[4] == key and before[2] + 1 == int(number):
            before = (*before[:2], int(number), _worst(before[3], sites), key)
            continue
        flush()
        before = (stem + ".", int(number), int(number), sites, key)
    flush()
    whole = blocks.get("", [])
    return {"input": [s for s in whole if s.name == "embed"], **out, "output": [s for s in whole if s.name != "embed"]}


def _worst(first: list[SiteInfo], second: list[SiteInfo]) -> list[SiteInfo]:
    """Of each pair of alike sites the one with the larger residuals."""
    return [max(pair, key=lambda s: max((c.residual for c in s.checks), default=0)) for pair in zip(first, second)]  # noqa: B905


def _line(site: SiteInfo, block: str) -> Text:
    name = re.sub(r"^(?:.*\.)?blocks\.\d+\.", "", site.name)
    shape = " × ".join(f"{axis} {size}" for axis, size in zip(site.axes, site.shape, strict=True))
    checks = "; ".join(dict.fromkeys(map(str, site.checks)))
    style = "green" if site.status == "certified" else "yellow"
    return Text.assemble((f"{name:14}", style), (f" {shape:52}", "dim"), f" {site.status}", (f"  {checks}", "dim"))


def _reasons(refused: dict[str, str]) -> dict[str, str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in refused.items():
        by_reason[reason].append(name)
    return {
        r: ", ".join(names[:6]) + (f" … {len(names) - 6} more" if len(names) > 6 else "")
        for r, names in by_reason.items()
    }


def anatomy_html(net: Network) -> str:
    """The tree for a notebook, escaped."""
    console = Console(record=True, width=160, file=None, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(anatomy_tree(net))
    return f"<pre>{html.escape(capture.get())}</pre>"
