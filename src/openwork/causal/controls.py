"""Matched controls of an intervention: changes of the same size at the same places, in random directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Edit, Patch
from openwork.network import measure
from openwork.network.measure import Base
from openwork.network.ports import select
from openwork.network.run import Run
from openwork.task import Batch, Metric

if TYPE_CHECKING:
    from openwork.network import Network

KIND = "changes of equal size at the same place in random directions"
AT_ONCE = 1 << 28
"""Bytes of written values that are held at once."""


@dataclass(eq=False)
class Twins:
    """Random twins of a cell of edits.

    Each twin writes, wherever the cell writes, the value that stood there plus a vector as long as the cell's change at
    that token. The vector's direction is random, and the same for all tokens of all examples of a twin.

    Args:
        net: the network.
        batch: the examples.
        base: the inputs that are edited.
        edits: the cell.
        sources: the runs that it reads.
        context: edits that hold with the cell and with its twins, e.g. the noise of a corrupted run.
        seed: of the directions.
    """

    net: Network
    batch: Batch
    base: Base
    edits: Sequence[Edit]
    sources: Mapping[str, Any] = field(default_factory=dict)
    context: Sequence[Edit] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        self.edits = [replace(e, site=site) for e in self.edits for site in self.net.map.resolve(e.site)]
        paths = list(dict.fromkeys(edit.site.path for edit in self.edits))
        given = {"clean": self.batch.clean, "corrupted": self.batch.corrupted, **self.sources}
        inputs = getattr(self.batch, self.base)
        self._before = self.net.run(inputs, keep=paths, edits=self.context, sources=given)
        self._after = self.net.run(inputs, keep=paths, edits=[*self.context, *self.edits], sources=given)

    @property
    def nbytes(self) -> int:
        """Bytes that the values of one twin take."""
        return sum(value.nbytes for value in self._before.values.values())

    def twin(self, number: int) -> tuple[tuple[Edit, ...], dict[str, Run]]:
        """The edits of one twin, without the context, and the source that they read."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        values: dict[str, Tensor] = {}
        name = f"random {number}"
        for edit in self.edits:
            path, index = edit.site.path, edit.site.index
            info = self.net.map.info(path)
            before, after = (select(run[path], info.part_axis, index) for run in (self._before, self._after))
            new = before + _equal_length(after - before, info.axes, generator)
            whole = values.setdefault(path, self._before[path].clone())
            if index:
                whole.index_copy_(info.part_axis, torch.tensor(index, device=whole.device), new.to(whole))
            else:
                values[path] = new.to(whole)
        edits = tuple(Patch(edit.site, edit.where, source=name) for edit in self.edits)
        return edits, {name: Run(None, values, self._before.layout)}

    def measure(
        self, metric: Metric, count: int, beside: Sequence[Sequence[Edit]] = ((),)
    ) -> Float[np.ndarray, "variant control example"]:
        """The metric under twins.

        Args:
            metric: the metric.
            count: how many twins.
            beside: for each variant, further edits that run with every twin, e.g. to freeze what comes later.
        """
        out = np.empty((len(beside), count, len(self.batch)))
        step = max(1, min(count, AT_ONCE // max(1, self.nbytes)))
        for start in range(0, count, step):
            numbers = range(start, min(start + step, count))
            sources, cells = dict(self.sources), []
            for number in numbers:
                edits, source = self.twin(number)
                sources |= source
                cells += [(*self.context, *edits, *more) for more in beside]
            found = measure(self.net, self.batch, metric, cells, base=self.base, sources=sources).values
            out[:, numbers.start : numbers.stop] = found.reshape(len(numbers), len(beside), -1).swapaxes(0, 1)
        return out


def _equal_length(change: Tensor, axes: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """As long as the change of each token (of each example, at sites without positions), in one random direction."""
    kept = [i for i, axis in enumerate(axes) if axis in ("batch", "position", "query")]
    inner = [i for i in range(change.ndim) if i not in kept]
    shape = [1 if i in kept else size for i, size in enumerate(change.shape)]
    direction = torch.randn(shape, generator=generator).to(change)
    if not inner:
        return change.abs() * direction.sign()
    return change.float().norm(dim=inner, keepdim=True).to(change) * direction / direction.float().norm()
