"""The map of a network: its certified sites, how to reach them, what was refused and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from openwork.errors import BadInput, SiteRefused, UnknownName
from openwork.network.anatomy import SiteInfo, input_port, output_port
from openwork.network.kinds import hidden_axes
from openwork.network.layout import Layout
from openwork.network.ports import Port
from openwork.network.record import Trace
from openwork.site import Site

MODULE = "module:"


@dataclass(eq=False, repr=False)
class SiteMap:
    """All sites of one network.

    Args:
        sites: certified and inert sites of the grammar, in order of execution.
        ports: how to reach them.
        refused: the others, with the reason.
        modules: the raw inputs and outputs of every module that ran, under their ``module:`` names.
        module_ports: how to reach those.
        width: the number of positions in the dry run.
        rows: the number of rows in the dry run.
    """

    sites: dict[str, SiteInfo]
    ports: dict[str, Port]
    refused: dict[str, str]
    modules: dict[str, SiteInfo]
    module_ports: dict[str, Port]
    width: int
    rows: int

    def __post_init__(self) -> None:
        self._order = {name: i for i, name in enumerate(self.sites)}
        self._order.update({name: len(self._order) + i for i, name in enumerate(self.modules)})
        self._resolved: dict[str, list[Site]] = {}

    def __repr__(self) -> str:
        return f"SiteMap({len(self.sites)} sites, {len(self.refused)} refused, {len(self.modules)} of modules)"

    def info(self, name: str) -> SiteInfo:
        """The certificate of a site by its base name."""
        return self.sites[name] if name in self.sites else self.modules[name]

    def port(self, name: str) -> Port:
        """How to reach a site."""
        return self.ports[name] if name in self.ports else self.module_ports[name]

    def order(self, name: str) -> int:
        """Its place in the order of execution."""
        return self._order[name]

    def layout_at(self, name: str, layout: Layout) -> Layout | None:
        """The layout of a site's positions: that of the inputs, or None where they are others (image patches)."""
        info = self.info(name)
        if info.axes[0] == "batch" and info.shape[0] != self.rows:
            return None
        if "x" in info.axes:
            return None
        for axis, size in zip(info.axes, info.shape, strict=True):
            if axis in ("position", "query"):
                return layout if size == self.width else None
        return layout

    def resolve(self, pattern: str | Site) -> list[Site]:
        """The sites that a site or pattern names, in order of execution.

        Raises:
            UnknownName: if there is none, with the nearest names.
            SiteRefused: if it names only sites that failed their certificate.
            BadInput: if an index is out of range.
        """
        text = str(pattern)
        if text not in self._resolved:
            self._resolved[text] = self._resolve(Site.parse(pattern))
        return self._resolved[text]

    def _resolve(self, site: Site) -> list[Site]:
        path = site.path
        known = self.modules if path.startswith(MODULE) else self.sites
        if path in known:
            names = [path]
        else:
            expression = _expression(path)
            names = [n for n in known if expression.fullmatch(n)]
            if not names:
                self._explain(path, expression)
        for name in names:
            info = known[name]
            wrong = [i for i in site.index if i >= info.parts]
            if wrong:
                raise BadInput(
                    f"expected an index below {info.parts} ({info.axes[info.part_axis]}s of {name}); got {wrong}"
                )
        return [Site(name, site.index) for name in names]

    def _explain(self, path: str, expression: re.Pattern[str]) -> None:
        for name, reason in self.refused.items():
            if expression.fullmatch(name) or _expression(name).fullmatch(path):
                raise SiteRefused(f"{name} was refused on this network: {reason}. Module sites (module:...) remain")
        known = self.modules if path.startswith(MODULE) else self.sites
        raise UnknownName.among("site", path, known, "`openwork open MODEL` lists them all.")


def _expression(path: str) -> re.Pattern[str]:
    """A pattern's components: ``*`` is any one component, ``2-5`` a range of numbers, ``a|b`` alternatives."""
    parts = []
    for part in re.split(r"(\.)", path):
        spans = re.fullmatch(r"(\d+)-(\d+)", part)
        if spans:
            parts.append("(?:" + "|".join(map(str, range(int(spans[1]), int(spans[2]) + 1))) + ")")
        elif "|" in part:
            parts.append("(?:" + "|".join(map(re.escape, part.split("|"))) + ")")
        else:
            parts.append(re.escape(part).replace(r"\*", "[^.]+"))
    return re.compile("".join(parts))


def module_sites(trace: Trace) -> tuple[dict[str, SiteInfo], dict[str, Port]]:
    """Raw inputs and outputs of every module that ran; calls after a module's first carry ``#1``, ``#2`` ..."""
    counts: dict[nn.Module, int] = {}
    for call in trace.calls:
        counts[call.module] = counts.get(call.module, 0) + 1
    sites: dict[str, SiteInfo] = {}
    ports: dict[str, Port] = {}
    for call in trace.calls:
        if not call.name:
            continue
        repeated = counts[call.module] > 1
        label = f"{MODULE}{call.name}" + (f"#{call.ordinal}" if call.ordinal else "")
        for side, tensors in (("in", call.inputs), ("out", call.outputs)):
            floating = [(p, t) for p, t in tensors.items() if t.is_floating_point() and t.ndim >= 2]
            if not floating:
                continue
            path, value = floating[0]
            axes = hidden_axes(value, call)
            name = f"{label}.{side}"
            sites[name] = SiteInfo(
                name, axes, tuple(value.shape), "module", (), axes.index("channel"), value.element_size()
            )
            ports[name] = (output_port if side == "out" else input_port)(call, path, repeated=repeated)
    return sites, ports


def grammar(sites: Mapping[str, SiteInfo]) -> list[str]:
    """The names below the blocks, each once, e.g. ``attn.z``."""
    return list(dict.fromkeys(Site.parse(name).kind for name in sites))
