from __future__ import annotations

import math

import numpy as np
import pytest

from openwork.errors import BadInput, UnknownName
from openwork.vision.dissection.wordings import WAYS, cos_cubed, rank_reorder, scored, soft_wpmi, wpmi


def planted(n: int = 400, words: int = 12, units: int = 6) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Units whose response is a word's column of similarities, with noise."""
    rng = np.random.default_rng(0)
    similarity = rng.normal(0.2, 0.1, (n, words))
    chosen = [3, 7, 0, 11, 5, 2]
    activation = similarity[:, chosen] + rng.normal(0, 0.02, (n, units))
    return similarity, activation, chosen


@pytest.mark.parametrize("way", sorted(WAYS))
def test_planted_columns_give_the_planted_word(way: str):
    similarity, activation, chosen = planted()
    assert scored(way, similarity, activation).argmax(1).tolist() == chosen


@pytest.mark.parametrize("way", sorted(WAYS))
def test_presence_of_concepts_gives_the_planted_word(way: str):
    rng = np.random.default_rng(1)
    similarity = (rng.random((500, 8)) < 0.2).astype(float)
    activation = similarity[:, [4, 1, 6]] * rng.uniform(0.5, 1, (500, 3))
    assert scored(way, similarity, activation).argmax(1).tolist() == [4, 1, 6]


def slow_soft_wpmi(similarity: np.ndarray, activation: np.ndarray, top: int) -> np.ndarray:
    """From section 3.2, one number at a time."""
    n, words = similarity.shape
    units = activation.shape[1]
    given = np.zeros((units, words))
    for unit in range(units):
        rows = sorted(range(n), key=lambda i: -activation[i, unit])[:top]
        for word in range(words):
            for place, row in enumerate(rows):
                chance = math.exp(10 * similarity[row, word]) / sum(math.exp(10 * v) for v in similarity[row])
                belongs = 0.998 - place / top * (0.998 - 0.97)
                given[unit, word] += math.log(1 + belongs * (chance - 1) + 1e-7)
    out = np.zeros_like(given)
    for word in range(words):
        mean = sum(math.exp(given[u, word] - given[:, word].max()) for u in range(units)) / units
        out[:, word] = given[:, word] - (given[:, word].max() + math.log(mean))
    return out


def test_soft_wpmi_is_that_of_the_paper():
    similarity, activation, _ = planted(n=30)
    similarity = similarity[:, :5]
    assert np.allclose(soft_wpmi(similarity, activation, top=12), slow_soft_wpmi(similarity, activation, 12))


def test_wpmi_is_soft_wpmi_where_every_image_belongs():
    similarity, activation, _ = planted(n=60)
    one = soft_wpmi(similarity, activation, top=20, sharpness=2.0, weight=0.6, first=1.0, last=1.0)
    assert np.allclose(wpmi(similarity, activation, top=20), one, atol=1e-5)


def test_cos_cubed_is_a_cosine():
    similarity, activation, _ = planted(n=50)
    found = cos_cubed(similarity, activation)
    a, b = (activation[:, 1] - activation[:, 1].mean()) ** 3, (similarity[:, 4] - similarity[:, 4].mean()) ** 3
    assert found[1, 4] == pytest.approx(a @ b / math.sqrt((a @ a) * (b @ b)))


def test_rank_reorder_has_no_error_where_the_order_is_the_same():
    similarity, activation, _ = planted(n=100)
    activation[:, 0] = np.exp(similarity[:, 9])
    assert rank_reorder(similarity, activation)[0, 9] == pytest.approx(0)


def test_another_way_or_length_is_an_error():
    similarity, activation, _ = planted()
    with pytest.raises(UnknownName, match="soft-wpmi"):
        scored("soft-pmi", similarity, activation)
    with pytest.raises(BadInput, match="as many similarities"):
        scored("wpmi", similarity[:10], activation)
    activation[0, 0] = np.nan
    with pytest.raises(BadInput, match="NaN"):
        scored("wpmi", similarity, activation)
