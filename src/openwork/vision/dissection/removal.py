"""Which units a class rests on: balanced accuracy without each unit, and with the best of them removed or kept.

    remove(net, "module:layer3.out", Shapes(split="find"), held_out=Shapes(split="held-out"))

Every unit is set to zero at all its places, one at a time, on find images; the units are ranked for each class by what
the balanced accuracy of telling that class from all others loses. On held-out images the best n of each class are
removed, or all others, against random sets of equal size.

Source: Bau et al. 2020, Understanding the role of individual units in a deep neural network, section 2 and its
supplement (ranking by balanced single-class accuracy; removing the 20 best units of a class).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from openwork.edit import Ablate, Edit
from openwork.errors import BadInput, TaskFailed
from openwork.finding import Criteria
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.pictures import Masked
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.task import Batch, Metric, Tensors
from openwork.vision.corpora import Split, claims_about
from openwork.vision.halves import read

if TYPE_CHECKING:
    from openwork.network import Network

KIND = "random sets of as many units of the same site"
CHUNK = 256
"""Images of one call of the engine."""


def _predicted(logits: torch.Tensor, answer: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1).double()


PREDICTED = Metric("predicted class", "class", _predicted)
"""The number of the class with the largest logit: all that accuracies need."""


@dataclass(frozen=True)
class Removal:
    """How to rank and remove.

    Args:
        best: sizes of the sets of best units that are removed, or kept alone.
        claimed: the size of the sets that claims are about; one of `best`.
        claims: how many classes to claim, those whose best units matter most on find images.
        random_sets: of each size in the curves; claims draw as many as they need.
        standard: what a claim must meet, as a share of the balanced accuracy above chance.
        seed: of the split, random sets and intervals.
    """

    best: tuple[int, ...] = (1, 2, 4, 8, 16)
    claimed: int = 4
    claims: int = 3
    random_sets: int = 20
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.best or min(self.best) < 1 or self.claimed not in self.best or list(self.best) != sorted(self.best):
            raise BadInput(f"expected rising sizes from 1 on, the claimed one among them; got {self}")
        if self.claims < 0 or self.random_sets < 2:
            raise BadInput(f"expected no negative number of claims, and 2 random sets or more; got {self}")


def remove(
    net: Network,
    site: str | Site,
    pictures: Masked,
    method: Removal = Removal(),
    *,
    held_out: Masked | None = None,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Rank the units of a site for every class by removing them, and test the best of them.

    Args:
        net: a network whose logits are (image, class), in the order of the corpus's classes.
        site: one site; an index selects some of its units.
        pictures: images with classes.
        method: how.
        held_out: images that nothing is ranked on; a random half of `pictures` unless given.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        a finding for each claimed class: removing its best units lowers its balanced accuracy on held-out images by
        more than random sets do. A table: ``drop`` (class, unit) on find images; on held-out images ``removed`` and
        ``kept`` (class, size), the balanced accuracy without and with nothing but the best units, beside
        ``random_removed`` and ``random_kept`` (class, size, set); ``accuracy`` (class) of the unedited network.

    Raises:
        BadInput: if the logits do not fit the classes, or a class has no image in a split.
        TaskFailed: if the network tells no class better than chance.

    Units:
        balanced accuracy of one class against all others, from 0.5 (chance) to 1.
    """
    places = net.map.resolve(site)
    if len(places) != 1:
        raise BadInput(f"expected one site; {site} selects {[str(p) for p in places]}")
    place = places[0]
    units = list(place.index) if place.index else list(range(net.parts(place.path)))
    sizes = [size for size in method.best if size < len(units)]
    if method.claimed not in sizes:
        raise BadInput(f"expected more units than sets are large; {place} has {len(units)}, claims are of "
                       f"{method.claimed}")  # fmt: skip
    split = Split.of(pictures, held_out, method.seed)
    steps = _Steps(tick, 2)
    runner = _Runner(net, place.path, memory)
    truth = runner.classes(split.find, split.find_rows, pictures.class_names)
    cells = [(), *([unit] for unit in units)]
    predicted = runner.predictions(split.find, split.find_rows, cells, steps.next())
    own = balanced(predicted[0], truth, len(pictures.class_names))
    if float(own.max()) <= 0.5:
        raise TaskFailed(f"{net.name} tells no class of {pictures.name} better than chance: there is nothing to remove")
    drop = np.stack([own - balanced(p, truth, len(own)) for p in predicted[1:]], 1)
    order = np.argsort(-drop, axis=1, kind="stable")
    chosen = _chosen(drop, order, own, method)
    sets = _Sets(units, order, sizes, chosen, method)
    held_truth = runner.classes(split.held, split.held_rows, pictures.class_names)
    held = runner.predictions(split.held, split.held_rows, sets.cells, steps.next())
    table, candidates = sets.results(held, held_truth, list(pictures.class_names), drop)
    table = table.assign_coords(unit=[f"{place.path}[{u}]" for u in units])
    table.attrs.update(network=net.name, unit="balanced accuracy", pictures=pictures.name, site=place.path)
    settings = {**asdict(method), "site": str(place), "pictures": pictures.name}
    criteria = method.standard.criteria(0.5, "balanced accuracy")
    findings = claimed(claims_about(net, split, settings, method.seed), criteria, candidates)
    return Result("removal of units", findings, table, settings, tuple(split.remarks))


def balanced(
    predicted: Int[np.ndarray, " image"], truth: Int[np.ndarray, " image"], classes: int
) -> Float[np.ndarray, " class"]:
    """Of each class against all others: the mean of the rates at which its and other images are told right."""
    return np.array([gains(predicted, truth, c).mean() for c in range(classes)])


def gains(
    predicted: Int[np.ndarray, " image"], truth: Int[np.ndarray, " image"], one: int
) -> Float[np.ndarray, " image"]:
    """What each image adds to the balanced accuracy of a class, so that their mean is this accuracy."""
    return ((predicted == one) == (truth == one)) * weights(truth, one)


def weights(truth: Int[np.ndarray, " image"], one: int) -> Float[np.ndarray, " image"]:
    """What each image counts in the balanced accuracy of a class: its own images as much as all others together."""
    own = truth == one
    return np.where(own, len(truth) / (2 * max(own.sum(), 1)), len(truth) / (2 * max((~own).sum(), 1)))


def _chosen(drop: np.ndarray, order: np.ndarray, own: np.ndarray, method: Removal) -> list[int]:
    """The classes to claim: known to the network, and resting most on their best units."""
    best = np.take_along_axis(drop, order[:, : method.claimed], 1).sum(1)
    return sorted((int(c) for c in np.flatnonzero(own > 0.5)), key=lambda c: -best[c])[: method.claims]


class _Steps:
    """The share that is done of several passes of equal length."""

    def __init__(self, tick: Tick, count: int):
        self._tick, self._count, self._at = tick, count, -1

    def next(self) -> Tick:
        self._at += 1
        at = self._at
        return lambda share: self._tick((at + share) / self._count)


@dataclass(frozen=True, eq=False)
class _Runner:
    """Predicted classes of images with some units at zero."""

    net: Network
    site: str
    memory: str | int | None

    def classes(self, corpus: Any, rows: Sequence[int], names: Sequence[str]) -> Int[np.ndarray, " image"]:
        truth = corpus.classes(rows).cpu().numpy().astype(int)
        absent = [name for number, name in enumerate(names) if not (truth == number).any()]
        if absent or truth.min() < 0 or truth.max() >= len(names):
            raise BadInput(
                f"expected images of every class in both splits; {', '.join(absent) or 'ids beyond the names'} in "
                f"{corpus.name}: give more images"
            )
        return truth

    def predictions(
        self, corpus: Any, rows: Sequence[int], cells: Sequence[Sequence[int]], tick: Tick
    ) -> Int[np.ndarray, "cell image"]:
        """The predicted class under each cell: a set of units that are zero everywhere."""
        edits: list[tuple[Edit, ...]] = [(Ablate(Site(self.site, tuple(units))),) for units in cells if len(units)]
        found = []
        for start in range(0, len(rows), CHUNK):
            some = list(rows[start : start + CHUNK])
            batch = self._batch(corpus, some)

            def part(share: float, at: int = start, n: int = len(some)) -> None:
                tick((at + share * n) / len(rows))

            done = measure(self.net, batch, PREDICTED, edits, memory=self.memory, tick=part)
            edited = iter(done.values)
            found.append(np.stack([next(edited) if len(units) else done.base for units in cells]))
        return np.concatenate(found, 1).astype(int)

    def _batch(self, corpus: Any, rows: Sequence[int]) -> Batch:
        inputs = Tensors({self.net.preparer.main: read(self.net, corpus, rows)})
        truth = tuple(int(c) for c in corpus.classes(rows))
        zeros = (0,) * len(rows)
        return Batch(inputs, inputs, truth, zeros, zeros)


class _Sets:
    """The sets of units that are removed on held-out images: the best of each class, all but these, random ones."""

    def __init__(self, units: list[int], order: np.ndarray, sizes: list[int], chosen: list[int], method: Removal):
        self.units, self.order, self.sizes, self.chosen, self.method = units, order, sizes, chosen, method
        rng = np.random.default_rng(method.seed)
        needed = Criteria(1.0, "", method.standard.alpha).controls_needed
        self.counts = {s: max(method.random_sets, needed * (s == method.claimed)) for s in sizes}
        self.random = {s: [rng.permutation(len(units))[:s] for _ in range(self.counts[s])] for s in sizes}
        self.cells: list[list[int]] = [[]]
        self._at: dict[Any, int] = {}
        for size in sizes:
            for number, some in enumerate(self.random[size]):
                self._add(("random removed", size, number), some)
                if number < method.random_sets:
                    self._add(("random kept", size, number), self._others(some))
            for one in range(len(order)):
                self._add(("removed", size, one), order[one, :size])
                self._add(("kept", size, one), order[one, size:])

    def _others(self, some: np.ndarray) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.units)), some)

    def _add(self, name: Any, some: np.ndarray) -> None:
        cell = sorted(self.units[int(i)] for i in some)
        self._at[name] = self.cells.index(cell) if cell in self.cells else len(self.cells)
        if self._at[name] == len(self.cells):
            self.cells.append(cell)

    def results(
        self, held: np.ndarray, truth: np.ndarray, names: list[str], drop: np.ndarray
    ) -> tuple[Any, list[Candidate]]:
        """The table and the claims."""
        import xarray

        each = np.stack([balanced(predicted, truth, len(names)) for predicted in held])
        own = each[0]
        variables: dict[str, Any] = {"drop": (("class", "unit"), drop), "accuracy": ("class", own)}
        variables["order"] = (("class", "rank"), self.order)
        for kind in ("removed", "kept"):
            value = [[each[self._at[kind, size, c], c] for size in self.sizes] for c in range(len(names))]
            variables[kind] = (("class", "size"), np.array(value))
            chance = [
                [[each[self._at[f"random {kind}", size, n], c] for n in range(self.method.random_sets)]
                 for size in self.sizes]
                for c in range(len(names))
            ]  # fmt: skip
            variables[f"random_{kind}"] = (("class", "size", "set"), np.array(chance))
        candidates, size = [], self.method.claimed
        for one in self.chosen:
            before = gains(held[0], truth, one)
            effects = before - gains(held[self._at["removed", size, one]], truth, one)
            most = weights(truth, one).max()
            others = [own[one] - each[self._at["random removed", size, n], one] for n in range(self.counts[size])]
            listed = ", ".join(str(self.units[int(i)]) for i in self.order[one, :size])
            text = f"{names[one]} rests on units {listed}: without them it is told from other classes worse"
            candidates.append(Candidate(text, effects, np.array(others), KIND, limits=(-most, most)))
        table = xarray.Dataset(variables, {"class": names, "size": self.sizes})
        return table, candidates
