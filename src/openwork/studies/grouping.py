"""Clusterings that have to be interesting against shuffled activations and stable under resampling. Pure statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, silhouette_score

from openwork.errors import BadInput

CUTS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Mean correlations at which the tree of clusters may be cut."""

Matrix = Float[np.ndarray, "item observation"]
Shuffle = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Grouping:
    """A clustering with the evidence for it.

    Args:
        labels: cluster of each item; -1 for an item that belongs to none.
        cohesion: mean pairwise similarity of each cluster's members.
        p_values: of each cluster, against the best cluster of each shuffle.
        stability: of each cluster: mean of its best Jaccard index in each resample.
        statistic: mean over all items of the cohesion of their cluster, 0 for an item that belongs to none.
        null: the statistic of each shuffle.
        p_value: of the statistic.
        rand: adjusted Rand index with each resample.
    """

    labels: Int[np.ndarray, " item"]
    cohesion: Float[np.ndarray, " cluster"]
    p_values: Float[np.ndarray, " cluster"]
    stability: Float[np.ndarray, " cluster"]
    statistic: float
    null: Float[np.ndarray, " shuffle"]
    p_value: float
    rand: Float[np.ndarray, " resample"]


def similarity(matrix: Matrix) -> Float[np.ndarray, "item item"]:
    """Pearson correlation of every two items over the observations; 0 for an item that never varies."""
    centred = matrix - matrix.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    return np.clip(unit @ unit.T, -1, 1)


def group(
    matrix: Matrix,
    shuffle: Shuffle,
    rng: np.random.Generator,
    *,
    shuffles: int,
    resamples: int,
    rows: Int[np.ndarray, " observation"] | None = None,
) -> Grouping:
    """Cluster items by the correlation of their activations, and test the clustering.

    Average linkage on 1 − correlation, cut where the silhouette is best (an item left alone counts 0). The cut is
    chosen anew for each shuffle, so that choosing it costs the null nothing.

    Args:
        matrix: activation of each item at each observation.
        shuffle: breaks what co-activation there is and keeps each item's own distribution.
        rng: generator of shuffles and resamples.
        shuffles: how many shuffles.
        resamples: how many bootstrap resamples of the observations.
        rows: the unit that is resampled (e.g. the text) of each observation; each observation alone unless given.

    Raises:
        BadInput: fewer than 4 items or observations.
    """
    if min(matrix.shape) < 4:
        raise BadInput(f"expected at least 4 items and 4 observations to cluster; got {matrix.shape}")
    matrix = np.asarray(matrix, dtype=np.float64)
    labels, scores, statistic = _cluster(matrix)
    null = [_cluster(shuffle(matrix, rng)) for _ in range(shuffles)]
    best = np.array([max((score for score, _ in cells), default=0.0) for _, cells, _ in null])
    null_statistic = np.array([value for _, _, value in null])
    again = [_cluster(matrix[:, _resample(rows, matrix.shape[1], rng)])[0] for _ in range(resamples)]
    members = [labels == k for k in range(len(scores))]
    return Grouping(
        labels=labels,
        cohesion=np.array([cohesion for _, cohesion in scores]),
        p_values=np.array([(1 + (best >= score).sum()) / (1 + shuffles) for score, _ in scores]),
        stability=np.array([np.mean([_best_jaccard(m, other) for other in again]) for m in members]),
        statistic=statistic,
        null=null_statistic,
        p_value=float((1 + (null_statistic >= statistic).sum()) / (1 + shuffles)),
        rand=np.array([adjusted_rand_score(labels, other) for other in again]),
    )


def shift_each(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rolls every item's activations along the texts: its distribution and its rhythm stay, its company goes.

    The offsets are spread evenly and dealt at random, so that no two items stay together by accident.
    """
    items, total = matrix.shape
    offsets = rng.permutation(items) * total // items + int(rng.integers(total))
    return np.stack([np.roll(row, int(offset)) for row, offset in zip(matrix, offsets, strict=True)])


def permute_each(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permutes every observation over the items: each keeps its distribution, no two belong together."""
    return rng.permuted(matrix, axis=0)


def _cluster(matrix: np.ndarray) -> tuple[np.ndarray, list[tuple[float, float]], float]:
    """Labels, (score, cohesion) of each cluster with two members or more, and the mean cohesion over items."""
    like = similarity(matrix)
    apart = 1 - like
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(apart, checks=False), method="average")
    best, found = -np.inf, np.arange(len(matrix))
    for cut in CUTS:
        labels = fcluster(tree, 1 - cut, criterion="distance")
        if 2 <= len(np.unique(labels)) < len(labels):
            quality = float(silhouette_score(apart, labels, metric="precomputed"))
            if quality > best:
                best, found = quality, labels
    return _summarise(found, like)


def _summarise(labels: np.ndarray, like: np.ndarray) -> tuple[np.ndarray, list[tuple[float, float]], float]:
    out = np.full(len(labels), -1, dtype=np.int64)
    scores, weighted = [], 0.0
    groups = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    for members in sorted(groups, key=lambda m: (-len(m), int(m[0]))):
        size = len(members)
        if size < 2:
            continue
        cohesion = float((like[np.ix_(members, members)].sum() - size) / (size * (size - 1)))
        out[members] = len(scores)
        # large clusters of the same cohesion are the rarer find
        scores.append((cohesion * np.sqrt(size - 1), cohesion))
        weighted += cohesion * size
    return out, scores, weighted / len(labels)


def _resample(rows: np.ndarray | None, n: int, rng: np.random.Generator) -> np.ndarray:
    if rows is None:
        return rng.integers(0, n, n)
    units = np.unique(rows)
    where = {unit: np.flatnonzero(rows == unit) for unit in units}
    return np.concatenate([where[unit] for unit in rng.choice(units, len(units))])


def _best_jaccard(members: Bool[np.ndarray, " item"], labels: np.ndarray) -> float:
    best = 0.0
    for k in np.unique(labels[labels >= 0]):
        other = labels == k
        best = max(best, float((members & other).sum() / (members | other).sum()))
    return best
