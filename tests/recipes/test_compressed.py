"""The shipped matrices against their recipe."""

from __future__ import annotations

import pytest

from openwork.recipes.compressed import RECIPE, matrices
from openwork.zoo import compiled
from openwork.zoo.compiled.compression import shipped


def test_every_program_has_a_recipe_and_ships():
    assert sorted(RECIPE) == compiled.names()
    for name in compiled.names():
        width = compiled.open(name).network.config.width
        before, after = shipped(name).write.shape
        assert before == width
        # fewer where the readers need no more
        assert 0.9 * RECIPE[name][0] * width < after <= round(RECIPE[name][0] * width)


@pytest.mark.parametrize("name", ["fraction", pytest.param("addition", marks=pytest.mark.extended)])
def test_recipe_makes_matrices_that_keep_behaviour_and_are_the_shipped_ones_in_size(name):
    made, there = matrices([name]), shipped(name)
    for part in ("write", "read", "offset"):
        assert made[f"{name}.{part}"].shape == getattr(there, part).shape
