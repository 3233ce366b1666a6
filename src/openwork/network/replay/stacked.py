"""Many cells in one forward pass, stacked along the batch: the way that works for every edit on every network.

What ran before the first edited site is not computed again where that was found to hold (see
`openwork.network.replay.prefix`); elsewhere these are full forward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openwork.edit import Edit
from openwork.errors import EditMissed
from openwork.network.apply import editor
from openwork.network.certify import first_output
from openwork.network.context import Context, Ledger, SourceRun
from openwork.network.inputs import Prepared
from openwork.network.layout import place_axes
from openwork.network.ports import joined, select
from openwork.network.replay.prefix import Prefix
from openwork.network.replay.writes import Write
from openwork.network.run import called, eagerly
from openwork.network.session import Session, Visit
from openwork.task import Inputs, Tensors

if TYPE_CHECKING:
    from openwork.network.network import Network


@dataclass(eq=False)
class Row:
    """A cell in a stacked pass: the examples that it runs, and what it writes.

    Args:
        examples: which examples.
        writes: values to write, worked out beforehand.
        edits: edits to apply as they are, where there are no writes.
    """

    examples: Sequence[int]
    writes: Sequence[Write] = ()
    edits: Sequence[Edit] = ()

    @property
    def sites(self) -> list[str]:
        """Base names of the sites written, each once."""
        return list(dict.fromkeys([*(w.site for w in self.writes), *(e.site.path for e in self.edits)]))


@dataclass(eq=False)
class Stack:
    """Runs cells stacked along the batch.

    Args:
        net: the network.
        inputs: all examples.
        sources: the runs that edits read, on all examples.
        surrogates: the functions that `Substitute` edits name.
        prefix: what need not be computed again, or None to compute everything.
    """

    net: Network
    inputs: Inputs | Tensors
    sources: Mapping[str, SourceRun]
    surrogates: Mapping[str, Callable[[Tensor], Tensor]]
    prefix: Prefix | None = None
    latest: tuple[list[int], Prepared] | None = field(default=None, init=False)

    def run(self, cells: Sequence[Row]) -> Tensor:
        """The logits of all examples of all cells, one cell after the other: (row, ...).

        Raises:
            EditMissed: if an edit reached no row.
        """
        net = self.net
        examples = [e for cell in cells for e in cell.examples]
        prepared = self._prepared(examples)
        spans, start = [], 0
        for cell in cells:
            spans.append(slice(start, start + len(cell.examples)))
            start += len(cell.examples)
        sites = sorted({site for cell in cells for site in cell.sites}, key=net.map.order)
        ledgers: list[Ledger] = []
        with torch.no_grad(), eagerly(net), Session(net.root, len(examples)) as session:
            session.count_steps()
            for site in sites:
                visit = self._visit(site, cells, spans, session, prepared, ledgers)
                net.map.port(site).attach(session, visit, True)
            if self.prefix is not None:
                session.enter(self.prefix.skipping(sites[0], examples))
            session.install()
            logits = first_output(called(net, prepared))
        for ledger in ledgers:
            if not ledger.rows:
                raise EditMissed(
                    f"{type(ledger.edit).__name__} at {ledger.edit.site} never fired: it reached no row; "
                    f"{ledger.edit.where}"
                )
        return logits

    def _prepared(self, examples: list[int]) -> Prepared:
        """The arguments of a call on some examples; passes on the same ones, one after the other, share them."""
        if self.latest is None or self.latest[0] != examples:
            self.latest = examples, self.net.preparer.prepare(self.inputs.take(examples))
        return self.latest[1]

    def _visit(
        self,
        site: str,
        cells: Sequence[Row],
        spans: Sequence[slice],
        session: Session,
        prepared: Prepared,
        ledgers: list[Ledger],
    ) -> Visit:
        """Everything that the cells do at one site, each on its own rows."""
        info = self.net.map.info(site)
        parts: list[tuple[slice, Visit]] = []
        for cell, span in zip(cells, spans, strict=True):
            visit: Visit | None = None
            for write in (w for w in cell.writes if w.site == site):
                step = _writing(write, cell.examples, info.part_axis, info.axes)
                visit = step if visit is None else joined(visit, step)
            for edit in (e for e in cell.edits if e.site.path == site):
                layout = prepared.layout.take(range(span.start, span.stop))
                sources = _rows_of(self.sources, cell.examples)
                context = Context.at(self.net, session, site, layout, sources, self.surrogates)
                ledgers.append(Ledger(edit, site))
                step = editor(edit, context, ledgers[-1])
                visit = step if visit is None else joined(visit, step)
            if visit is not None:
                parts.append((span, visit))
        if len(cells) == 1:
            return parts[0][1]

        def each(value: Tensor) -> Tensor | None:
            out = value.clone()
            for span, visit in parts:
                new = visit(value[span])
                if new is not None:
                    out[span] = new
            return out

        return each


def _writing(write: Write, examples: Sequence[int], axis: int, axes: tuple[str, ...]) -> Visit:
    rows = torch.as_tensor(examples)
    where = write.where[rows]
    whole = bool(where.all())

    def visit(value: Tensor) -> Tensor:
        device = value.device
        new = write.value.index_select(0, rows.to(write.value.device)).to(value)
        part = select(value, axis, write.index)
        if not whole:
            shape = [1] * part.ndim
            shape[0] = len(rows)
            for place in place_axes(axes):
                shape[place] = part.shape[place]
            new = torch.where(where.to(device).reshape(shape), new, part)
        if not write.index:
            return new
        out = value.clone()
        return out.index_copy_(axis, torch.tensor(write.index, device=device), new)

    return visit


def _rows_of(sources: Mapping[str, SourceRun], examples: Sequence[int]) -> dict[str, SourceRun]:
    """The sources on some of the examples."""
    if all(list(examples) == list(range(run.layout.rows)) for run in sources.values()):
        return dict(sources)
    rows = torch.as_tensor(examples)
    out = {}
    for name, run in sources.items():
        values = {site: value.index_select(0, rows.to(value.device)) for site, value in run.values.items()}
        out[name] = SourceRun(values, run.layout.take(rows.tolist()))
    return out
