"""Judges circuits: what a claimed mechanism carries alone, and what random ones of the same shape carry."""

from openwork.faithfulness.circuits import Judge
from openwork.faithfulness.components import Component, components_of, count_alike, random_circuits
from openwork.faithfulness.measure import Cell, Meter

__all__ = ["Cell", "Component", "Judge", "Meter", "components_of", "count_alike", "random_circuits"]
