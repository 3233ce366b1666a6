"""Train an embedded model and write the folder that ships."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

from openwork.errors import BadInput, OutputOccupied, UnknownName
from openwork.recipes.catalogue import RECIPES, recipe
from openwork.recipes.state import STATE
from openwork.recipes.train import train

RUNS = Path("runs")
EXPORTED = "export"


@dataclass(frozen=True)
class Built:
    """How far a call of `build` came.

    Attributes:
        name: of the model.
        folder: of the run: its state, loss curve and checkpoints.
        step: steps done.
        steps: steps of the whole training.
        exported: the folder that ships, or None while steps are left.
    """

    name: str
    folder: Path
    step: int
    steps: int
    exported: Path | None


def build(
    name: str,
    *,
    minutes: float,
    resume: bool,
    out: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    compiled: bool = False,
) -> Built:
    """Train an embedded model as the one that ships was trained.

    Training that time or Ctrl-C cut short goes on exactly where it stood when called again with `resume`. When the
    last step is done, the folder `export` below the run holds what ships: weights in half precision, configuration,
    loss curve, model card, and where the recipe has them tokenizer and checkpoints.

    Args:
        name: one of `RECIPES`.
        minutes: time to train in this call.
        resume: continue a run that is there.
        out: folder of the run; `runs/NAME` unless given. Data that must be made first is kept beside it.
        seed: of the initial weights and of every step.
        device: where to train.
        compiled: compile the network: about 1.4 times as fast on a CPU, needs a C++ compiler.

    Returns:
        How far it came.

    Raises:
        UnknownName: if there is no such recipe.
        BadInput: if the time is not positive, or the run to resume is of another recipe or seed.
        OutputOccupied: if there is a run in the folder and `resume` is not set.
        Diverged: if the training went wrong.
        KeyboardInterrupt: on Ctrl-C, after saving.
    """
    if name not in RECIPES:
        raise UnknownName.among("recipe", name, RECIPES)
    if not minutes > 0:
        raise BadInput(f"expected a positive number of minutes, got {minutes}")
    folder = RUNS / name if out is None else out
    if (folder / STATE).exists() and not resume:
        raise OutputOccupied(f"{folder} holds a run already; resume it, delete it, or give another folder")
    chosen = recipe(name, RUNS if out is None else out.parent)
    state = train(chosen, folder, minutes=minutes, resume=resume, seed=seed, device=device, compiled=compiled)
    if state.step < chosen.steps:
        return Built(name, folder, state.step, chosen.steps, None)
    facts = {
        "command": f"openwork zoo build {name} --resume --minutes {ceil(state.seconds / 60)} --seed {seed}",
        "seed": seed,
        "device": device,
        "threads": torch.get_num_threads(),
        "compiled": compiled,
    }
    shutil.rmtree(folder / EXPORTED, ignore_errors=True)
    chosen.export(state, folder, folder / EXPORTED, facts)
    return Built(name, folder, state.step, chosen.steps, folder / EXPORTED)
