from __future__ import annotations

import numpy as np
import pytest

from openwork.errors import BadInput
from openwork.vision.concepts.sobol import Design


def ishigami(points: np.ndarray, a: float = 7.0, b: float = 0.1) -> np.ndarray:
    x = np.pi * (2 * points - 1)
    return np.sin(x[:, 0]) + a * np.sin(x[:, 1]) ** 2 + b * x[:, 2] ** 4 * np.sin(x[:, 0])


def test_ishigami_has_its_known_total_indices():
    a, b = 7.0, 0.1
    variance = a**2 / 8 + b * np.pi**4 / 5 + b**2 * np.pi**8 / 18 + 0.5
    known = [1 - a**2 / 8 / variance, a**2 / 8 / variance, 8 * b**2 * np.pi**8 / 225 / variance]
    design = Design.of(3, 4096)
    assert np.allclose(design.total(ishigami(design.points)), known, atol=0.01)


def test_a_sum_splits_its_variance_by_squared_weights():
    weights = np.array([1.0, 2.0, 0.0, 4.0])
    design = Design.of(4, 1024, seed=1)
    assert np.allclose(design.total(design.points @ weights), weights**2 / (weights**2).sum(), atol=0.01)


def test_thirty_two_rows_rank_twenty_arguments():
    weights = np.zeros(20)
    weights[[3, 11]] = 2.0, 1.0
    design = Design.of(20)
    assert len(design.points) == 22 * 32
    indices = design.total(design.points @ weights)
    assert np.argsort(-indices)[:2].tolist() == [3, 11]
    assert np.delete(indices, [3, 11]).max() == 0


@pytest.mark.parametrize("argument", [0, 9])
def test_many_small_designs_are_right_on_average(argument):
    """As for the images of a class; plain Halton columns of late arguments would all be wrong alike."""
    found = []
    for seed in range(60):
        design = Design.of(10, 32, (3, seed))
        found.append(design.total(design.points[:, argument])[argument])
    assert np.mean(found) == pytest.approx(1, abs=3 * np.std(found) / np.sqrt(len(found)) + 0.02)
    assert np.std(found) < 0.25


def test_the_mixed_matrix_takes_one_column_from_the_second():
    design = Design.of(3, 8)
    a, b, mixed = design.points[:8], design.points[8:16], design.points[16:].reshape(3, 8, 3)
    for argument in range(3):
        for column in range(3):
            assert np.array_equal(mixed[argument, :, column], (b if column == argument else a)[:, column])


def test_a_constant_has_no_shares():
    design = Design.of(2, 16)
    assert design.total(np.full(len(design.points), 3.0)).tolist() == [0, 0]


def test_values_of_another_length_are_an_error():
    with pytest.raises(BadInput, match="finite values"):
        Design.of(2, 16).total(np.zeros(3))
    with pytest.raises(BadInput, match="2 rows"):
        Design.of(2, 1)
