"""How well each word fits each unit, from how similar images are to words and how strongly units respond to them.

Source: Oikarinen and Weng 2023, CLIP-Dissect, sections 3.2 and A.1: soft-WPMI, WPMI, cos cubed, rank reorder. Constants
are those of the authors' implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, softmax

from openwork.errors import BadInput, UnknownName

Similarity = Float[np.ndarray, "image word"]
Activation = Float[np.ndarray, "image unit"]
Score = Float[np.ndarray, "unit word"]
SMALLEST = 1e-7
"""Added to probabilities before their logarithm."""


def soft_wpmi(
    similarity: Similarity, activation: Activation, top: int = 100, sharpness: float = 10.0, weight: float = 1.0,
    first: float = 0.998, last: float = 0.97,
) -> Score:  # fmt: skip
    """Soft weighted pointwise mutual information.

    Args:
        similarity: of images and words.
        activation: pooled, of images and units.
        top: how many of the images that activate a unit most are looked at.
        sharpness: of the softmax over words.
        weight: λ, of the word's own probability over units.
        first: chance that the most activating image belongs to the unit's concept.
        last: chance that the last one does; between them it falls evenly.
    """
    chance, rows = _chances(similarity, activation, top, sharpness)
    belongs = first - np.arange(rows.shape[1]) / rows.shape[1] * (first - last)
    given = np.stack([np.log1p(belongs[:, None] * (chance[some] - 1) + SMALLEST).sum(0) for some in rows])
    return given - weight * _mean(given)


def wpmi(
    similarity: Similarity, activation: Activation, top: int = 28, sharpness: float = 2.0, weight: float = 0.6
) -> Score:
    """Weighted pointwise mutual information, where the most activating images belong to the concept for certain."""
    chance, rows = _chances(similarity, activation, top, sharpness)
    given = np.stack([np.log(chance[some] + SMALLEST).sum(0) for some in rows])
    return given - weight * _mean(given)


def cos_cubed(similarity: Similarity, activation: Activation) -> Score:
    """The cosine of both columns, less their means, cubed."""
    cubes = []
    for values in (similarity, activation):
        values = (values - values.mean(0)) ** 3
        cubes.append(values / np.maximum(np.linalg.norm(values, axis=0), 1e-12))
    return cubes[1].T @ cubes[0]


def rank_reorder(
    similarity: Similarity, activation: Activation, fraction: float = 0.05, power: float = 3.0, scale: float = 0.5,
    seed: int = 0,
) -> Score:  # fmt: skip
    """How little a unit's largest activations change when they are put into the order of a word's similarities.

    Args:
        similarity: of images and words.
        activation: pooled, of images and units.
        fraction: of the images, those that activate a unit most.
        power: of the differences.
        scale: power of the mean similarity that the error is divided by, which must be positive.
        seed: of the random orders that the error is measured against.
    """
    count = max(2, int(len(activation) * fraction))
    rng = np.random.default_rng(seed)
    lowest = similarity.min()
    positive = similarity - lowest + SMALLEST if lowest <= 0 else similarity
    out = []
    for column in activation.T:
        rows = np.argsort(-column, kind="stable")[:count]
        target = column[rows]
        rising = target[::-1]
        ranks = positive[rows].argsort(0, kind="stable").argsort(0, kind="stable")
        apart = np.mean([np.mean(np.abs(rising - rng.permutation(rising)) ** power) for _ in range(25)])
        error = (np.abs(target[:, None] - rising[ranks]) ** power).mean(0) / max(float(apart), 1e-12)
        out.append(-error / positive[rows].mean(0) ** scale)
    return np.stack(out)


WAYS: dict[str, Callable[[Similarity, Activation], Score]] = {
    "soft-wpmi": soft_wpmi, "wpmi": wpmi, "cos-cubed": cos_cubed, "rank-reorder": rank_reorder,
}  # fmt: skip


def scored(way: str, similarity: np.ndarray, activation: np.ndarray) -> Score:
    """The score of every word for every unit, by the name of a way.

    Args:
        way: its name.
        similarity: (image, word).
        activation: (image, unit), pooled over places.

    Raises:
        UnknownName: for a way that does not exist.
        BadInput: for other numbers of images, or values that are not finite.
    """
    if way not in WAYS:
        raise UnknownName.among("way to score words", way, WAYS)
    if len(similarity) != len(activation) or len(similarity) < 2:
        raise BadInput(
            f"expected two images or more, as many similarities as activations; got {len(similarity)} and "
            f"{len(activation)}"
        )
    if not (np.isfinite(similarity).all() and np.isfinite(activation).all()):
        raise BadInput("expected finite similarities and activations; got NaN or infinity")
    return WAYS[way](np.asarray(similarity, float), np.asarray(activation, float))


def _chances(
    similarity: Similarity, activation: Activation, top: int, sharpness: float
) -> tuple[Similarity, np.ndarray]:
    """The chance of each word given each image, and the images that activate each unit most, (unit, image)."""
    rows = np.argsort(-activation, axis=0, kind="stable")[: min(top, len(activation))].T
    return softmax(sharpness * similarity, axis=1), rows


def _mean(given: Score) -> Float[np.ndarray, "one word"]:
    return logsumexp(given, axis=0, keepdims=True) - math.log(len(given))
