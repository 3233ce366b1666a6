"""How much of what a representation says of classes can be said by few interpretable vectors: the inherent score.

    interpretability(net, "module:layer4.out", pictures)
    interpretability(net, site, pictures, vectors=mask_vectors(net, site, pictures, rows))

Features are projected on concept vectors and normalised over them; the weakest share of each image's scores is set to
zero; a linear head reads the classes. The score is the area under the head's held-out accuracy over that share,
relative to the accuracy of a head on the features themselves. Random vectors of the same number are the control.

Source: Shen et al. 2025, Enhancing Pre-trained Representation Classifiability can Boost its Interpretability, section
3 (Inherent Interpretability Score). Its heads are trained by gradient; these are ridge classifiers, solved exactly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from openwork.errors import BadInput, TaskFailed
from openwork.finding import Criteria
from openwork.network.measure import Tick, silent
from openwork.pictures import Masked
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.corpora import Split, claims_about, grid_of
from openwork.vision.passes import maps, passes

if TYPE_CHECKING:
    from openwork.network import Network

KIND = "as many random vectors"
PATCHES = 20_000
"""Places that prototypes are made of, at most."""


@dataclass(frozen=True)
class Score:
    """How to score.

    Args:
        concepts: prototypes to make, where no vectors are given; the paper selects 200.
        drops: shares of the weakest scores that are set to zero, rising from 0.
        ridge: penalty of the heads.
        least: the smallest excess over random vectors that matters.
        standard: what the claim must meet.
        seed: of the split, prototypes, random vectors and intervals.
    """

    concepts: int = 50
    drops: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ridge: float = 1.0
    least: float = 0.02
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        rising = list(self.drops) == sorted(set(self.drops)) and len(self.drops) > 1
        if self.concepts < 2 or not rising or not 0 <= min(self.drops) < max(self.drops) < 1 or self.ridge <= 0:
            raise BadInput(f"expected two concepts or more, rising drops from 0 to below 1, and ridge > 0; got {self}")


def interpretability(
    net: Network,
    site: str | Site,
    pictures: Masked,
    method: Score = Score(),
    *,
    vectors: Float[np.ndarray, "concept channel"] | None = None,
    held_out: Masked | None = None,
    tick: Tick = silent,
) -> Result:
    """Score a site by how well few concepts carry its classes.

    Args:
        net: a network that reads images.
        site: one site.
        pictures: images with classes.
        method: how.
        vectors: concept vectors over the site's channels; prototypes of find images' places unless given.
        held_out: images that no head is fitted on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a finding, observed: the vectors carry the classes more sparsely than random ones do. A table: ``accuracy``
        (drop) on held-out images and ``random_accuracy`` (control, drop); ``score``, ``score_low`` and ``score_high``
        (site), ``random_score`` (control); ``attrs["original"]`` is the accuracy of a head on the features.

    Raises:
        BadInput: for vectors of another length, or activations that are not finite.
        TaskFailed: if a head on the features tells the classes no better than always saying the commonest.

    Units:
        the score is at most about the width of the range of drops, 0.9.
    """
    places = net.map.resolve(site)
    if len(places) != 1:
        raise BadInput(f"expected one site; {site} selects {[str(p) for p in places]}")
    path = places[0].path
    split = Split.of(pictures, held_out, method.seed)
    total = len(split.find_rows) + len(split.held_rows)
    x, some = _features(net, split.find, split.find_rows, path, method, lambda n: tick(0.4 * n / total))
    y = split.find.classes(split.find_rows).cpu().numpy()
    other, _ = _features(net, split.held, split.held_rows, path, method, lambda n: tick(0.4 + 0.2 * n / total))
    truth = split.held.classes(split.held_rows).cpu().numpy()
    if vectors is None:
        vectors = prototypes(some, method.concepts, method.seed)
    if vectors.ndim != 2 or vectors.shape[1] != x.shape[1]:
        raise BadInput(f"expected vectors (concept, {x.shape[1]}); got {vectors.shape}")
    data = (x, y, other, truth)
    original = float(right(*scaled(x, other), y, truth, method.ridge).mean())
    commonest = float((truth == np.bincount(y).argmax()).mean())
    if original <= commonest:
        raise TaskFailed(
            f"a linear head on {path} tells the classes of held-out images no better ({original:.3g}) than always "
            f"saying the commonest ({commonest:.3g}): there is nothing to be interpreted"
        )
    own = kept(vectors, data, method)
    rng = np.random.default_rng(method.seed)
    controls = []
    needed = Criteria(1.0, "", method.standard.alpha).controls_needed
    for number in range(needed):
        controls.append(kept(rng.normal(size=vectors.shape), data, method))
        tick(0.6 + 0.4 * (number + 1) / needed)
    chance = np.stack(controls)
    return _result(net, path, own, chance, original, split, pictures.name, len(vectors), method)


def mask_vectors(net: Network, site: str, pictures: Masked, rows: list[int]) -> Float[np.ndarray, "concept channel"]:
    """The mean activation at the places of each concept, less that of all places; concepts without a place left out."""
    grid, axes = grid_of(net, site, pictures), net.map.info(site).axes
    sums: dict[tuple[str, int], np.ndarray] = {}
    counts: dict[tuple[str, int], int] = {}
    total, n = 0.0, 0
    for one in passes(net, pictures, [site], rows=rows):
        found = maps(one.values[site], axes, grid).float().flatten(2).transpose(1, 2).cpu().double().numpy()
        total, n = total + found.sum((0, 1)), n + found.shape[0] * found.shape[1]
        masks = pictures.masks(one.rows)
        for category, names in pictures.concepts.items():
            for number in range(1, len(names) + 1):
                for image, mask in enumerate(masks[category] == number):
                    places = [p - grid.prefix for p in grid.positions(mask)] if bool(mask.any()) else []
                    if places:
                        key = (category, number)
                        sums[key] = sums.get(key, 0.0) + found[image, places].sum(0)
                        counts[key] = counts.get(key, 0) + len(places)
    if len(sums) < 2:
        raise BadInput(f"expected at least two concepts that fill a place of {site}; got {len(sums)}")
    return np.stack([sums[key] / counts[key] - total / n for key in sums])


def prototypes(
    places: Float[np.ndarray, "place channel"], count: int, seed: int
) -> Float[np.ndarray, "concept channel"]:
    """The centres of places of equal length, by k-means."""
    from sklearn.cluster import KMeans

    length = np.linalg.norm(places, axis=1, keepdims=True)
    alive = places[length[:, 0] > 1e-12] / length[length[:, 0] > 1e-12]
    if len(alive) < count:
        raise BadInput(f"expected {count} places that are not zero, to make prototypes of; there are {len(alive)}")
    model = KMeans(count, n_init=1, random_state=seed)  # pyright: ignore[reportArgumentType]
    return model.fit(alive).cluster_centers_


def projected(
    x: Float[np.ndarray, "image channel"], vectors: Float[np.ndarray, "concept channel"], drop: float
) -> Float[np.ndarray, "image concept"]:
    """Scores of concepts, normalised over concepts, the weakest share of each image set to zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    score = x @ (vectors / np.maximum(lengths, 1e-12)).T
    score = (score - score.mean(1, keepdims=True)) / np.maximum(score.std(1, keepdims=True), 1e-12)
    weak = np.argsort(np.abs(score), axis=1, kind="stable")[:, : int(score.shape[1] * drop)]
    np.put_along_axis(score, weak, 0.0, axis=1)
    return score


def right(
    x: Float[np.ndarray, "image feature"],
    other: Float[np.ndarray, "held feature"],
    y: Int[np.ndarray, " image"],
    truth: Int[np.ndarray, " held"],
    ridge: float,
) -> Bool[np.ndarray, " held"]:
    """Whether a linear head of find images tells the class of each held-out one."""
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(alpha=ridge).fit(x, y).predict(other) == truth


def scaled(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features with the mean and spread of the first taken out."""
    mean, spread = x.mean(0), np.maximum(x.std(0), 1e-12)
    return (x - mean) / spread, (other - mean) / spread


def kept(
    vectors: np.ndarray, data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], method: Score
) -> Bool[np.ndarray, "drop held"]:
    """Whether each held-out image is told right at each share of dropped scores."""
    x, y, other, truth = data
    return np.stack(
        [right(projected(x, vectors, s), projected(other, vectors, s), y, truth, method.ridge) for s in method.drops]
    )


def area(
    told: Bool[np.ndarray, "*batch drop held"], drops: tuple[float, ...], original: float
) -> Float[np.ndarray, "*batch held"]:
    """What each held-out image adds to the score: the area over the drops, by trapezia, relative to the original."""
    return np.trapezoid(told.astype(float), np.asarray(drops), axis=-2) / original


def _features(
    net: Network, corpus: Masked, rows: list[int], site: str, method: Score, done: Tick
) -> tuple[np.ndarray, np.ndarray]:
    """The mean over places of each image, and some places of all images."""
    grid, axes, means, some = grid_of(net, site, corpus), net.map.info(site).axes, [], []
    rng = np.random.default_rng(method.seed)
    each = max(1, PATCHES // max(1, len(rows)))
    for one in passes(net, corpus, [site], rows=rows):
        found = maps(one.values[site], axes, grid).float().flatten(2).transpose(1, 2).cpu().double().numpy()
        if not np.isfinite(found).all():
            raise BadInput(f"expected finite activations at {site}; got NaN or infinity")
        means.append(found.mean(1))
        for image in found:
            some.append(image[rng.permutation(len(image))[:each]])
        done(sum(map(len, means)))
    return np.concatenate(means), np.concatenate(some)


def _result(
    net: Network, site: str, own: np.ndarray, chance: np.ndarray, original: float, split: Split, name: str, count: int,
    method: Score,
) -> Result:  # fmt: skip
    import xarray

    each, others = area(own, method.drops, original), area(chance, method.drops, original)
    score, random = float(each.mean()), others.mean(1)
    error = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
    settings = {**asdict(method), "site": site, "pictures": name, "vectors": count}
    criteria = Criteria(method.least, "score", method.standard.alpha, min_examples=method.standard.min_examples,
                        needs_rival=False)  # fmt: skip
    text = f"{count} concept vectors carry the classes at {site} more sparsely than random vectors do"
    candidate = Candidate(text, each - others.mean(0), random - random.mean(), KIND)
    findings = claimed(claims_about(net, split, settings, method.seed), criteria, [candidate], intervened=False)
    table = xarray.Dataset(
        {
            "accuracy": ("drop", own.mean(1)), "random_accuracy": (("control", "drop"), chance.mean(2)),
            "score": ("site", [score]), "score_low": ("site", [score - error]), "score_high": ("site", [score + error]),
            "random_score": ("control", random),
        },
        {"drop": list(method.drops), "site": [site]},
        {"original": original, "network": net.name, "unit": "score", "pictures": name},
    )  # fmt: skip
    return Result("inherent interpretability", findings, table, settings, tuple(split.remarks))
