from __future__ import annotations

import numpy as np
import pytest

from openwork.errors import BadInput
from openwork.studies.grouping import group, permute_each, shift_each, similarity

TEXTS, TOKENS = 20, 50


def factors(rng: np.random.Generator, sizes: tuple[int, ...], lonely: int, noise: float) -> np.ndarray:
    """Items that share one hidden activation per group, and lonely ones."""
    hidden = rng.normal(size=(len(sizes), TEXTS * TOKENS))
    items = [hidden[k] + noise * rng.normal(size=TEXTS * TOKENS) for k, size in enumerate(sizes) for _ in range(size)]
    return np.array(items + list(rng.normal(size=(lonely, TEXTS * TOKENS))))


def run(matrix: np.ndarray, seed: int = 0):
    rows = np.repeat(np.arange(TEXTS), TOKENS)
    return group(matrix, shift_each, np.random.default_rng(seed), shuffles=19, resamples=10, rows=rows)


def test_planted_clusters_are_found_interesting_and_stable() -> None:
    found = run(factors(np.random.default_rng(0), (10, 8, 6), 20, 0.7))
    assert found.labels[:24].tolist() == [0] * 10 + [1] * 8 + [2] * 6
    assert (found.labels[24:] == -1).all()
    assert found.p_value == 0.05
    assert (found.p_values == 0.05).all()
    assert found.rand.mean() > 0.85
    assert found.stability.min() > 0.85
    assert found.cohesion == pytest.approx([1 / 1.49] * 3, abs=0.05)


def test_activations_without_company_are_not_interesting() -> None:
    values = [run(np.random.default_rng(s).normal(size=(30, TEXTS * TOKENS)), s).p_value for s in range(20)]
    # a p-value below 0.1 should come about twice in twenty
    assert sum(p < 0.1 for p in values) <= 5


def test_shared_rhythm_alone_is_not_company() -> None:
    """Items that rise at the same rate in every text, at different places, are not active together."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(TEXTS * TOKENS) / 10)
    matrix = np.stack([np.roll(wave, int(rng.integers(1000))) + 0.3 * rng.normal(size=1000) for _ in range(24)])
    assert run(matrix).p_value > 0.05


def test_permuting_observations_over_items_breaks_components_apart() -> None:
    rng = np.random.default_rng(0)
    alike = np.concatenate([np.ones((6, 1)) * rng.normal(size=40), np.zeros((14, 40))])
    matrix = alike + 0.3 * rng.normal(size=(20, 40))
    found = group(matrix, permute_each, np.random.default_rng(1), shuffles=19, resamples=10)
    assert (found.labels[:6] == found.labels[0]).all()
    assert found.p_value == 0.05


def test_shuffles_keep_what_they_should() -> None:
    matrix = np.arange(24.0).reshape(4, 6)
    rolled = shift_each(matrix, np.random.default_rng(0))
    assert (np.sort(rolled, 1) == matrix).all()
    offsets = [int(np.flatnonzero(row == row.min())[0]) for row in rolled]
    assert len(set(offsets)) == 4
    dealt = permute_each(matrix, np.random.default_rng(0))
    assert (np.sort(dealt, 0) == matrix).all()


def test_similarity_of_an_item_that_never_varies_is_zero() -> None:
    matrix = np.array([[1.0, 2, 3], [2, 4, 6], [5, 5, 5], [3, 2, 1]])
    assert similarity(matrix) == pytest.approx(np.array([[1, 1, 0, -1], [1, 1, 0, -1], [0, 0, 0, 0], [-1, -1, 0, 1]]))


def test_too_little_is_refused() -> None:
    with pytest.raises(BadInput, match="at least 4 items"):
        run(np.zeros((3, TEXTS * TOKENS)))
