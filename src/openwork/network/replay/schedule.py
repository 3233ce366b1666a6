"""What is replayed together: identical rows once, the others packed so that weights are read once for many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from openwork.errors import BadInput
from openwork.network.replay.certificate import Suffixes
from openwork.network.replay.reading import Reading
from openwork.network.replay.rows import Place, Rows
from openwork.network.replay.suffix import Suffix
from openwork.network.replay.tail import logits_behind
from openwork.network.replay.writes import Write

if TYPE_CHECKING:
    from openwork.network.network import Network

ON_CPU, ON_DEVICE = 1024, 32768
"""Tokens replayed at once: enough for full matrix products, few enough that what they make stays in the cache."""


@dataclass(eq=False)
class Job:
    """One cell to replay.

    Args:
        cell: its number.
        examples: the examples that it changes.
        writes: what it writes, in order of execution.
        places: where.
    """

    cell: int
    examples: list[int]
    writes: Sequence[Write]
    places: Sequence[Place]

    def without(self, done: Bool[np.ndarray, " example"]) -> Job | None:
        """The job on the examples that are not done; None if all are."""
        left = [example for example in self.examples if not done[example]]
        return replace(self, examples=left) if left else None

    @property
    def block(self) -> int:
        """The first block that it changes."""
        return min(place.block for place in self.places)


@dataclass(eq=False)
class Schedule:
    """Replays jobs.

    Args:
        net: the network.
        plan: its certificate.
        suffix: the unedited run.
        reading: what is read off.
        budget: bytes that what runs at once may take, or None.
    """

    net: Network
    plan: Suffixes
    suffix: Suffix
    reading: Reading
    budget: int | None

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[int], Tensor]]:
        """Replay all jobs.

        Yields:
            a job, some of its examples, and their values; those whose edits do not reach what is read are left out.
        """
        twins: dict[tuple[int, int], list[tuple[Job, int]]] = {}
        unique = self._unique(jobs, twins)
        places = {p.site: p for job in jobs for p in job.places}
        for part in self._parts(unique):
            rows = Rows.of([(examples, job.writes) for job, examples in part], places)
            hidden, alive = self.suffix.run(rows)
            found = self._values(hidden, rows.example[alive]) if len(alive) else torch.empty(0)
            cells = rows.cell[alive].tolist()
            by_job: dict[int, tuple[list[int], list[int]]] = {}
            for i, (cell, example) in enumerate(zip(cells, rows.example[alive].tolist(), strict=True)):
                here = by_job.setdefault(cell, ([], []))
                here[0].append(example)
                here[1].append(i)
            for cell, (examples, index) in by_job.items():
                job = part[cell][0]
                yield job, examples, found[index]
                for example, i in zip(examples, index, strict=True):
                    for twin, same in twins.get((job.cell, example), ()):
                        yield twin, [same], found[[i]]

    def _values(self, hidden: Tensor, examples: Tensor) -> Tensor:
        answer, wrong = self.reading.answers(examples, hidden.device)
        columns = None
        if self.reading.metric.reads == "answers" and self.plan.narrow:
            columns = torch.stack((answer, wrong), -1)
        logits = logits_behind(self.net, self.plan.stages, self.suffix.base, hidden, columns)
        if columns is not None:
            return self.reading.of(logits, torch.zeros_like(answer), torch.ones_like(answer))
        return self.reading.read(logits, answer, wrong)

    def _unique(
        self, jobs: Sequence[Job], twins: dict[tuple[int, int], list[tuple[Job, int]]]
    ) -> list[tuple[Job, list[int]]]:
        """The jobs with the examples that no earlier job runs just so; the others are noted as twins of those."""
        first: dict[tuple[object, ...], tuple[Job, Tensor]] = {}
        out = []
        for job in jobs:
            if len(job.writes) > 1:
                out.append((job, job.examples))
                continue
            (write,), (place,) = job.writes, job.places
            site = ("stream", place.block) if place.stream else (place.site,)
            mine = []
            for example in job.examples:
                position = write.where[example].nonzero().flatten()
                key = (*site, write.index, example, *position.tolist())
                value = write.value[example]
                known = first.get(key)
                if known is not None and _equal(known[1], value, position):
                    twins.setdefault((known[0].cell, example), []).append((job, example))
                    continue
                first.setdefault(key, (job, value))
                mine.append(example)
            if mine:
                out.append((job, mine))
        return out

    def _parts(self, jobs: Sequence[tuple[Job, list[int]]]) -> Iterator[list[tuple[Job, list[int]]]]:
        """Jobs that run together: neighbours in the order of their first block and position."""
        limit = ON_CPU if self.suffix.device.type == "cpu" else ON_DEVICE
        if self.budget is not None:
            limit = min(limit, self.budget // max(self.plan.token_bytes, 1))
        sized: list[tuple[int, int, int, Job, int]] = []
        for order, (job, examples) in enumerate(jobs):
            starts = job.writes[0].where[examples].int().argmax(1)
            sizes = (self.suffix.at[examples] - starts + 1).clamp_min(1)
            for example, start, size in zip(examples, starts.tolist(), sizes.tolist(), strict=True):
                if size > limit:
                    raise BadInput(
                        f"expected a memory budget of at least {size * self.plan.token_bytes} bytes, which one cell "
                        f"on one example takes; got {self.budget}"
                    )
                sized.append((job.block, start, order, job, example))
        sized.sort(key=lambda x: x[:3])
        part: dict[int, tuple[Job, list[int]]] = {}
        filled = 0
        for _, start, order, job, example in sized:
            size = max(1, int(self.suffix.at[example]) - start + 1)
            if part and filled + size > limit:
                yield list(part.values())
                part, filled = {}, 0
            part.setdefault(order, (job, []))[1].append(example)
            filled += size
        if part:
            yield list(part.values())


def _equal(a: Tensor, b: Tensor, position: Tensor) -> bool:
    position = position.to(a.device)
    return a is b or (a.shape == b.shape and torch.equal(a[position], b[position]))


def places_of(plan: Suffixes, writes: Sequence[Write]) -> list[Place] | None:
    """Where writes lie, or None if one of them is not replayed."""
    found = [plan.place(write.site) for write in writes]
    return None if any(place is None for place in found) else [place for place in found if place is not None]
