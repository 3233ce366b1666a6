"""Networks whose induction circuit is planted by hand, with MLPs: the known answer for judges of circuits."""

from __future__ import annotations

from dataclasses import replace

from openwork.zoo.induction import Induction, Plant

__all__ = ["Plant", "PlantedInduction"]

UNITS = 48


class PlantedInduction(Induction):
    """`openwork.zoo.Induction` with an MLP of random weights in each block.

    Args:
        vocabulary: number of token ids.
        plant: where the mechanism lies; as `Plant()` says unless given.
        context: most tokens.
        seed: of codes and of noise.
        planted: whether the mechanism is there at all.
    """

    def __init__(
        self, vocabulary: int, plant: Plant | None = None, context: int = 96, seed: int = 0, planted: bool = True
    ):
        plant = plant or Plant()
        super().__init__(vocabulary, replace(plant, mlp=plant.mlp or UNITS), context, seed, planted)
