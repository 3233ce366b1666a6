"""How every model that ships with openwork is trained."""

from openwork.recipes.build import Built, build
from openwork.recipes.catalogue import RECIPES, Recipe, recipe

__all__ = ["RECIPES", "Built", "Recipe", "build", "recipe"]
