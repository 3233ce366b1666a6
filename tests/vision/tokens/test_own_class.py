"""What is lost by the class of an image beyond those of others."""

import numpy as np
import pytest

from openwork.vision.tokens.own_class import own_class


def test_it_is_the_own_class_less_the_classes_of_all_images():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(7, 3)), np.array([0, 0, 0, 1, 1, 2, 0])
    slow = [values[i, labels[i]] - np.mean([values[i, labels[j]] for j in range(7)]) for i in range(7)]
    assert own_class(values, labels) == pytest.approx(slow)


def test_what_all_classes_lose_is_nothing():
    values = np.random.default_rng(1).normal(size=(9, 1)).repeat(4, 1)
    assert own_class(values, np.arange(9) % 4) == pytest.approx(np.zeros(9))
