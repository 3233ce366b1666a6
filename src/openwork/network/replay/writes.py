"""What a cell of edits writes, worked out from the unedited run before anything runs again.

The first site of a cell sees the value of the unedited run, so what an edit makes of it is known beforehand, and with
it which tokens of which examples change at all. At later sites that holds for edits that do not look at the value they
replace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openwork.edit import Ablate, Custom, Drop, Edit, Insert, KnockOut, Patch, Set, Substitute
from openwork.errors import BadInput
from openwork.network.apply import reached, whole_part
from openwork.network.context import Context, SourceRun
from openwork.network.layout import Layout
from openwork.network.ports import select
from openwork.network.session import Session
from openwork.site import Site, Where

if TYPE_CHECKING:
    from openwork.network.network import Network

WEIGHTS = ("scores", "pattern")
CONSTANT = (Patch, Set, Ablate)


@dataclass(eq=False)
class Write:
    """A value to write at one site.

    Args:
        site: base name of the site.
        index: the heads, units or channels that are written; empty for all.
        value: (example, ...) what the part would be if it were written everywhere.
        where: (example, position) bool, the tokens that are written; (example, 1) where the site has no positions.
    """

    site: str
    index: tuple[int, ...]
    value: Tensor
    where: Tensor

    @property
    def rows(self) -> list[int]:
        """The examples of which anything is written."""
        return torch.nonzero(self.where.any(1)).flatten().tolist()


@dataclass(eq=False)
class Writer:
    """Works out writes against one unedited run of the examples.

    Args:
        net: the network.
        layout: of the examples.
        base: the unedited run: site -> value, holding every site that is written.
        sources: the runs that edits read.
        surrogates: the functions that `Substitute` edits name.
    """

    net: Network
    layout: Layout
    base: Mapping[str, Tensor]
    sources: Mapping[str, SourceRun]
    surrogates: Mapping[str, Callable[[Tensor], Tensor]]
    _parts: dict[Edit, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _contexts: dict[str, Context] = field(default_factory=dict)

    def context(self, site: str) -> Context:
        """What an edit at the site can look at."""
        if site not in self._contexts:
            session = Session(self.net.root, self.layout.rows)
            self._contexts[site] = Context.at(self.net, session, site, self.layout, self.sources, self.surrogates)
        return self._contexts[site]

    def write(self, edit: Edit) -> Write:
        """What the first edit of a cell writes: only the tokens that it changes."""
        site = edit.site.path
        value = self.base[site]
        new, changed = self._part(edit)
        mask = reached(edit, value, self.context(site))
        where = changed if mask is None else changed & _per_example(mask, changed)
        return Write(site, edit.site.index, new, where)

    def overwrite(self, edit: Edit) -> Write:
        """What a later edit of a cell writes, whatever it finds there.

        Raises:
            TypeError: for an edit that looks at the value it replaces; ask `constant` first.
        """
        if not constant(edit):
            raise TypeError(f"expected an edit that does not look at what it replaces; got {edit!r}")
        new, changed = self._part(edit)
        mask = reached(edit, self.base[edit.site.path], self.context(edit.site.path))
        everywhere = torch.ones_like(changed)
        return Write(edit.site.path, edit.site.index, new, everywhere if mask is None else _per_example(mask, changed))

    def _part(self, edit: Edit) -> tuple[Tensor, Tensor]:
        key = anywhere(edit, self.sources, self.layout)
        if key not in self._parts:
            value, context = self.base[edit.site.path], self.context(edit.site.path)
            part = select(value, context.part_axis, edit.site.index)
            new = whole_part(key, value, context)
            self._parts[key] = new, _changed(new, part, context)
        return self._parts[key]


def anywhere(edit: Edit, sources: Mapping[str, SourceRun], layout: Layout) -> Edit:
    """The edit without its `where` if what it writes does not depend on that, or else the edit itself."""
    if edit.where.group is not None or getattr(edit, "source_where", None) is not None:
        return edit
    if edit.needs is not None and sources[edit.needs].layout.lengths != layout.lengths:
        return edit
    return replace(edit, where=Where())


def constant(edit: Edit) -> bool:
    """Whether what an edit writes does not depend on the value that it replaces."""
    return isinstance(edit, CONSTANT)


def planned(edits: Sequence[Edit], net: Network) -> bool:
    """Whether all that a cell writes can be worked out beforehand (see the module's text)."""
    first, *rest = edits
    for edit in edits:
        axes = net.map.info(edit.site.path).axes
        if isinstance(edit, (KnockOut, Substitute)) or axes[0] != "batch" or "query" in axes:
            return False
    if isinstance(first, Custom) and rest:
        return False
    return all(constant(edit) and edit.site.path != first.site.path for edit in rest)


def ordered(edits: Sequence[Edit], net: Network) -> tuple[Edit, ...]:
    """Edits in order of execution of their sites; those at one site stay in the order given."""
    return tuple(sorted(edits, key=lambda e: net.map.order(e.site.path)))


def resolved(edits: Sequence[Edit], net: Network) -> tuple[Edit, ...]:
    """One edit for each site that the pattern of each selects."""
    out: list[Edit] = []
    for edit in edits:
        if isinstance(edit, (Insert, Drop)):
            raise BadInput(f"{type(edit).__name__} changes how many tokens there are, which only net.run follows")
        for site in net.map.resolve(edit.site):
            out.append(edit if edit.site == site else replace(edit, site=Site(site.path, site.index)))
    return ordered(out, net)


def _changed(new: Tensor, part: Tensor, context: Context) -> Tensor:
    """(example, position) where the part changes; (example, 1) at sites without positions."""
    differs = context.flat(new != part).cpu()
    axis = context.column_axis()
    if axis is None:
        return differs.flatten(1).any(1, keepdim=True)
    return differs.movedim(axis, 1).flatten(2).any(2) if differs.ndim > 2 else differs


def _per_example(mask: Tensor, changed: Tensor) -> Tensor:
    return mask if mask.shape[1] == changed.shape[1] else mask.any(1, keepdim=True)
