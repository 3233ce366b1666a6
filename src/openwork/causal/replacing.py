"""What a part is replaced with when it is ablated: nothing, means, other examples' values or noise.

Everything is fitted on the find split and can be applied to any examples.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from openwork.causal.candidates import rows_of
from openwork.causal.parts import Part
from openwork.edit import Patch
from openwork.errors import BadInput
from openwork.network.layout import Layout
from openwork.network.run import Run
from openwork.site import Where
from openwork.task import Split, Task

if TYPE_CHECKING:
    from openwork.network import Network

HOW = ("zero", "mean", "resample", "noise")


@dataclass(frozen=True)
class Replacing:
    """What a part is replaced with.

    Args:
        how: ``zero``; ``mean`` of the clean find examples; ``resample``, the value at the same position of a random
            other find example; ``noise``, Gaussian with the mean and the standard deviation of the find examples.
        by: over what means are taken apart: ``position`` (counted from the first token), ``class`` (the label of the
            example), both, or neither, which is one mean over all positions.
        samples: how many draws of ``resample`` and ``noise`` are averaged over.
        seed: of the draws.

    Source:
        mean by position and template: Wang et al. 2022, section 3; resampling: Chan et al. 2022, Causal scrubbing.
    """

    how: str = "mean"
    by: tuple[str, ...] = ()
    samples: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise BadInput(f"expected how to be one of {HOW}; got {self.how!r}")
        if not set(self.by) <= {"position", "class"} or (self.by and self.how != "mean"):
            raise BadInput(f"expected by= of 'position' and 'class', for means alone; got {self.by} of {self.how!r}")
        if self.samples < 1:
            raise BadInput(f"expected at least one sample; got {self.samples}")

    @property
    def draws(self) -> int:
        """How many different replacements there are."""
        return self.samples if self.how in ("resample", "noise") else 1


class Replacement:
    """The values that take the place of some sites.

    Args:
        net: the network.
        task: whose find split everything is fitted on.
        parts: what will be replaced.
        replacing: with what.
        labels: the class of each example of the task, for means by class.

    Raises:
        BadInput: if labels are missing, or too many or too few, or a site has no values to average.
    """

    def __init__(
        self,
        net: Network,
        task: Task,
        parts: Sequence[Part],
        replacing: Replacing,
        labels: Sequence[Hashable] | None = None,
    ):
        if ("class" in replacing.by) and (labels is None or len(labels) != len(task)):
            raise BadInput(
                f"expected labels= with the class of each of the {len(task)} examples, for means by class; got "
                f"{'none' if labels is None else len(labels)}"
            )
        self.net, self.task, self.replacing, self.labels = net, task, replacing, labels
        self.paths = list(dict.fromkeys(site.path for part in parts for site in part.sites))
        for path in self.paths:
            if {"query", "key"} & set(net.map.info(path).axes):
                raise BadInput(f"expected sites that hold activations; {path} holds attention: cut edges with KnockOut")
        self.find = net.run(task.split("find").clean, keep=self.paths)

    def edits(self, part: Part, draw: int = 0, where: Where = Where()) -> tuple[Patch, ...]:
        """The edits that replace one part; their source is among `sources`."""
        return tuple(Patch(site, where, source=f"replaced {draw}") for site in part.sites)

    def sources(self, split: Split) -> dict[str, Run]:
        """What the edits read, for the clean examples of one split."""
        batch = self.task.split(split)
        layout = self.net.preparer.prepare(batch.clean).layout
        runs = {}
        for draw in range(self.replacing.draws):
            values = {path: self._value(path, layout, split, draw) for path in self.paths}
            runs[f"replaced {draw}"] = Run(None, values, layout)
        return runs

    def mean(self, path: str) -> Tensor:
        """The mean of a site over all real tokens of the find examples."""
        return self._tokens(path, range(self.find.layout.rows)).mean(0)

    def _value(self, path: str, layout: Layout, split: Split, draw: int) -> Tensor:
        """(example, ...) what stands at a site when all of it is replaced."""
        how, by = self.replacing.how, self.replacing.by
        found = self.find[path]
        columns = self._columns(path)
        shape = (
            layout.rows,
            *([] if columns is None else [self._width(path, layout)]),
            *found.shape[self._lead(path) :],
        )
        if how == "zero":
            return found.new_zeros(()).expand(shape)
        if how == "resample":
            return self._resampled(path, layout, split, draw, shape)
        if how == "mean" and by:
            return self._means_apart(path, layout, split, shape)
        mean = self.mean(path)
        if how == "mean":
            return mean.to(found.dtype).expand(shape)
        spread = self._tokens(path, range(self.find.layout.rows)).std(0)
        generator = torch.Generator().manual_seed(self._seed(path, split, draw))
        return (mean + spread * torch.randn(shape, generator=generator).to(mean)).to(found.dtype)

    def _means_apart(self, path: str, layout: Layout, split: Split, shape: tuple[int, ...]) -> Tensor:
        by_class, by_position = "class" in self.replacing.by, "position" in self.replacing.by
        if by_position and self._columns(path) is None:
            raise BadInput(f"expected sites with the positions of the inputs, for means by position; {path} has none")
        found, out = self.find[path], self.find[path].new_zeros(shape)
        mine, theirs = rows_of(self.task, split), rows_of(self.task, "find")
        labels = self.labels if by_class and self.labels is not None else [None] * len(self.task)
        for label in dict.fromkeys(labels[row] for row in mine):
            to = [i for i, row in enumerate(mine) if labels[row] == label]
            of = [i for i, row in enumerate(theirs) if labels[row] == label]
            if not of:
                raise BadInput(f"expected every class among the find examples; {label!r} is not: its mean is unknown")
            if not by_position:
                out[to] = self._tokens(path, of).mean(0).to(out)
                continue
            for position in range(max(layout.lengths[i] for i in to)):
                seen = [i for i in of if self.find.layout.lengths[i] > position]
                if not seen:
                    raise BadInput(
                        f"expected every position among the find examples; none{f' of class {label!r}' * by_class} has "
                        f"a token at position {position}: leave 'position' out of by="
                    )
                mean = torch.stack([found[i, self.find.layout.offsets[i] + position].float() for i in seen]).mean(0)
                for i in to:
                    if layout.lengths[i] > position:
                        out[i, layout.offsets[i] + position] = mean.to(out)
        return out

    def _resampled(self, path: str, layout: Layout, split: Split, draw: int, shape: tuple[int, ...]) -> Tensor:
        found, out = self.find[path], self.find[path].new_zeros(shape)
        aligned = self._columns(path) is not None and not self._foreign(path)
        rng = np.random.default_rng((self.replacing.seed, draw, split == "find"))
        lengths, offsets = self.find.layout.lengths, self.find.layout.offsets
        for row in range(layout.rows):
            own = row if split == "find" else -1
            donors = [i for i in range(len(lengths)) if i != own and (not aligned or lengths[i] >= layout.lengths[row])]
            if not donors:
                raise BadInput(
                    f"expected another find example of at least {layout.lengths[row]} tokens to resample row {row} of "
                    f"the {split} examples from; there is none"
                )
            donor = int(rng.choice(donors))  # the same for every site: the generator restarts for each
            if not aligned:
                out[row] = found[donor]
                continue
            n = layout.lengths[row]
            out[row, layout.offsets[row] : layout.offsets[row] + n] = found[donor, offsets[donor] : offsets[donor] + n]
        return out

    def _tokens(self, path: str, rows: Iterable[int]) -> Tensor:
        """(token, ...) the values of a site at the real tokens of some find examples."""
        value, rows = self.find[path], list(rows)
        if self._columns(path) is None:
            return value[rows].float()
        if self._foreign(path):
            return value[rows].flatten(0, 1).float()
        picked = torch.zeros(len(value), 1, dtype=torch.bool)
        picked[rows] = True
        return value[(real(self.find.layout) & picked).to(value.device)].float()

    def _columns(self, path: str) -> int | None:
        """The axis of positions, always 1, or None."""
        return 1 if self.net.map.info(path).axes[:2] == ("batch", "position") else None

    def _lead(self, path: str) -> int:
        return 1 if self._columns(path) is None else 2

    def _foreign(self, path: str) -> bool:
        """Whether its positions are others than those of the inputs, such as image patches."""
        return self.net.map.layout_at(path, self.find.layout) is None

    def _width(self, path: str, layout: Layout) -> int:
        return self.find[path].shape[1] if self._foreign(path) else layout.width

    def _seed(self, path: str, split: Split, draw: int) -> int:
        numbers = (self.replacing.seed, draw, int(split == "find"), self.net.map.order(path))
        return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def real(layout: Layout) -> Bool[Tensor, "example column"]:
    """Which columns hold a row's tokens."""
    columns = torch.arange(layout.width)
    first = torch.tensor(layout.offsets)[:, None]
    return (columns >= first) & (columns < first + torch.tensor(layout.lengths)[:, None])
