"""Edges, textures, parts, objects: which layers detect which, and whether higher detectors rest on lower ones.

    hierarchy(net, Shapes(split="find"), ["module:stages.0.out", "module:stages.1.out"])

Every layer is dissected. Then the detectors of a lower concept are taken out, and what later detectors of concepts that
contain it lose (the wheel, and the car) is held against what those lose that do not (the cat); and both against random
units of the same mean activation.

Source: Bau et al. 2017, Network dissection, section 3.3 (concepts by layer); the causal test is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from openwork.edit import Set
from openwork.errors import BadInput
from openwork.network import Behind
from openwork.pictures import Masked
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.circuits.unions import pooled
from openwork.vision.corpora import Split, claims_about
from openwork.vision.dissection.dissect import Dissection, dissect
from openwork.vision.halves import read, some

if TYPE_CHECKING:
    from openwork.network import Network

ORDER = ("edge", "colour", "texture", "material", "part", "object", "scene")
"""Categories from low to high; others come between textures and parts, in the order of the corpus."""
CONTROL = "random units of the same layer with about the same mean activation"
CONTAINS, LACKS = 0.5, 0.2
"""Of the largest share of pixels that a lower concept has in any concept of a category: from the first on a concept of
that category contains it, up to the second it does not."""


@dataclass(frozen=True)
class Climbing:
    """How the hierarchy is measured.

    Args:
        dissection: how units are dissected; its own claims are left out.
        images: for interventions, of each half, at most.
        claims: how many lower concepts, those whose removal tells most on find images, are claimed on held-out ones.
        neighbours: of a unit in mean activation, among which its random stand-in is drawn.
        standard: what a claim must meet; its least share is of a standard deviation of the detectors.
        seed: of everything random.
    """

    dissection: Dissection = field(default_factory=lambda: Dissection(rotations=0, claims=0, shown=0))
    images: int = 400
    claims: int = 4
    neighbours: int = 8
    standard: Standard = field(default_factory=lambda: Standard(min_share=0.05))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 4 or self.claims < 0 or self.neighbours < 1:
            raise BadInput(f"expected images from 4, claims from 0 and neighbours from 1; got {self}")


def hierarchy(
    net: Network,
    pictures: Masked,
    sites: Sequence[str | Site],
    method: Climbing = Climbing(),
    *,
    held_out: Masked | None = None,
    detectors: Result | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Result:
    """Dissect some layers, and test that higher detectors rest on the lower ones whose concepts theirs contain.

    Args:
        net: the network.
        pictures: images with masks of concepts.
        sites: maps of channels, early ones first.
        method: how.
        held_out: images that nothing is found on; a random half of `pictures` unless given.
        detectors: a result of `dissect` on these sites, so that it need not be done again.
        tick: told the share that is done.

    Returns:
        a finding for each lower concept whose removal tells most: what detectors of what contains it lose in images of
        that, minus what those of what does not contain it lose in images of theirs; and a table: ``share`` (site,
        category) of units that detect something of a category; ``contains`` (concept, other), the share of a concept's
        pixels that show the other; on find images ``step_effect`` (step) with ends, ``contained_loss`` and
        ``other_loss`` (step), with the coordinates ``lower``, ``lower_site``, ``upper_site``, ``units`` (how many were
        taken out) and ``pairs`` (of images).

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: without masks, or for fewer than two sites.

    Units:
        of the claims, standard deviations of a detector's mean over places.
    """
    if not isinstance(pictures, Masked) or not pictures.concepts:
        raise BadInput(f"expected images with masks, which say what is where; {pictures.name} has none")
    names = [net.map.resolve(site)[0].path for site in sites]
    if len({*names}) < 2:
        raise BadInput(f"expected two sites or more, early ones first; got {names}")
    if detectors is None:
        detectors = dissect(net, names, pictures, method.dissection, held_out=held_out, tick=lambda s: tick(0.5 * s))
    units = detected(detectors, names)
    categories = ordered(pictures.concepts)
    split = Split.of(pictures, held_out, method.seed)
    inside = within(pictures, split.find_rows, method)
    sides = [
        _Side(net, corpus, some(rows, method.images, method.seed), names)
        for corpus, rows in ((split.find, split.find_rows), (split.held, split.held_rows))
    ]
    find, held = sides
    scale = {name: np.maximum(find.base[name].std(0), 1e-9) for name in names}
    means = {name: find.base[name].mean(0) for name in names}
    steps = _steps(units, names, inside, categories)
    measured = []
    for number, step in enumerate(steps):
        measured.append(find.effect(step, step.lower_units, means, scale))
        tick(0.5 + 0.2 * (number + 1) / len(steps))
    able = [i for i, one in enumerate(measured) if len(one.difference) >= 2]
    order = sorted(able, key=lambda i: -float(measured[i].difference.mean()))
    criteria = method.standard.criteria(1.0, "standard deviations")
    random = np.random.default_rng(method.seed)
    candidates, remarks = [], []
    for number, i in enumerate(order[: method.claims]):
        step = steps[i]
        own = held.effect(step, step.lower_units, means, scale).difference
        if len(own) < 2:
            remarks.append(f"{step.text}: too few held-out images")
            continue
        controls = []
        for done in range(criteria.controls_needed):
            other = stand_ins(step.lower_units, means[step.lower_site], step.taken, method.neighbours, random)
            controls.append(float(held.effect(step, other, means, scale).difference.mean()))
            tick(0.7 + 0.3 * (number + done / criteria.controls_needed) / min(len(order), method.claims))
        candidates.append(Candidate(step.text, own, np.array(controls), CONTROL))
    settings = {"sites": names, "pictures": pictures.name, **asdict(method)}
    claims = claims_about(net, split, settings, method.seed)
    table = _table(net, names, categories, units, steps, measured, inside)
    table.attrs.update(network=net.name, unit="standard deviations", pictures=pictures.name)
    if not steps:
        remarks.append("no lower detectors lie below higher ones of what contains their concept and of what does not")
    tick(1.0)
    return Result("hierarchy", claimed(claims, criteria, candidates), table, settings, (*remarks, *split.remarks))


@dataclass(frozen=True)
class Detector:
    """A unit and what it detects."""

    site: str
    channel: int
    category: str
    concept: str
    overlap: float


@dataclass(frozen=True)
class Step:
    """The detectors of one lower concept, and later ones of higher concepts.

    Args:
        lower: category and concept.
        lower_site: of its detectors.
        lower_units: these.
        taken: units of that site that may stand for none of them: those and others of the same concept.
        upper_site: of the higher ones.
        contained: concept -> detectors, of concepts that contain the lower one.
        others: the same of concepts that do not.
    """

    lower: tuple[str, str]
    lower_site: str
    lower_units: tuple[int, ...]
    taken: tuple[int, ...]
    upper_site: str
    contained: Mapping[tuple[str, str], tuple[int, ...]]
    others: Mapping[tuple[str, str], tuple[int, ...]]

    @property
    def text(self) -> str:
        """The claim in words."""
        upper = ", ".join(concept for _, concept in self.contained)
        return (
            f"{len(self.lower_units)} detectors of {self.lower[0]} {self.lower[1]} in {self.lower_site} carry later "
            f"detectors of what contains it ({upper}) in {self.upper_site} more than those of what does not"
        )


def detected(result: Result, names: Sequence[str]) -> list[Detector]:
    """The detectors of a dissection.

    Raises:
        BadInput: if it is of other sites.
    """
    table = result.table
    if not {"unit_site", "best_concept"} <= {*map(str, table.coords)}:
        raise BadInput("expected detectors= as a result of openwork.vision.dissection.dissect")
    missing = {*names} - {*map(str, table["unit_site"].to_numpy())}
    if missing:
        raise BadInput(f"expected a dissection of {', '.join(names)}; {sorted(missing)[0]} is not in it")
    found = []
    columns = (table[name].to_numpy().tolist() for name in ("unit", "unit_site", "best_concept", "iou", "detector"))
    for unit, site, concept, overlap, detector in zip(*columns, strict=True):
        parsed = Site.parse(unit) if "[" in unit else None
        if detector and site in names and parsed is not None:
            category, _, name = concept.partition(" ")
            found.append(Detector(site, parsed.index[0], category, name, float(overlap)))
    return found


def ordered(concepts: Mapping[str, Sequence[str]]) -> list[str]:
    """Categories from low to high."""
    middle = ORDER.index("part") - 0.5
    return sorted(concepts, key=lambda c: ORDER.index(c) if c in ORDER else middle)


def within(pictures: Masked, rows: Sequence[int], method: Climbing) -> dict[str, Any]:
    """How much of each concept is each other one: ``names`` and ``share`` (concept, other) of its pixels."""
    names = [(category, name) for category, known in pictures.concepts.items() for name in known]
    start: dict[str, int] = {}
    for number, (category, _) in enumerate(names):
        start.setdefault(category, number)
    both = np.zeros((len(names), len(names)))
    for row in some(rows, method.images, method.seed):
        masks = {category: mask[0].flatten().cpu().numpy() for category, mask in pictures.masks([row]).items()}
        ids = [np.where(mask > 0, mask + start[c] - 1, -1) for c, mask in masks.items() if c in start]
        for a in ids:
            for b in ids:
                held = (a >= 0) & (b >= 0)
                np.add.at(both, (a[held], b[held]), 1)
    pixels = both.diagonal()[:, None]
    return {"names": names, "share": np.divide(both, pixels, out=np.zeros_like(both), where=pixels > 0)}


def _steps(
    units: Sequence[Detector], names: Sequence[str], inside: Mapping[str, Any], categories: Sequence[str]
) -> list[Step]:
    """Every lower concept with detectors before those of two kinds of higher concepts, at each pair of layers."""
    number = {name: i for i, name in enumerate(inside["names"])}
    by_site: dict[str, dict[tuple[str, str], list[int]]] = {name: {} for name in names}
    for unit in units:
        by_site[unit.site].setdefault((unit.category, unit.concept), []).append(unit.channel)
    steps = []
    for i, early in enumerate(names):
        for lower, channels in by_site[early].items():
            for late in names[i + 1 :]:
                sides: list[dict[tuple[str, str], tuple[int, ...]]] = [{}, {}]
                for upper, others in by_site[late].items():
                    if categories.index(upper[0]) <= categories.index(lower[0]):
                        continue
                    alike = [i for name, i in number.items() if name[0] == upper[0]]
                    most = float(inside["share"][alike, number[lower]].max())
                    share = float(inside["share"][number[upper], number[lower]])
                    if most and not LACKS * most < share < CONTAINS * most:
                        sides[share <= LACKS * most][upper] = tuple(others)
                if all(sides):
                    steps.append(Step(lower, early, tuple(channels), tuple(channels), late, *sides))
    return steps


def stand_ins(
    units: Sequence[int],
    mean: Float[np.ndarray, " unit"],
    taken: Sequence[int],
    neighbours: int,
    random: np.random.Generator,
) -> tuple[int, ...]:
    """As many other units, each drawn among those with the nearest mean activation; fewer if there are not so many."""
    out: list[int] = []
    for unit in units:
        free = [u for u in range(len(mean)) if u not in taken and u not in out]
        near = sorted(free, key=lambda u: abs(mean[u] - mean[unit]))[:neighbours]
        if near:
            out.append(int(random.choice(near)))
    return tuple(out)


@dataclass(frozen=True, eq=False)
class Loss:
    """What detectors lose, in standard deviations, image by image.

    Args:
        contained: in images of what contains the lower concept.
        other: in images of what does not.
        difference: of random pairs of one each.
    """

    contained: Float[np.ndarray, " image"]
    other: Float[np.ndarray, " other_image"]
    difference: Float[np.ndarray, " pair"]


class _Side:
    """Some images: what they show, and how units answer."""

    def __init__(self, net: Network, pictures: Masked, rows: Sequence[int], names: Sequence[str]):
        inputs = read(net, pictures, rows)
        self.shows = _shows(pictures, rows)
        self.later = Behind(net, inputs, names)
        run = self.later.run(keep=names, until=self.later.sites[-1])
        self.base = {name: pooled(run, name) for name in names}

    def effect(
        self,
        step: Step,
        units: Sequence[int],
        means: Mapping[str, Float[np.ndarray, " unit"]],
        scale: Mapping[str, Float[np.ndarray, " unit"]],
    ) -> Loss:
        """What later detectors lose when some units are held at their mean."""
        edits = [Set(Site(step.lower_site, (int(u),)), value=float(means[step.lower_site][u])) for u in units]
        late = step.upper_site
        run = self.later.run(edits=edits, keep=late, until=late)
        loss = (self.base[late] - pooled(run, late)) / scale[late]
        sides = []
        for kinds in (step.contained, step.others):
            parts = [loss[self.shows[kind]][:, list(channels)].mean(1) for kind, channels in kinds.items()]
            sides.append(np.concatenate(parts))
        n = min(map(len, sides))
        random = np.random.default_rng(0)
        pairs = [side[random.permutation(len(side))[:n]] for side in sides]
        return Loss(sides[0], sides[1], pairs[0] - pairs[1])


def _shows(pictures: Masked, rows: Sequence[int]) -> dict[tuple[str, str], Bool[np.ndarray, " image"]]:
    """Which images show each concept."""
    masks = pictures.masks(rows)
    return {
        (category, name): (masks[category].flatten(1) == k).any(1).cpu().numpy()
        for category, known in pictures.concepts.items()
        for k, name in enumerate(known, 1)
    }


def _table(
    net: Network,
    names: Sequence[str],
    categories: Sequence[str],
    units: Sequence[Detector],
    steps: Sequence[Step],
    measured: Sequence[Loss],
    inside: Mapping[str, Any],
) -> Any:
    import xarray

    share = np.zeros((len(names), len(categories)))
    for unit in units:
        share[names.index(unit.site), categories.index(unit.category)] += 1 / net.parts(unit.site)
    called = [" ".join(name) for name in inside["names"]]
    variables: dict[str, Any] = {
        "share": (("site", "category"), share),
        "contains": (("concept", "other"), inside["share"]),
    }
    coords: dict[str, Any] = {"site": list(names), "category": list(categories), "concept": called, "other": called}
    able = [i for i, one in enumerate(measured) if len(one.difference) >= 2]
    if able:
        values = [measured[i].difference for i in able]
        mean = np.array([v.mean() for v in values])
        error = np.array([1.96 * v.std(ddof=1) / np.sqrt(len(v)) for v in values])
        variables |= {
            "step_effect": ("step", mean),
            "step_effect_low": ("step", mean - error),
            "step_effect_high": ("step", mean + error),
            "contained_loss": ("step", [float(measured[i].contained.mean()) for i in able]),
            "other_loss": ("step", [float(measured[i].other.mean()) for i in able]),
        }
        coords |= {
            "step": [f"{' '.join(steps[i].lower)}, {steps[i].lower_site} → {steps[i].upper_site}" for i in able],
            "lower": ("step", [" ".join(steps[i].lower) for i in able]),
            "lower_site": ("step", [steps[i].lower_site for i in able]),
            "upper_site": ("step", [steps[i].upper_site for i in able]),
            "units": ("step", [len(steps[i].lower_units) for i in able]),
            "pairs": ("step", [len(v) for v in values]),
        }
    return xarray.Dataset(variables, coords)
