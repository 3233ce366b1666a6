"""Cells of edits in, the metric of every example out: the one place where the engine runs many edits.

The numbers are those of one full forward pass for each cell. What is computed for them is as little as the network's
certificates allow; see `openwork.network.replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openwork.edit import UNEDITED, Edit, Substitute
from openwork.errors import BadInput, EditMissed, Misaligned, UnknownName
from openwork.network.apply import SourceRun
from openwork.network.certify import first_output
from openwork.network.layout import Layout
from openwork.network.memory import parse_bytes
from openwork.network.replay.certificate import NotReplayable, Suffixes
from openwork.network.replay.reading import Reading
from openwork.network.replay.schedule import Job, Schedule, places_of
from openwork.network.replay.stacked import Row, Stack
from openwork.network.replay.suffix import Suffix
from openwork.network.replay.tail import uncached
from openwork.network.replay.writes import Writer, planned, resolved
from openwork.network.run import Run
from openwork.task import Batch, Inputs, Metric

if TYPE_CHECKING:
    from openwork.network.network import Network

Base = Literal["clean", "corrupted"]
Tick = Callable[[float], None]
TOKENS = 2048
"""Tokens of one stacked pass, at most, unless a single cell has more."""


def silent(share: float) -> None:
    """Reports no progress."""


@dataclass(eq=False)
class Measured:
    """The metric of every example in every cell.

    Args:
        values: (cell, example) in the metric's unit.
        reached: (cell, example) whether the cell's edits select anything in the example.
        base: (example,) the metric of the unedited run.
        how: for each cell ``positions``, ``layers``, ``full`` or ``same``: what was computed again for it.
        notes: what else is to be said of how it was computed.
    """

    values: Float[np.ndarray, "cell example"]
    reached: Bool[np.ndarray, "cell example"]
    base: Float[np.ndarray, " example"]
    how: list[str]
    notes: dict[str, Any] = field(default_factory=dict)


def measure(
    net: Network,
    batch: Batch,
    metric: Metric,
    cells: Sequence[Sequence[Edit]],
    *,
    base: Base = "clean",
    sources: Mapping[str, Any] | None = None,
    surrogates: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Measured:
    """Measure every example under every cell of edits.

    Args:
        net: the network.
        batch: the examples.
        metric: what is read off.
        cells: each the edits of one run.
        base: the inputs that are edited.
        sources: further runs that edits read: name -> `Run` that kept the sites, or inputs to run; ``clean`` and
            ``corrupted`` are those of the batch, ``unedited`` is the unedited run of the base.
        surrogates: the functions that `Substitute` edits name.
        memory: a budget such as ``"4GiB"`` for what runs at once.
        tick: told the share that is done.

    Returns:
        the metric of every cell and example, exactly as one full forward pass a cell gives it.

    Raises:
        EditMissed: for a cell that selects nothing in any example.
        Misaligned: if clean and corrupted rows that a patch aligns differ in length.
        BadInput: if the metric is not finite, a cell is empty, or not even one cell fits the budget.
        UnknownName: for a site, source or surrogate that does not exist.
    """
    if any(not cell for cell in cells):
        raise BadInput("expected at least one edit in every cell; got an empty one")
    return _Measurement(net, batch, metric, base, sources or {}, surrogates or {}, memory).run(
        [resolved(cell, net) for cell in cells], tick
    )


def suffixes(net: Network) -> Suffixes | str:
    """The certificate that single tokens of the network may be replayed, or why they may not; found once."""
    if net.replays is None:
        try:
            net.replays = Suffixes.of(net)
        except NotReplayable as error:
            net.replays = str(error)
    return net.replays


class _Measurement:
    """One call of `measure`."""

    def __init__(
        self,
        net: Network,
        batch: Batch,
        metric: Metric,
        base: Base,
        sources: Mapping[str, Any],
        surrogates: Mapping[str, Callable[[Tensor], Tensor]],
        memory: str | int | None,
    ):
        self.net, self.batch, self.base = net, batch, base
        self.reading = Reading(batch, metric)
        self.inputs = getattr(batch, base)
        self.given = {"clean": batch.clean, "corrupted": batch.corrupted, UNEDITED: self.inputs, **sources}
        self.surrogates = surrogates
        self.layout: Layout = net.preparer.prepare(self.inputs).layout
        self.budget = None if memory is None else parse_bytes(memory)

    def run(self, cells: Sequence[tuple[Edit, ...]], tick: Tick) -> Measured:
        net, n = self.net, len(self.batch)
        sources, run = self._sources(cells)
        base = self.reading.values(first_output(run.output), range(n)).numpy()
        writer = Writer(net, self.layout, run.values, sources, self.surrogates)
        values = np.tile(base, (len(cells), 1))
        reached = np.ones((len(cells), n), dtype=bool)
        how = ["full"] * len(cells)
        stack = Stack(net, self.inputs, sources, self.surrogates)
        plan = suffixes(net)
        waiting: list[tuple[int, Row]] = []
        jobs: list[Job] = []
        for number, cell in enumerate(cells):
            reached[number] = self._reached(writer, cell)
            if not reached[number].any():
                raise EditMissed(f"{cell[0]} reaches no token of any of the {n} examples")
            if any(isinstance(e, Substitute) or net.map.info(e.site.path).axes[0] != "batch" for e in cell):
                alone = net.run(self.inputs, edits=cell, sources=self.given, surrogates=self.surrogates)
                values[number] = self.reading.values(alone.logits, range(n)).numpy()
                continue
            if planned(cell, net):
                first, *rest = cell
                writes = [writer.write(first), *(writer.overwrite(edit) for edit in rest)]
                rows = sorted({row for write in writes for row in write.rows})
                if not rows:
                    how[number] = "same"
                    continue
                places = places_of(plan, writes) if isinstance(plan, Suffixes) and self.plain else None
                if places is None:
                    waiting.append((number, Row(rows, writes=writes)))
                else:
                    how[number] = "positions"
                    jobs.append(Job(number, rows, writes, places))
            else:
                waiting.append((number, Row(range(n), edits=cell)))
        notes: dict[str, Any] = {}
        if isinstance(plan, str):
            notes["full because"] = plan
        done, total = 0, sum(len(job.examples) for job in jobs) + sum(len(row.examples) for _, row in waiting)
        if jobs:
            assert isinstance(plan, Suffixes)
            kwargs = uncached(net, net.preparer.prepare(self.inputs).kwargs)
            entered = list(dict.fromkeys(place.site for job in jobs for place in job.places))
            suffix = Suffix(net, plan, kwargs, torch.tensor(self.batch.at), entered)
            for job, examples, found in Schedule(net, plan, suffix, self.reading, self.budget).run(jobs):
                values[job.cell, examples] = found.numpy()
                done += len(examples)
                tick(done / total)
            full = len(jobs) * sum(self.layout.lengths) * len(plan.stages)
            notes |= {"replayed tokens": suffix.tokens, "tokens of full passes": full}
            notes["certificate"] = max(plan.residuals.values())
        for part in self._parts(waiting):
            logits = stack.run([row for _, row in part])
            examples = [e for _, row in part for e in row.examples]
            found = self.reading.values(logits, examples).numpy()
            start = 0
            for number, row in part:
                values[number, list(row.examples)] = found[start : start + len(row.examples)]
                start += len(row.examples)
            done += start
            tick(done / total)
        return Measured(values, reached, base, how, notes)

    @property
    def plain(self) -> bool:
        """Whether the inputs are rows of tokens without left padding and nothing else."""
        return isinstance(self.inputs, Inputs) and not any(self.layout.offsets)

    def _sources(self, cells: Sequence[tuple[Edit, ...]]) -> tuple[dict[str, SourceRun], Run]:
        """The source runs that the cells read, and the unedited run."""
        wanted: dict[str, set[str]] = {}
        for edit in (edit for cell in cells for edit in cell):
            if edit.needs is not None:
                if edit.needs not in self.given:
                    hint = f'Pass sources={{"{edit.needs}": inputs_or_run}}.'
                    raise UnknownName.among("source", edit.needs, self.given, hint)
                wanted.setdefault(edit.needs, set()).add(edit.site.path)
        written = {e.site.path for cell in cells for e in cell if "query" not in self.net.map.info(e.site.path).axes}
        order = self.net.map.order
        base = self.net.run(self.inputs, keep=sorted(written | wanted.get(UNEDITED, set()), key=order))
        out: dict[str, SourceRun] = {}
        for name, sites in wanted.items():
            given = self.given[name]
            if isinstance(given, SourceRun):
                out[name] = given
                continue
            same = given is self.inputs and sites <= set(base.values)
            run = (
                given
                if isinstance(given, Run)
                else base
                if same
                else self.net.run(given, keep=sorted(sites, key=order))
            )
            if run.layout.lengths != self.layout.lengths and name in ("clean", "corrupted"):
                self._misaligned(run.layout.lengths, name, cells)
            out[name] = SourceRun({site: run[site] for site in sites}, run.layout)
        return out, base

    def _misaligned(self, lengths: Sequence[int], name: str, cells: Sequence[tuple[Edit, ...]]) -> None:
        if all(e.where.group or getattr(e, "source_where", None) for cell in cells for e in cell if e.needs == name):
            return
        row = next(i for i, (a, b) in enumerate(zip(lengths, self.layout.lengths, strict=True)) if a != b)
        raise Misaligned(
            f"expected clean and corrupted rows that align token by token, as a patch by position needs; row {row} has "
            f"{lengths[row]} and {self.layout.lengths[row]} tokens. Name a token group that both have"
        )

    def _reached(self, writer: Writer, cell: tuple[Edit, ...]) -> Bool[np.ndarray, " example"]:
        """Which examples the cell's edits select anything in."""
        out = np.zeros(len(self.batch), dtype=bool)
        for edit in cell:
            context = writer.context(edit.site.path)
            axis = context.column_axis()
            if context.layout is None or axis is None:
                mask = None if edit.where.rows is None else torch.zeros(len(self.batch), 1, dtype=torch.bool)
                if mask is not None:
                    mask[list(edit.where.rows)] = True
            else:
                mask = context.mask(edit.where, self.layout.width, 0)
            out |= True if mask is None else mask.any(1).numpy()
        return out

    def _parts(self, waiting: Sequence[tuple[int, Row]]) -> list[list[tuple[int, Row]]]:
        """Cells that run together."""
        parts: list[list[tuple[int, Row]]] = []
        count, limit = 0, max(1, TOKENS // self.layout.width)
        for number, row in waiting:
            if not parts or count + len(row.examples) > limit:
                parts.append([])
                count = 0
            parts[-1].append((number, row))
            count += len(row.examples)
        return parts
