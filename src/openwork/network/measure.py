"""Cells of edits in, the metric of every example out: the one place where the engine runs many edits.

The numbers are those of one full forward pass for each cell. What is computed for them is as little as the network's
certificates allow; see `openwork.network.replay`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openwork.edit import UNEDITED, Edit, Substitute
from openwork.errors import BadInput, EditMissed, Misaligned, UnknownName
from openwork.network.apply import reached
from openwork.network.context import SourceRun
from openwork.network.layout import Layout
from openwork.network.memory import parse_bytes
from openwork.network.replay.certificate import NotReplayable, Suffixes
from openwork.network.replay.prefix import Entries, Prefix
from openwork.network.replay.reading import Reading
from openwork.network.replay.saved import Saved, cells_as_json
from openwork.network.replay.schedule import Job, Schedule, places_of
from openwork.network.replay.stacked import Row, Stack
from openwork.network.replay.suffix import Suffix
from openwork.network.replay.unedited import Unedited, run_unedited
from openwork.network.replay.writes import Writer, planned, resolved
from openwork.network.run import Run
from openwork.network.timeline import Span
from openwork.store.hashing import hash_json, hash_state
from openwork.task import Batch, Inputs, Metric, Tensors

if TYPE_CHECKING:
    from openwork.network.network import Network

Base = Literal["clean", "corrupted"]
Tick = Callable[[float], None]
IMAGES = 2**28
"""Bytes of the largest values of one pass of images, at most, unless a single cell has more."""
TOKENS, TOKENS_ON_DEVICE = 2048, 16384
"""Positions of one pass of whole rows, at most, unless a single cell has more."""


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
        unedited: the metric of the unedited ``clean`` and ``corrupted`` runs, as far as they were run.
        notes: what else is to be said of how it was computed.
    """

    values: Float[np.ndarray, "cell example"]
    reached: Bool[np.ndarray, "cell example"]
    base: Float[np.ndarray, " example"]
    how: list[str]
    unedited: dict[str, Float[np.ndarray, " example"]] = field(default_factory=dict)
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
    to: str | Path | None = None,
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
        to: a folder that keeps what was computed, so that the same call goes on after an interruption.
        tick: told the share that is done.

    Returns:
        the metric of every cell and example, exactly as one full forward pass a cell gives it.

    Raises:
        EditMissed: for a cell that selects nothing in any example.
        Misaligned: if clean and corrupted rows that a patch aligns differ in length.
        OutputOccupied: if `to` holds something else.
        BadInput: if the metric is not finite, a cell is empty, or not even one cell fits the budget.
        UnknownName: for a site, source or surrogate that does not exist.
    """
    if any(not cell for cell in cells):
        raise BadInput("expected at least one edit in every cell; got an empty one")
    measurement = _Measurement(net, batch, metric, base, sources or {}, surrogates or {}, memory)
    return measurement.run([resolved(cell, net) for cell in cells], tick, to)


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
        tokens = isinstance(self.inputs, Inputs) and not any(self.layout.offsets)
        plan = suffixes(net) if tokens else "the inputs are no rows of tokens"
        self.plan = plan if isinstance(plan, Suffixes) else None
        self.notes: dict[str, Any] = {} if isinstance(plan, Suffixes) else {"not replayed because": plan}
        if isinstance(plan, Suffixes) and plan.wide:
            self.notes["all logits because"] = plan.wide
        self.metrics: dict[str, Float[np.ndarray, " example"]] = {}
        self.prefix: Prefix | None = None

    def run(self, cells: Sequence[tuple[Edit, ...]], tick: Tick, to: str | Path | None) -> Measured:
        net, n = self.net, len(self.batch)
        base, sources = self._unedited(cells)
        writer = Writer(net, self.layout, base.values, sources, self.surrogates)
        values = np.tile(base.metric, (len(cells), 1))
        reached = np.ones((len(cells), n), dtype=bool)
        how = ["full"] * len(cells)
        waiting: list[tuple[int, Row]] = []
        jobs: list[Job] = []
        alone: list[int] = []
        for number, cell in enumerate(cells):
            reached[number] = self._reached(writer, cell)
            if not reached[number].any():
                raise EditMissed(f"{cell[0]} reaches no token of any of the {n} examples")
            if any(isinstance(e, Substitute) or net.map.info(e.site.path).axes[0] != "batch" for e in cell):
                alone.append(number)
            elif not planned(cell, net):
                waiting.append((number, Row(range(n), edits=cell)))
            else:
                first, *rest = cell
                writes = [writer.write(first), *(writer.overwrite(edit) for edit in rest)]
                rows = sorted({row for write in writes for row in write.rows})
                places = places_of(self.plan, writes) if self.plan is not None else None
                if not rows:
                    how[number] = "same"
                elif places is None:
                    waiting.append((number, Row(rows, writes=writes)))
                else:
                    how[number] = "positions"
                    jobs.append(Job(number, rows, writes, places))
        saved = None if to is None else Saved.at(to, self._key(cells, sources), values.shape)
        if saved is not None:
            values = np.where(saved.done, saved.values, values)
            jobs = [j for job in jobs if (j := job.without(saved.done[job.cell])) is not None]
            waiting = [(number, row) for number, row in waiting if not saved.done[number, list(row.examples)].all()]
            alone = [number for number in alone if not saved.done[number].all()]
        self._prefix(waiting, how)
        done = 0
        total = n * len(alone) + sum(len(x.examples) for x in jobs) + sum(len(row.examples) for _, row in waiting)
        with nullcontext() if saved is None else saved.writing():
            for cell, examples, found in self._all(cells, jobs, waiting, alone, base, sources):
                values[cell, examples] = found.numpy()
                if saved is not None:
                    saved.put(cell, examples, found.numpy())
                done += len(examples)
                tick(min(1.0, done / total))
        return Measured(values, reached, base.metric, how, self.metrics, self.notes)

    def _key(self, cells: Sequence[tuple[Edit, ...]], sources: Mapping[str, SourceRun]) -> dict[str, Any]:
        """All that the values depend on."""
        read = {f"{name} {site}": value for name, run in sources.items() for site, value in run.values.items()}
        return {
            "model": hash_state(self.net.root.state_dict()), "examples": hash_inputs(self.inputs), "base": self.base,
            "answers": [self.batch.answer, self.batch.wrong, self.batch.at], "metric": self.reading.metric.name,
            "sources": hash_state(read), "cells": cells_as_json(cells), "dtype": str(self.net.dtype),
        }  # fmt: skip

    def _all(
        self,
        cells: Sequence[tuple[Edit, ...]],
        jobs: Sequence[Job],
        waiting: Sequence[tuple[int, Row]],
        alone: Sequence[int],
        base: Unedited,
        sources: Mapping[str, SourceRun],
    ) -> Iterator[tuple[int, Sequence[int], Float[Tensor, " example"]]]:
        """Every value that an edit may have changed: (cell, examples, values)."""
        net, n = self.net, len(self.batch)
        if jobs:
            assert self.plan is not None
            assert base.recording is not None
            suffix = Suffix(net, self.plan, base.recording, torch.tensor(self.batch.at))
            for job, examples, found in Schedule(net, self.plan, suffix, self.reading, self.budget).run(jobs):
                yield job.cell, examples, found
            full = len(jobs) * sum(self.layout.lengths) * len(self.plan.stages)
            self.notes |= {"replayed tokens": suffix.tokens, "tokens of full passes": full}
            self.notes["certificate"] = max(self.plan.residuals.values())
        stack = Stack(net, self.inputs, sources, self.surrogates, self.prefix)
        for part in self._parts(waiting):
            logits = stack.run([row for _, row in part])
            found = self.reading.values(logits, [e for _, row in part for e in row.examples])
            start = 0
            for number, row in part:
                yield number, row.examples, found[start : start + len(row.examples)]
                start += len(row.examples)
        for number in alone:
            run = net.run(self.inputs, edits=cells[number], sources=self.given, surrogates=self.surrogates)
            yield number, range(n), self.reading.values(run.logits, range(n))

    def _prefix(self, waiting: list[tuple[int, Row]], how: list[str]) -> None:
        """Sort whole rows by where they enter, and record what comes before."""
        net = self.net
        waiting.sort(key=lambda x: min(net.map.order(site) for site in x[1].sites))
        entered = dict.fromkeys(first_site(row, net) for _, row in waiting)
        if not entered:
            return
        net.entries = net.entries or Entries(net)
        self.prefix = Prefix(net.entries, net.preparer.prepare(self.inputs), len(self.batch), entered)
        for number, row in waiting:
            site = first_site(row, net)
            if self.prefix.saves(site):
                how[number] = "layers"
            else:
                self.notes["full because"] = f"{site}: {net.entries.reason(site)}"

    def _unedited(self, cells: Sequence[tuple[Edit, ...]]) -> tuple[Unedited, dict[str, SourceRun]]:
        """The unedited run of the base, and the source runs that the cells read."""
        net, order = self.net, self.net.map.order
        wanted: dict[str, set[str]] = {}
        for edit in (edit for cell in cells for edit in cell):
            if edit.needs is not None:
                if edit.needs not in self.given:
                    hint = f'Pass sources={{"{edit.needs}": inputs_or_run}}.'
                    raise UnknownName.among("source", edit.needs, self.given, hint)
                wanted.setdefault(edit.needs, set()).add(edit.site.path)
        written = {e.site.path for cell in cells for e in cell if "query" not in net.map.info(e.site.path).axes}
        spans: dict[Span, None] = {}
        if self.plan is not None:
            entered = {e.site.path for cell in cells if planned(cell, net) for e in cell}
            places = [self.plan.place(site) for site in sorted(entered, key=order)]
            spans = dict.fromkeys(span for place in places if place is not None for span in place.skipped)
        read = written.union(*(sites for name, sites in wanted.items() if self.given[name] is self.inputs))
        base = run_unedited(net, self.inputs, sorted(read, key=order), self.reading, self.plan, list(spans))
        self.metrics[self.base] = base.metric
        out: dict[str, SourceRun] = {}
        for name, sites in wanted.items():
            given = self.given[name]
            if isinstance(given, SourceRun):
                out[name] = given
                continue
            if given is self.inputs:
                run = base
            elif isinstance(given, Run):
                run = given
            elif given is getattr(self.batch, name, None):
                run = run_unedited(net, given, sorted(sites, key=order), self.reading, self.plan)
                self.metrics[name] = run.metric
            else:
                run = net.run(given, keep=sorted(sites, key=order))
            if run.layout.lengths != self.layout.lengths and name in ("clean", "corrupted"):
                self._misaligned(run.layout.lengths, name, cells)
            missing = next((site for site in sites if site not in run.values), None)
            if missing is not None:
                hint = "Keep it in the run."
                raise UnknownName.among(f"site in the run {name!r}", missing, run.values, hint)
            out[name] = SourceRun({site: run.values[site] for site in sites}, run.layout)
        return base, out

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
            if context.foreign and edit.site.path in writer.base:
                mask = reached(edit, writer.base[edit.site.path], context)
            elif context.layout is None or axis is None:
                mask = None if edit.where.rows is None else torch.zeros(len(self.batch), 1, dtype=torch.bool)
                if mask is not None:
                    mask[list(edit.where.rows or ())] = True
            else:
                mask = context.mask(edit.where, self.layout.width, 0)
            out |= True if mask is None else mask.any(1).numpy()
        return out

    def _parts(self, waiting: Sequence[tuple[int, Row]]) -> list[list[tuple[int, Row]]]:
        """Cells that run together: they enter at one site, and fit the budget."""
        parts: list[list[tuple[int, Row]]] = []
        limit = max(1, (TOKENS if self.net.device.type == "cpu" else TOKENS_ON_DEVICE) // self.layout.width)
        if self.net.preparer.axes is not None:  # a row is an image, of as many places as its largest map has
            limit = max(1, IMAGES // self._row_bytes())
        if self.budget is not None:
            limit = min(limit, self.budget // self._row_bytes())
        count, entered = 0, ""
        for number, row in waiting:
            site, size = first_site(row, self.net), len(row.examples)
            if self.budget is not None and size > self.budget // self._row_bytes():
                raise BadInput(
                    f"expected a memory budget of at least {size * self._row_bytes()} bytes, which one cell of {size} "
                    f"examples takes; got {self.budget}"
                )
            if not parts or count + size > limit or site != entered:
                parts.append([])
                count, entered = 0, site
            parts[-1].append((number, row))
            count += size
        return parts

    def _row_bytes(self) -> int:
        """About what one row of a whole pass takes: the outputs of the largest block, and the logits twice."""
        net = self.net
        scale = self.layout.width / net.map.width
        sizes: dict[str, float] = {}
        for name, info in net.map.modules.items():
            if name.endswith(".out"):
                stage = next((s.name for s in net.timeline.stages if name.startswith(f"module:{s.span.name}.")), "")
                sizes[stage] = sizes.get(stage, 0.0) + math.prod(info.shape) * info.itemsize * scale
        logits = net.map.sites.get("logits")
        last = 0 if logits is None else 2 * math.prod(logits.shape) * logits.itemsize * scale
        inside = max((size for stage, size in sizes.items() if stage), default=sizes.get("", 0.0))
        return max(1, math.ceil((inside + last) / net.map.rows))


def first_site(row: Row, net: Network) -> str:
    """The site at which a row enters the pass."""
    return min(row.sites, key=net.map.order)


def hash_inputs(inputs: Inputs | Tensors) -> str:
    """sha256 of the examples."""
    if isinstance(inputs, Inputs):
        return hash_json(inputs.ids)
    return hash_state({**inputs.values, **{f"region {name}": mask for name, mask in inputs.regions.items()}})
