"""Network dissection: which units fire where a concept is, over a whole corpus, against randomly rotated units.

    dissect(net, "module:layer3.out", Shapes(split="find"), held_out=Shapes(split="held-out"))
    dissect(net, [Direction("blocks.3.resid_post", vector)], pictures)

Each unit gets the threshold that a small share of all places exceeds. Its maps are enlarged to the masks' resolution,
anchored at the centres of receptive fields, and cut at the threshold. What it detects is the concept with the largest
intersection over union, summed over the whole corpus: chosen on find images, and measured on held-out ones. The same
units in randomly rotated bases say what overlap there is without a privileged axis.

Source: Bau et al. 2017, Network Dissection, sections 2.3 and 3.2; Zhou et al. 2018 (the successor's held-out use).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.direction import Direction
from openwork.errors import BadInput
from openwork.finding import Criteria
from openwork.network.measure import Tick, silent
from openwork.pictures import Masked
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.corpora import Split, claims_about, columns_of, grid_of
from openwork.vision.dissection.dissected import assembled
from openwork.vision.dissection.overlap import Concepts, Counts, Overlap, counts, enlarged, enlarging, influences, pairs
from openwork.vision.dissection.quantiles import Tail
from openwork.vision.passes import maps, passes
from openwork.vision.streams import Extremes

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

KIND = "units of randomly rotated bases, each with its own best concept"
RIVAL = "the same pixels on other images' masks"
SHIFTS = 4
"""Other images of the batch whose masks a unit is held against."""


@dataclass(frozen=True)
class Dissection:
    """How to dissect.

    Args:
        share: of all places that lie above a unit's threshold; the paper's 0.005 (its successor's library: 0.01).
        least: intersection over union above which a unit is a detector.
        rotations: random bases at least; more where the claims need more controls.
        claims: how many units, the best on find images, to claim on held-out ones.
        shown: how many units to keep example images of.
        examples: images of each.
        capacity: values kept of each unit for its threshold; see `openwork.vision.dissection.quantiles`.
        standard: what a claim must meet; its `min_share` is not used, since `least` is what matters here.
        seed: of the split, rotations and intervals.
    """

    share: float = 0.005
    least: float = 0.04
    rotations: int = 10
    claims: int = 5
    shown: int = 12
    examples: int = 4
    capacity: int = 8192
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.share < 1 and 0 < self.least < 1):
            raise BadInput(f"expected share and least between 0 and 1; got {self.share} and {self.least}")
        if min(self.rotations, self.claims, self.shown) < 0 or self.examples < 1:
            raise BadInput(f"expected no negative number, and an example or more; got {self}")


def dissect(
    net: Network,
    sites: str | Site | Direction | Iterable[str | Site | Direction],
    pictures: Masked,
    method: Dissection = Dissection(),
    *,
    held_out: Masked | None = None,
    tick: Tick = silent,
) -> Result:
    """Find what each unit detects on find images, and claim it on held-out ones.

    Args:
        net: a network that reads images.
        sites: sites or patterns, whose channels are the units (an index selects some), or directions.
        pictures: images with masks.
        method: how.
        held_out: images that nothing is found on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a finding for each of the best units, observed and therefore never more than inconclusive
        (`remove` intervenes); a table with the axis ``unit``: ``threshold``, ``share`` really above it, ``find_iou`` of
        the best concept, ``iou`` of that concept on held-out images with ``iou_low`` and ``iou_high``, ``best`` its
        number, ``detector``, ``p`` against rotated units; ``concept_iou`` (unit, concept); by ``site`` and ``category``
        the number of ``detectors`` and of concepts that these detect between them (``unique_detectors``), and
        ``rotated_detectors`` and ``rotated_unique`` with the axis ``rotation``; and examples of the best units, (shown,
        example, …): ``picture`` in bytes, ``lit`` and ``labelled`` pixels.

    Raises:
        BadInput: without masks, for ids that name no concept, too few places for a threshold, a network that reads no
            images, or activations that are not finite.
        UnknownName: for a site that does not exist.

    Source:
        Bau et al. 2017, section 2.3 (thresholds, equation 1) and 3.2 (rotations); the interval is that of a ratio of
        sums over images.
    """
    concepts = Concepts(dict(pictures.concepts))
    split = Split.of(pictures, held_out, method.seed)
    if held_out is not None and dict(held_out.concepts) != dict(pictures.concepts):
        raise BadInput("expected held-out images with the same categories and concepts as the find images")
    units = [_Units.of(net, target, pictures, method) for target in _targets(net, sites)]
    total = 2 * len(split.find_rows) + len(split.held_rows)
    run = _Run(net, units, concepts, split, method, lambda done: tick(min(1.0, done / total)))
    run.thresholds()
    run.overlaps()
    run.held_out()
    settings = {**asdict(method), "sites": [u.site for u in units], "pictures": pictures.name}
    remarks = [*run.remarks(), *split.remarks]
    candidates = sorted((c for u in units for c in run.candidates(u)), key=lambda c: -c[0])[: method.claims]
    needed = Criteria(method.least, "IoU", method.standard.alpha, min_examples=method.standard.min_examples,
                      needs_rival=False)  # fmt: skip
    claims = claims_about(net, split, settings, method.seed)
    findings = claimed(claims, needed, [one for _, one in candidates], intervened=False)
    table = assembled(units, concepts, method.least, run.examples())
    table.attrs.update(
        network=net.name, unit="IoU", pictures=pictures.name, share=method.share, least=method.least,
        n_find=len(split.find_rows), n_held_out=len(split.held_rows),
    )  # fmt: skip
    return Result("network dissection", findings, table, settings, tuple(remarks))


@dataclass(frozen=True, eq=False)
class _Target:
    """What is dissected at one site: all its channels, or some directions over them."""

    site: str
    names: list[str]
    directions: Float[np.ndarray, "unit channel"]


def _targets(net: Network, sites: str | Site | Direction | Iterable[str | Site | Direction]) -> list[_Target]:
    given = [sites] if isinstance(sites, (str, Site, Direction)) else list(sites)
    found: dict[str, _Target] = {}

    def add(site: str, names: list[str], directions: Float[np.ndarray, "unit channel"]) -> None:
        if site in found:
            names, directions = found[site].names + names, np.concatenate((found[site].directions, directions))
        found[site] = _Target(site, names, directions)

    for one in given:
        if isinstance(one, Direction):
            site = net.map.resolve(one.site.path)[0].path
            vectors = np.atleast_2d(one.array.numpy())
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            label = one.origin or "direction"
            add(site, [f"{site} {label}{f' {i}' if len(vectors) > 1 else ''}" for i in range(len(vectors))], vectors)
            continue
        for place in net.map.resolve(one):
            names, chosen = columns_of(net, place)
            add(place.path, names, np.eye(len(columns_of(net, Site(place.path))[1]))[chosen])
    if not found:
        raise BadInput("expected at least one site or direction to dissect")
    return list(found.values())


class _Units:
    """Units of one site, and the same in random bases: what is known of them so far."""

    def __init__(self, target: _Target, grid: Grid, bases: list[Float[Tensor, "unit channel"]]):
        self.site, self.names, self.grid, self.bases = target.site, target.names, grid, bases
        self.plain = np.array_equal(target.directions, np.eye(target.directions.shape[1]))
        self.thresholds: list[Tensor] = []
        self.bound = 0.0
        self.above, self.places = torch.zeros(len(self.names), dtype=torch.double), 0
        self.found: list[Overlap] = []
        self.held: list[Overlap] = []
        self.images: dict[str, list[Tensor]] = {}
        self.extremes: Extremes | None = None

    @classmethod
    def of(cls, net: Network, target: _Target, pictures: Masked, method: Dissection) -> _Units:
        grid = grid_of(net, target.site, pictures)
        count, channels = target.directions.shape
        needed = math.ceil(Criteria(1.0, "", method.standard.alpha).controls_needed / count) if method.claims else 0
        rng = np.random.default_rng(method.seed)
        turns = max(method.rotations, needed) if channels > 1 else 0
        bases = [target.directions, *(target.directions @ rotation(channels, rng) for _ in range(turns))]
        return cls(target, grid, [torch.tensor(basis, dtype=torch.float32) for basis in bases])

    def read(self, value: Tensor, axes: tuple[str, ...]) -> Iterator[tuple[int, Float[Tensor, "image unit y x"]]]:
        """The maps of the units, then of those of each random basis."""
        whole = maps(value, axes, self.grid).float().cpu()
        if not bool(torch.isfinite(whole).all()):
            raise BadInput(f"expected finite activations at {self.site}; got NaN or infinity")
        if whole.shape[1] != self.bases[0].shape[1]:
            raise BadInput(
                f"expected directions over the {whole.shape[1]} channels of {self.site}; got "
                f"{self.bases[0].shape[1]} numbers in each"
            )
        for number, basis in enumerate(self.bases):
            same = number == 0 and self.plain
            yield number, whole if same else torch.einsum("nchw,uc->nuhw", whole, basis)

    @property
    def best(self) -> np.ndarray:
        """The number of the best concept on find images, (basis, unit)."""
        return np.stack([o.iou.argmax(1) for o in self.found])

    def held_iou(self) -> np.ndarray:
        """Of that concept on held-out images, (basis, unit)."""
        return np.stack([o.iou[np.arange(len(b)), b] for o, b in zip(self.held, self.best, strict=True)])


def rotation(size: int, rng: np.random.Generator) -> Float[np.ndarray, "size size"]:
    """A rotation drawn uniformly.

    Source: Mezzadri 2007, How to generate random matrices from the classical compact groups.
    """
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return q


class _Run:
    """The passes over the corpora."""

    def __init__(
        self, net: Network, units: list[_Units], concepts: Concepts, split: Split, method: Dissection, done: Tick
    ):
        self.net, self.units, self.concepts, self.split, self.method = net, units, concepts, split, method
        self._done, self._images = done, 0
        self._mixing: dict[str, tuple[Tensor, Tensor]] = {}

    def _stream(self, corpus: Masked, rows: Sequence[int]) -> Iterator[Any]:
        for one in passes(self.net, corpus, [u.site for u in self.units], rows=rows):
            yield one
            self._images += len(one.rows)
            self._done(self._images)

    def _read(self, unit: _Units, one: Any) -> Iterator[tuple[int, Tensor]]:
        return unit.read(one.values[unit.site], self.net.map.info(unit.site).axes)

    def thresholds(self) -> None:
        """First pass: what each unit exceeds at the wanted share of places."""
        rows, method = self.split.find_rows, self.method
        tails = {
            u.site: [
                Tail(len(u.names), len(rows) * len(u.grid), method.share, method.capacity, method.seed) for _ in u.bases
            ]
            for u in self.units
        }
        for one in self._stream(self.split.find, rows):
            for unit in self.units:
                for number, found in self._read(unit, one):
                    tails[unit.site][number].add(found.transpose(0, 1).flatten(1))
        for unit in self.units:
            unit.thresholds = [tail.thresholds() for tail in tails[unit.site]]
            unit.bound = tails[unit.site][0].bound()

    def _counted(self, unit: _Units, number: int, found: Tensor, masks: list[Tensor], size: tuple[int, int]) -> Counts:
        if unit.site not in self._mixing:
            self._mixing[unit.site] = enlarging(unit.grid, size)
        return counts(found, unit.thresholds[number], masks, self.concepts, self._mixing[unit.site])

    def overlaps(self) -> None:
        """Second pass: overlap on find images."""
        for unit in self.units:
            unit.found = [Overlap(len(unit.names), self.concepts) for _ in unit.bases]
        for one in self._stream(self.split.find, self.split.find_rows):
            size = (one.pixels.shape[-2], one.pixels.shape[-1])
            masks = self.concepts.checked(self.split.find.masks(one.rows), size)
            for unit in self.units:
                for number, found in self._read(unit, one):
                    unit.found[number].add(self._counted(unit, number, found, masks, size))
                    if number == 0:
                        unit.above += (found > unit.thresholds[0][:, None, None]).sum((0, 2, 3))
                        unit.places += found.shape[0] * len(unit.grid)

    def held_out(self) -> None:
        """Third pass: overlap on held-out images, and each of them for the units to be claimed."""
        leaders = self._leaders()
        for unit in self.units:
            unit.held = [Overlap(len(unit.names), self.concepts) for _ in unit.bases]
            unit.extremes = Extremes(len(unit.names), self.method.examples, 0)
            unit.images = {name: [] for name in ("both", "either", "other both", "other either", "labelled")}
        for one in self._stream(self.split.held, self.split.held_rows):
            size = (one.pixels.shape[-2], one.pixels.shape[-1])
            masks = self.concepts.checked(self.split.held.masks(one.rows), size)
            for unit in self.units:
                for number, found in self._read(unit, one):
                    seen = self._counted(unit, number, found, masks, size)
                    unit.held[number].add(seen)
                    if number == 0:
                        assert unit.extremes is not None
                        unit.extremes.add(found.amax((2, 3)).double().numpy(), np.asarray(one.rows))
                        self._each(unit, leaders[unit.site], found, seen, masks, size)

    def _leaders(self) -> dict[str, np.ndarray]:
        """The units of each site that may be claimed: as many as claims, the best on find images."""
        return {u.site: np.argsort(-u.found[0].iou.max(1), kind="stable")[: self.method.claims] for u in self.units}

    def _each(
        self, unit: _Units, chosen: np.ndarray, found: Tensor, seen: Counts, masks: list[Tensor], size: tuple[int, int]
    ) -> None:
        """Intersection and union of single images with their own masks, and on average with those of others."""
        if not len(chosen):
            return
        some = torch.as_tensor(chosen.copy())
        concept = torch.as_tensor(unit.best[0][chosen])
        category = torch.as_tensor(self.concepts.category)[concept]

        def picked(given: Counts, units: Tensor) -> tuple[Tensor, Tensor]:
            both, either = pairs(given, self.concepts)
            return both[:, units, concept], either[:, units, concept]

        both, either = picked(seen, some)
        shifts = range(1, min(SHIFTS, len(found) - 1) + 1)
        others = []
        mixing = self._mixing[unit.site]
        for shift in shifts:
            turned = [mask.roll(shift, 0) for mask in masks]
            given = counts(found[:, some], unit.thresholds[0][some], turned, self.concepts, mixing)
            others.append(torch.stack(picked(given, torch.arange(len(some)))))
        other = torch.stack(others).mean(0) if others else torch.full((2, *both.shape), float("nan"))
        for name, value in zip(unit.images, (both, either, *other, seen.labelled[:, category]), strict=True):
            unit.images[name].append(value)

    def candidates(self, unit: _Units) -> list[tuple[float, Candidate]]:
        """The overlap on find images of each of the site's best units, and the claim about it on held-out ones.

        Only those of these images count that carry labels of the category.
        """
        chosen = self._leaders()[unit.site]
        if not len(chosen) or len(unit.bases) < 2:
            return []
        columns = {name: torch.cat(parts).numpy() for name, parts in unit.images.items()}
        controls, out = unit.held_iou()[1:].ravel(), []
        for column, number in enumerate(chosen):
            labelled = columns["labelled"][:, column].astype(bool)
            if labelled.sum() < 2:
                continue
            both, either = (columns[name][labelled, column] for name in ("both", "either"))
            own = influences(both, either)
            other = [columns[name][labelled, column] for name in ("other both", "other either")]
            rival = influences(*other) if all(np.isfinite(x).all() for x in other) else None
            concept = self.concepts.names[unit.best[0][number]]
            text = f"{unit.names[number]} fires where the picture shows {concept}"
            found = float(unit.found[0].iou[number].max())
            out.append((found, Candidate(text, own, controls, KIND, {} if rival is None else {RIVAL: rival})))
        return out

    def examples(self) -> dict[str, Any]:
        """The held-out images that the best units prefer, with active and labelled pixels."""
        ranked = sorted(
            ((float(iou), u, number) for u in self.units for number, iou in enumerate(u.found[0].iou.max(1))),
            key=lambda x: -x[0],
        )[: self.method.shown]  # fmt: skip
        if not ranked:
            return {}
        shown = []
        for _, unit, number in ranked:
            assert unit.extremes is not None
            rows = [int(row) for row in unit.extremes.strongest[1][number]]
            shown.append((unit, number, rows))
        wanted = sorted({row for _, _, rows in shown for row in rows})
        pixels, lit, labelled = {}, {}, {}
        for one in passes(self.net, self.split.held, [u.site for u in self.units], rows=wanted):
            size = (one.pixels.shape[-2], one.pixels.shape[-1])
            masks = self.concepts.checked(self.split.held.masks(one.rows), size)
            given = self.split.held.pixels(one.rows)
            values = {u.site: next(self._read(u, one))[1] for u in self.units}
            for place, row in enumerate(one.rows):
                pixels[row] = given[place].permute(1, 2, 0).numpy()
                for unit, number, rows in shown:
                    if row not in rows:
                        continue
                    big = enlarged(values[unit.site][place, number], self._mixing[unit.site])
                    key = (unit.site, number, row)
                    lit[key] = (big > unit.thresholds[0][number]).numpy()
                    concept = unit.best[0][number]
                    category = self.concepts.category[concept]
                    inside = int(concept - np.flatnonzero(self.concepts.category == category)[0]) + 1
                    labelled[key] = (masks[category][place] == inside).view(*size).numpy()
        places = [[(u.site, n, row) for row in rows] for u, n, rows in shown]
        return {
            "shown": [u.names[n] for u, n, _ in shown],
            "row": np.array([rows for _, _, rows in shown]),
            "picture": np.array([[pixels[row] for _, _, row in some] for some in places]),
            "lit": np.array([[lit[key] for key in some] for some in places]),
            "labelled": np.array([[labelled[key] for key in some] for some in places]),
        }

    def remarks(self) -> list[str]:
        """What a reader must know of the numbers."""
        out, least = [], self.method.standard.min_examples
        for number, category in enumerate(self.concepts.categories):
            n = int(self.units[0].held[0].images[number])
            if n < least:
                out.append(
                    f"WARNING: only {n} held-out images carry labels of {category}, fewer than {least}: its numbers "
                    "are a smoke test, no evidence"
                )
        for unit in self.units:
            if unit.bound:
                out.append(
                    f"thresholds of {unit.site} are of a stream too large to keep: with 99 % confidence the share "
                    f"above one lies within {unit.bound:.2g} of {self.method.share:g}"
                )
            silent_units = int((unit.above == 0).sum())
            if silent_units:
                out.append(f"{silent_units} of {len(unit.names)} units of {unit.site} never exceed their threshold")
            if len(unit.bases) < 2:
                out.append(f"{unit.site} has no other basis to compare with: nothing is claimed there")
        return out
