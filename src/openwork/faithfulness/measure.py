"""The only place where circuits are run on a task: cells of edits in, the metric of each example out.

Many cells are packed into one forward pass by repeating the examples. All that the cells write at one site is written
at once, each cell on its own rows; the numbers are those of one run per cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Array, Custom, Edit, Patch, Set
from openwork.errors import BadInput, Misaligned
from openwork.faithfulness.components import Component
from openwork.site import Site, Where
from openwork.task import Batch, Metric

if TYPE_CHECKING:
    from openwork.network import Network

Base = Literal["clean", "corrupted"]
Tick = Callable[[float], None]
Write = Callable[[Tensor], Tensor]


def silent(share: float) -> None:
    """Reports no progress."""


@dataclass(frozen=True)
class Cell:
    """One measurement: the examples, run from `base` with `edits`.

    Args:
        edits: `Patch` (everywhere or at a token group; source ``clean`` or ``corrupted``: the unedited runs of the same
            examples) and `Set`.
        base: the inputs that are edited.
        change: (site, function) that rewrites the value of the site, (example, ...) -> the same shape; for controls
            that no edit describes.
    """

    edits: tuple[Edit, ...] = ()
    base: Base = "clean"
    change: tuple[str, Write] | None = None


class Meter:
    """Measures cells on one batch of examples.

    Args:
        net: the network.
        batch: the examples.
        metric: what is read off.
        batch_tokens: tokens in one forward pass, at most (one cell, if that has more).

    Raises:
        Misaligned: if clean and corrupted rows differ in length.
    """

    def __init__(self, net: Network, batch: Batch, metric: Metric, batch_tokens: int):
        lengths = [(len(a), len(b)) for a, b in zip(batch.clean.ids, batch.corrupted.ids, strict=True)]
        if unequal := [i for i, (a, b) in enumerate(lengths) if a != b]:
            a, b = lengths[unequal[0]]
            raise Misaligned(
                f"expected clean and corrupted inputs that align token by token, as patching whole components needs; "
                f"row {unequal[0]} has {a} and {b} tokens ({len(unequal)} rows differ)"
            )
        self.net, self.batch, self.metric, self.batch_tokens = net, batch, metric, batch_tokens
        self.width = max(a for a, _ in lengths)
        self.per_pass = max(1, batch_tokens // (self.width * len(batch)))
        self._kept: dict[Base, dict[str, Tensor]] = {"clean": {}, "corrupted": {}}

    def on_first(self, examples: int) -> Meter:
        """A meter on the first examples of the batch."""
        b, rows = self.batch, range(examples)
        first = Batch(
            b.clean.take(rows),
            b.corrupted.take(rows),
            b.answer[:examples],
            b.wrong[:examples],
            b.at[:examples],
            b.split,
        )
        return Meter(self.net, first, self.metric, self.batch_tokens)

    def measure(self, cells: Sequence[Cell], tick: Tick = silent) -> Float[np.ndarray, "cell example"]:
        """The metric of every example in every cell.

        Args:
            cells: what to measure.
            tick: told the share that is done.

        Raises:
            BadInput: if a metric is not finite.
        """
        out = np.empty((len(cells), len(self.batch)))
        done = 0
        for base in ("clean", "corrupted"):
            chosen = [i for i, cell in enumerate(cells) if cell.base == base]
            for start in range(0, len(chosen), self.per_pass):
                part = chosen[start : start + self.per_pass]
                out[part] = self._run([cells[i] for i in part], base)
                done += len(part)
                tick(done / len(cells))
        if not np.isfinite(out).all():
            raise BadInput(
                f"expected finite values of {self.metric.name!r}; {int((~np.isfinite(out)).sum())} of {out.size} are "
                "NaN or infinite: check the weights of the network"
            )
        return out

    def value(self, base: Base, site: str) -> Tensor:
        """The value of a site in an unedited run of the examples."""
        self._keep(base, {site})
        return self._kept[base][site]

    def difference(self, site: str) -> Tensor:
        """Corrupted minus clean value of a site, (example, position, ...)."""
        return self.value("corrupted", site) - self.value("clean", site)

    def _keep(self, base: Base, sites: set[str]) -> None:
        missing = sorted(sites - set(self._kept[base]))
        if missing:
            run = self.net.run(getattr(self.batch, base), keep=missing)
            self._kept[base] |= {site: run[site] for site in missing}

    def _run(self, cells: Sequence[Cell], base: Base) -> Float[np.ndarray, "cell example"]:
        n, copies = len(self.batch), len(cells)
        for source in ("clean", "corrupted"):
            read = {e.site.path for cell in cells for e in cell.edits if e.needs == source}
            # a change may look at the difference of the two runs, and no run may start within another
            self._keep(source, read | {cell.change[0] for cell in cells if cell.change is not None})
        writes: dict[str, list[tuple[int, Write]]] = {}
        for i, cell in enumerate(cells):
            for edit in cell.edits:
                writes.setdefault(edit.site.path, []).append((i * n, self._write(edit)))
            if cell.change is not None:
                writes.setdefault(cell.change[0], []).append((i * n, cell.change[1]))
        rows = [row for _ in range(copies) for row in range(n)]
        inputs = getattr(self.batch, base).take(rows)
        edits = [Custom(Site(path), fn=_joined(parts, n)) for path, parts in writes.items()]
        logits = self.net.run(inputs, edits=edits).logits
        values = [self.batch.measure(self.metric, logits[i * n : (i + 1) * n]) for i in range(copies)]
        return torch.stack(values).double().cpu().numpy()

    def _write(self, edit: Edit) -> Write:
        """The edit on the rows of one cell."""
        index = list(edit.site.index)
        if isinstance(edit, Patch) and edit.needs in self._kept and edit.source_where is None:
            new: Tensor = self._kept[edit.source][edit.site.path]  # type: ignore[index]
            new = new[:, :, index] if index else new
        elif isinstance(edit, Set):
            new = torch.from_numpy(edit.value.numpy())
        else:
            raise BadInput(f"expected a Patch from the clean or corrupted run, or a Set; got {edit!r}")
        mask = self._mask(edit.where)

        def write(value: Tensor) -> Tensor:
            part = value[:, :, index] if index else value
            written = new.to(part).expand_as(part)
            if mask is not None:
                written = torch.where(mask.to(part.device).view(*mask.shape, *[1] * (part.ndim - 2)), written, part)
            if not index:
                return written
            value = value.clone()
            value[:, :, index] = written
            return value

        return write

    def _mask(self, where: Where) -> Tensor | None:
        """(example, position), or None for everywhere."""
        if where == Where():
            return None
        groups = self.batch.clean.groups
        if where.group is None or where != Where(group=where.group) or where.group not in groups:
            raise BadInput(f"expected everywhere or one of the token groups {sorted(groups)}; got {where}")
        mask = torch.zeros(len(self.batch), self.width, dtype=torch.bool)
        for row, positions in enumerate(groups[where.group]):
            mask[row, list(positions)] = True
        return mask


def _joined(parts: Sequence[tuple[int, Write]], n: int) -> Write:
    """One function that applies each part to the `n` rows from its first."""

    def write(value: Tensor) -> Tensor:
        value = value.clone()
        for first, part in parts:
            value[first : first + n] = part(value[first : first + n])
        return value

    return write


def patch(components: Iterable[Component], source: Base) -> tuple[Edit, ...]:
    """Edits that give components the values of another run, one for each site."""
    return tuple(Patch(site, source=source) for site in sites_of(components))


def set_to(components: Iterable[Component], means: dict[str, Tensor]) -> tuple[Edit, ...]:
    """Edits that give components a constant.

    Args:
        components: which ones.
        means: path of a site -> (head, channel) or (channel,).
    """
    edits = []
    for site in sites_of(components):
        value = means[site.path]
        edits.append(Set(site, value=Array.of(value[list(site.index)] if site.index else value)))
    return tuple(edits)


def sites_of(components: Iterable[Component]) -> list[Site]:
    """The sites of components, the heads of one block in one site."""
    heads: dict[str, list[int]] = {}
    for component in sorted(components):
        found = heads.setdefault(component.site.path, [])
        if component.kind == "head":
            found.append(component.index)
    return [Site(path, tuple(index)) for path, index in heads.items()]


def mean_values(net: Network, inputs: object, components: Sequence[Component]) -> dict[str, Tensor]:
    """The mean of each component's site over all real positions of all rows.

    Returns:
        path -> (head, channel) for heads, (channel,) for MLPs.
    """
    paths = sorted({c.site.path for c in components})
    run = net.run(inputs, keep=paths)
    lengths = torch.as_tensor(run.lengths)
    out = {}
    for path in paths:
        value = run[path].float()
        real = (torch.arange(value.shape[1]) < lengths[:, None]).to(value.device)
        out[path] = value[real].mean(0)
    return out
