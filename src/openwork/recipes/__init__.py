"""How every model that ships with openwork is trained."""

from openwork.recipes.build import Built, build
from openwork.recipes.catalogue import RECIPES, recipe
from openwork.recipes.recipe import Descent, Recipe

__all__ = ["RECIPES", "Built", "Descent", "Recipe", "build", "recipe"]
