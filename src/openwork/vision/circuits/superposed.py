"""Superposition: one unit that unrelated concepts share, and that their detectors read with different signs.

    superposed(net, masked, "module:layer1.out", "module:layer2.out")

Source: Olah et al. 2020, Zoom in (Distill), the motif "superposition"; Elhage et al. 2022, Toy models of superposition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openwork.edit import Set
from openwork.errors import BadInput
from openwork.network import Behind
from openwork.pictures import Masked
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.circuits.kernels import SLOPES, kernels
from openwork.vision.circuits.unions import pooled
from openwork.vision.corpora import claims_about
from openwork.vision.halves import halves, read

if TYPE_CHECKING:
    from openwork.network import Network

CONTROL = "random other channels of the sender"


@dataclass(frozen=True)
class Sharing:
    """How shared units are found and tested.

    Args:
        slopes: see `openwork.vision.circuits.kernels.kernels`.
        images: of each half, at most.
        answers: the least correlation of a unit with the presence of a concept that it is said to answer to.
        related: the largest correlation of two concepts' presence that are called unrelated.
        strong: the least weight of a reader, as a share of its largest.
        claims: how many are claimed on held-out images.
        standard: what a claim must meet; its least share is of a standard deviation of the readers.
        seed: of the halves and of everything random.
    """

    slopes: str = "mean"
    images: int = 200
    answers: float = 0.25
    related: float = 0.1
    strong: float = 0.25
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.slopes not in SLOPES:
            raise BadInput(f"expected slopes of {', '.join(SLOPES)}; got {self.slopes!r}")
        shares = (self.answers, self.related, self.strong)
        if not all(0 <= share < 1 for share in shares) or self.images < 4 or self.claims < 0:
            raise BadInput(f"expected shares from 0 to 1, images from 4 and claims from 0; got {self}")


@dataclass(frozen=True)
class Shared:
    """A unit that two unrelated concepts share.

    Args:
        unit: of the sender.
        concepts: numbers of the two concepts.
        readers: of the receiver: the best detector of each concept among the readers of one sign.
        weights: what the readers weigh the unit with, the first positive and the second negative.
        score: the product of correlations and weights, by which they are ordered.
    """

    unit: int
    concepts: tuple[int, int]
    readers: tuple[int, int]
    weights: tuple[float, float]
    score: float


def superposed(
    net: Network,
    pictures: Masked,
    sender: str | Site,
    receiver: str | Site,
    method: Sharing = Sharing(),
    *,
    held_out: Masked | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Result:
    """Find units that answer to two unrelated concepts whose detectors read them with different signs.

    Args:
        net: the network.
        pictures: images with masks.
        sender: the map of the units; an index selects among them.
        receiver: the later map of the detectors.
        method: how.
        held_out: images that nothing is found on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a finding for each of the clearest: the unit held at its median over all places moves both detectors, each in
        images of its own concept and as the sign of its weight foretells, by this many standard deviations in the
        weaker one; and a table: ``answer`` (unit, concept) and ``detects`` (reader, concept), correlations with
        presence; ``weight`` (reader, unit); and of each candidate its unit, concepts, readers and weights.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for images without masks.

    Units:
        of the claims, standard deviations of a detector's mean over places.
    """
    if not isinstance(pictures, Masked) or not pictures.concepts:
        raise BadInput(f"expected images with masks, which say what is where; {pictures.name} has none")
    split = halves(pictures, held_out, method.images, method.seed)
    inputs = read(net, split.find, split.find_rows)
    found = kernels(net, sender, receiver, inputs, method.slopes, lambda s: tick(0.4 * s))
    weight = found.values.sum((2, 3)).double().cpu().numpy()
    names, there = presence(split.find, split.find_rows)
    run = net.run(inputs, keep=(found.sender, found.receiver), until=found.receiver)
    active = pooled(run, found.sender)[:, list(found.in_units)]
    late = pooled(run, found.receiver)[:, list(found.out_units)]
    answer, detects = (correlation(values, there) for values in (active, late))
    groups = shared(answer, detects, weight, np.nan_to_num(correlation(there.astype(float), there)), method)
    candidates = []
    settings = {"sender": found.sender, "receiver": found.receiver, "pictures": pictures.name, **asdict(method)}
    criteria = method.standard.criteria(1.0, "standard deviations")
    held_names, held_there = presence(split.held, split.held_rows)
    if held_names != names:
        raise BadInput("expected held-out images with the same concepts as the find images")
    usual = _median(run[found.sender])[list(found.in_units)]
    change = _Changes(net, found, read(net, split.held, split.held_rows), usual, late.std(0))
    remarks = []
    for number, one in enumerate(groups[: method.claims]):
        rows = [np.flatnonzero(held_there[:, c] & ~held_there[:, d]) for c, d in (one.concepts, one.concepts[::-1])]
        label = f"{Site(found.sender, (found.in_units[one.unit],))}"
        if min(map(len, rows)) < 2:
            remarks.append(f"{label}: fewer than two held-out images show just one of its concepts")
            continue
        own = change.foretold(one.unit, one, rows)
        others = [u for u in range(len(found.in_units)) if u != one.unit]
        random = np.random.default_rng((method.seed, number))
        drawn = random.choice(others, criteria.controls_needed) if others else []
        controls = [float(change.foretold(int(u), one, rows).mean()) for u in drawn]
        concepts, readers = [names[c] for c in one.concepts], [found.out_units[r] for r in one.readers]
        text = (
            f"{label} is shared by {concepts[0]} and {concepts[1]}: channel {readers[0]} of {found.receiver} reads it "
            f"for the one with a positive weight, channel {readers[1]} for the other with a negative one"
        )
        if controls:
            candidates.append(Candidate(text, own, np.array(controls), CONTROL))
        tick(0.4 + 0.6 * (number + 1) / min(len(groups), method.claims))
    claims = claims_about(net, split, settings, method.seed)
    table = _table(found, names, answer, detects, weight, groups)
    table.attrs.update(network=net.name, unit="standard deviations", sender=found.sender, receiver=found.receiver)
    if not groups:
        remarks.append("no unit answers to two unrelated concepts whose detectors read it with different signs")
    tick(1.0)
    return Result("superposition", claimed(claims, criteria, candidates), table, settings, (*remarks, *split.remarks))


def presence(pictures: Masked, rows: Sequence[int]) -> tuple[list[str], Bool[np.ndarray, "image concept"]]:
    """The names of all concepts, as ``category: concept``, and which image shows which."""
    masks = pictures.masks(rows)
    names, there = [], []
    for category, concepts in pictures.concepts.items():
        flat = masks[category].flatten(1)
        for number, concept in enumerate(concepts, 1):
            names.append(f"{category}: {concept}")
            there.append((flat == number).any(1).cpu().numpy())
    return names, np.stack(there, axis=1)


def correlation(
    values: Float[np.ndarray, "image unit"], there: Bool[np.ndarray, "image concept"]
) -> Float[np.ndarray, "unit concept"]:
    """Point-biserial correlation of units with the presence of concepts; 0 where either never varies."""
    sides = []
    for side in (values, there.astype(float)):
        centred = side - side.mean(0)
        size = np.linalg.norm(centred, axis=0)
        sides.append(np.divide(centred, size, out=np.zeros_like(centred), where=size > 1e-9))
    return sides[0].T @ sides[1]


def shared(
    answer: Float[np.ndarray, "unit concept"],
    detects: Float[np.ndarray, "reader concept"],
    weight: Float[np.ndarray, "reader unit"],
    related: Float[np.ndarray, "concept concept"],
    method: Sharing,
) -> list[Shared]:
    """Units with two unrelated concepts and detectors of these that weigh them with different signs, clearest first.

    A detector of a concept is one that answers to it more than to any other concept of its kind.
    """
    out: list[Shared] = []
    best = detects.argmax(1)
    largest = np.abs(weight).max(1, keepdims=True)
    strong = np.abs(weight) >= method.strong * np.where(largest > 0, largest, np.inf)
    for unit in range(answer.shape[0]):
        concepts = np.flatnonzero(np.abs(answer[unit]) >= method.answers)
        for a in concepts:
            for b in concepts:
                if a == b or related[a, b] > method.related:
                    continue
                readers = []
                for concept, sign in ((a, 1), (b, -1)):
                    fits = (best == concept) & (detects[:, concept] >= method.answers)
                    fits &= strong[:, unit] & (np.sign(weight[:, unit]) == sign)
                    some = np.flatnonzero(fits)
                    readers.append(int(some[np.argmax(np.abs(weight[some, unit]))]) if len(some) else -1)
                if -1 in readers:
                    continue
                weights = (float(weight[readers[0], unit]), float(weight[readers[1], unit]))
                share = [abs(w) / float(largest[r, 0]) for w, r in zip(weights, readers, strict=True)]
                score = float(np.abs(answer[unit, [a, b]]).min()) * min(share)
                out.append(Shared(unit, (int(a), int(b)), (readers[0], readers[1]), weights, score))
    return sorted(out, key=lambda one: -one.score)


def _median(value: Float[Tensor, "image channel *place"]) -> Float[np.ndarray, " channel"]:
    """What every channel is at most places.

    Its mean would not do: of a unit that fires at few places it lies above what an image of one concept has on
    average, and below what the detectors read.
    """
    return value.float().transpose(0, 1).flatten(1).median(1).values.double().cpu().numpy()


class _Changes:
    """What becomes of detectors on held-out images when a unit is held at what it is at most places."""

    def __init__(self, net: Any, found: Any, inputs: Any, usual: np.ndarray, deviation: np.ndarray):
        self.found, self.later = found, Behind(net, inputs, found.sender)
        self.usual, self.deviation = usual, np.maximum(deviation, 1e-12)
        self.base = self._read(())
        self.active = pooled(self.later.run(keep=found.sender, until=found.sender), found.sender)[
            :, list(found.in_units)
        ]
        self.seen: dict[int, np.ndarray] = {}

    def _read(self, edits: Any) -> np.ndarray:
        site = self.found.receiver
        return pooled(self.later.run(edits=edits, keep=site, until=site), site)[:, list(self.found.out_units)]

    def foretold(self, unit: int, one: Shared, rows: Sequence[np.ndarray]) -> Float[np.ndarray, " pair"]:
        """Pairs of an image of each concept: the lesser change of the two detectors, along the foretold sign."""
        if unit not in self.seen:
            value = torch.tensor(float(self.usual[unit]))
            edit = Set(Site(self.found.sender, (self.found.in_units[unit],)), value=value)
            self.seen[unit] = (self._read(edit) - self.base) / self.deviation
        n = min(map(len, rows))
        sides = []
        for reader, weight, some in zip(one.readers, one.weights, rows, strict=True):
            sign = np.sign(weight) * np.sign(self.usual[unit] - self.active[some[:n], unit])
            sides.append(sign * self.seen[unit][some[:n], reader])
        return np.minimum(*sides)


def _table(
    found: Any,
    names: Sequence[str],
    answer: np.ndarray,
    detects: np.ndarray,
    weight: np.ndarray,
    groups: Sequence[Shared],
) -> Any:
    import xarray

    variables: dict[str, Any] = {
        "answer": (("unit", "concept"), answer),
        "detects": (("reader", "concept"), detects),
        "weight": (("reader", "unit"), weight),
    }
    coords: dict[str, Any] = {
        "unit": list(found.in_units), "reader": list(found.out_units), "concept": list(names),
    }  # fmt: skip
    if groups:
        variables |= {
            "shared_unit": ("candidate", [found.in_units[g.unit] for g in groups]),
            "shared_readers": (("candidate", "sign"), [[found.out_units[r] for r in g.readers] for g in groups]),
            "shared_weights": (("candidate", "sign"), [list(g.weights) for g in groups]),
            "shared_concepts": (("candidate", "sign"), [[names[c] for c in g.concepts] for g in groups]),
            "score": ("candidate", [g.score for g in groups]),
        }
        coords["sign"] = ["positive", "negative"]
    return xarray.Dataset(variables, coords)
