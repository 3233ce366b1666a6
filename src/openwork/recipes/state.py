"""The state of a training run on disk: written whole or not at all."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openwork.errors import BadInput, CorruptFile
from openwork.store.files import write_json, write_tensors, writing

STATE = "state.pt"
CURVE = "curve.json"


@dataclass
class State:
    """Where a run stands.

    Attributes:
        network: being trained.
        optimizer: of its parameters.
        step: steps done.
        seconds: time spent training.
        curve: one record for each measured step.
        first_loss: of the first step; None before it.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float | int]] = field(default_factory=list)
    first_loss: float | None = None

    def save(self, folder: Path, recipe: str, seed: int) -> None:
        """Write the state so that a run continues exactly here.

        Args:
            folder: made if missing.
            recipe: name of the recipe.
            seed: of the run.
        """
        content = {
            "recipe": recipe,
            "seed": seed,
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "first_loss": self.first_loss,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with writing(folder / STATE) as path:
            torch.save(content, path)
        write_json(folder / CURVE, self.curve)

    def restore(self, folder: Path, recipe: str, seed: int) -> None:
        """Continue from what `save` wrote.

        Args:
            folder: holds the state.
            recipe: name of the recipe, to be the same.
            seed: to be the same.

        Raises:
            CorruptFile: if the state cannot be read.
            BadInput: if it is of another recipe or seed.
        """
        path = folder / STATE
        try:
            content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise CorruptFile(f"cannot read {path} ({error}); delete it to train from the start") from error
        if (content["recipe"], content["seed"]) != (recipe, seed):
            raise BadInput(
                f"expected {path} to be a run of {recipe} with seed {seed}, it is one of {content['recipe']} with "
                f"seed {content['seed']}; give another folder"
            )
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.seconds, self.curve = content["step"], content["seconds"], content["curve"]
        self.first_loss = content["first_loss"]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where a run keeps the weights of a step."""
    return folder / "checkpoints" / f"step-{step:05d}.safetensors"


def save_half(network: nn.Module, path: Path) -> None:
    """Write the weights in half precision (safetensors), each tied tensor once.

    Args:
        network: whose weights.
        path: the file.
    """
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.detach().to("cpu", torch.float16).contiguous()
    write_tensors(path, tensors, {"format": "pt"})
