"""Every model that ships, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from openwork.errors import UnknownName
from openwork.recipes.corpus import python_streams
from openwork.recipes.plan import PLANS, Plan
from openwork.recipes.python import PythonRecipe
from openwork.recipes.recipe import Recipe


def _python(plan: Plan, folder: Path) -> Recipe:
    return PythonRecipe(plan, python_streams(folder / "python-source"))


RECIPES: dict[str, Callable[[Path], Recipe]] = {name: partial(_python, plan) for name, plan in PLANS.items()}
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
