"""Toy models of superposition: more features than channels, and the answer in the columns of one matrix.

Source: Elhage et al. 2022, "Toy Models of Superposition".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.direction import Direction
from openwork.errors import BadInput
from openwork.site import Site
from openwork.zoo.known import Known

HIDDEN = Site("module:encode.out")
REPRESENTED = 0.5
"""A feature whose direction is longer than this is represented."""


@dataclass(frozen=True)
class ToyModelConfig:
    """Shape of a `ToyModel` and the world it was made for.

    Args:
        features: of the input.
        hidden: channels between.
        sparsity: probability that a feature of an input is 0.
        decay: each feature matters this many times as much as the one before; the first has importance 1.

    Raises:
        BadInput: for sizes and probabilities that cannot be.
    """

    features: int
    hidden: int
    sparsity: float = 0.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        if min(self.features, self.hidden) < 1 or not 0 <= self.sparsity < 1 or not 0 < self.decay <= 1:
            raise BadInput(f"expected positive sizes, a sparsity in [0, 1) and a decay in (0, 1]; got {self}")


class ToyModel(nn.Module):
    """Linear down to the hidden channels, linear up by the same matrix, bias, ReLU.

    Args:
        config: its shape.
    """

    def __init__(self, config: ToyModelConfig):
        super().__init__()
        self.config = config
        self.encode = nn.Linear(config.features, config.hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.features))

    def forward(self, x: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch feature"]:
        """The features again.

        Args:
            x: features, each 0 or in [0, 1].
        """
        return (self.encode(x) @ self.encode.weight + self.bias).relu()

    @property
    def directions(self) -> Float[Tensor, "feature hidden"]:
        """Where each feature lies in the hidden channels: the answer to what a dictionary is to find."""
        return self.encode.weight.detach().T

    @property
    def known(self) -> Known:
        """The directions of the features that are represented, by name ("feature 0"), at the hidden channels."""
        origin = "column of the encoder"
        return Known(
            directions={
                f"feature {i}": Direction(HIDDEN, vector, origin)
                for i, vector in enumerate(self.directions)
                if vector.norm() > REPRESENTED
            }
        )


def importance(config: ToyModelConfig) -> Float[Tensor, " feature"]:
    """How much the error of each feature counts."""
    return config.decay ** torch.arange(config.features, dtype=torch.float32)


def inputs(config: ToyModelConfig, rows: int, seed: int = 0) -> Float[Tensor, "row feature"]:
    """Draw inputs of a toy model's world.

    Args:
        config: says how sparse.
        rows: how many.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    values, gates = (torch.rand(rows, config.features, generator=generator) for _ in range(2))
    return values * (gates >= config.sparsity)


def interference(directions: Float[Tensor, "feature hidden"]) -> Float[Tensor, " feature"]:
    """How much each feature is disturbed by the others: the squared cosines-times-lengths of all others along it.

    Args:
        directions: of the features.

    Returns:
        Sum over j ≠ i of (w_i/|w_i| · w_j)²; 0 for a feature that has a direction to itself, and for one of length 0.

    Source: Elhage et al. 2022, section "Superposition as a phase change".
    """
    units = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-9)
    squares = (units @ directions.T) ** 2
    return squares.sum(dim=1) - squares.diagonal()
