"""What a training needs to be told: the one thing that `train` and `build` know of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.recipes.state import State


def generator(seed: int, step: int) -> torch.Generator:
    """What a step draws from: on the CPU, and of seed and step alone."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


@dataclass(frozen=True)
class Descent:
    """AdamW and its learning rate.

    Attributes:
        peak: highest learning rate.
        warmup: steps of linear rise to it; 0 begins at the peak.
        decay: steps of linear fall at the end; 0 never falls.
        floor: share of the peak that the fall ends at.
        weight_decay: on parameters of two or more axes only.
        betas: decay rates of the two moments.
        clip: greatest norm of the gradient.
    """

    peak: float = 2e-3
    warmup: int = 100
    decay: int = 2000
    floor: float = 0.05
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = inf

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0.

        Args:
            step: which.
            steps: of the whole training.
        """
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = min(1.0, max(0.0, (steps - step) / max(1, self.decay)))
        return self.peak * rise * (self.floor + (1 - self.floor) * fall)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a network's parameters."""
        matrices = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.peak, betas=self.betas, fused=True)


@runtime_checkable
class Recipe(Protocol):
    """How one model is trained, measured and written; a frozen dataclass that holds its data.

    Nothing in it may change while it trains: whatever a step draws, it draws anew from seed and step.
    """

    @property
    def name(self) -> str:
        """Of the embedded model."""
        ...

    @property
    def steps(self) -> int:
        """Length of the whole training."""
        ...

    @property
    def descent(self) -> Descent:
        """The optimiser."""
        ...

    def network(self) -> nn.Module:
        """The untrained network, on the CPU; called with torch's generator seeded."""
        ...

    def loss(self, network: nn.Module, step: int, seed: int) -> Float[Tensor, ""]:
        """The loss of one step.

        Args:
            network: in training mode, on any device.
            step: counted from 0.
            seed: of the run; seed and step alone decide what is drawn.
        """
        ...

    def measure(self, network: nn.Module, step: int) -> Mapping[str, float] | None:
        """What the curve records before a step, besides step, seconds and loss; None where it records nothing."""
        ...

    def keeps(self, step: int) -> bool:
        """Whether the weights before a step, or at the end, are kept as a checkpoint of the run."""
        ...

    def export(self, state: State, run_folder: Path, to: Path, run: dict[str, Any]) -> None:
        """Write the folder that ships.

        Args:
            state: the trained state.
            run_folder: where the checkpoints lie, see `state.checkpoint_path`.
            to: the folder, empty.
            run: for the card: command, seed, device, threads and whether the network was compiled.
        """
        ...
