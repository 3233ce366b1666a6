"""Every model that ships, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from openwork.errors import UnknownName
from openwork.recipes.corpus import python_streams
from openwork.recipes.modular import ModularAddition
from openwork.recipes.plan import PLANS, Plan
from openwork.recipes.python import PythonRecipe
from openwork.recipes.recipe import Recipe
from openwork.recipes.rules import HiddenRules
from openwork.recipes.sentences import SENTENCE_RECIPES
from openwork.recipes.shapes import SHAPES_RECIPES
from openwork.recipes.siit import DESCENT, StrictInterchange
from openwork.recipes.solu import NAMES, OneLayer
from openwork.recipes.superposition import Superposition
from openwork.zoo import compiled
from openwork.zoo.siit import FAMILY


def _python(plan: Plan, folder: Path) -> Recipe:
    return PythonRecipe(plan, python_streams(folder / "python-source"))


def _one_layer(name: str, folder: Path) -> Recipe:
    return OneLayer(name, NAMES[name], python_streams(folder / "python-source"))


def _program(name: str, folder: Path) -> Recipe:
    return StrictInterchange(compiled.open(name), **TRAINED_PROGRAMS[name])


def _given(made: Recipe, folder: Path) -> Recipe:
    """A recipe that needs no data of others."""
    return made


SELF_CONTAINED: tuple[Recipe, ...] = (
    ModularAddition(steps=2500, shipped=(0, 100, 200, 300, 600, 800, 1000, 1500)),
    Superposition("superposition/5-in-2", 5, 2, decay=0.9, sparsities=(0.0, 0.6, 0.8, 0.9, 0.95)),
    Superposition("superposition/20-in-5", 20, 5, decay=0.8, sparsities=(0.0, 0.7, 0.9, 0.97, 0.99)),
    *SENTENCE_RECIPES,
    HiddenRules(),
    *SHAPES_RECIPES,
)
TRAINED_PROGRAMS: dict[str, dict[str, Any]] = {
    "addition": {"steps": 1200},
    "fraction": {"steps": 1200},
    "histogram": {"steps": 1200},
    "induction": {"steps": 1200},
    "ioi": {"steps": 11000, "all_at_once": 0.4, "descent": replace(DESCENT, decay=6000)},
    "most-frequent": {"steps": 1200},
    # with seed 1: that of seed 0 fails the truth test on rows of very different length
    "reverse": {"steps": 2500},
    "sort": {"steps": 2500},
    "unique": {"steps": 2500},
}
"""Program -> how a network learns it, where that is not the usual way."""

RECIPES: dict[str, Callable[[Path], Recipe]] = {
    **{name: partial(_python, plan) for name, plan in PLANS.items()},
    **{made.name: partial(_given, made) for made in SELF_CONTAINED},
    **{name: partial(_one_layer, name) for name in NAMES},
    **{FAMILY + name: partial(_program, name) for name in TRAINED_PROGRAMS},
}
"""Name -> what makes the recipe, given a folder in which data may be kept between calls."""


def recipe(name: str, folder: Path) -> Recipe:
    """Make a recipe with its data.

    Args:
        name: of the embedded model.
        folder: where data is kept between calls, for all recipes.

    Raises:
        UnknownName: if there is none of that name.
    """
    if name not in RECIPES:
        raise UnknownName.among("recipe", name, RECIPES)
    return RECIPES[name](folder)
