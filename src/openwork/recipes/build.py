"""Train an embedded model and write the folder that ships."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

from openwork.errors import BadInput, OutputOccupied
from openwork.recipes.catalogue import recipe
from openwork.recipes.corpus import python_streams
from openwork.recipes.export import export
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
    """Train an embedded model from the standard library of the running Python.

    Training that time or Ctrl-C cut short goes on exactly where it stood when called again with `resume`. When the
    last step is done, the folder `export` below the run holds what ships: weights in half precision, configuration,
    tokenizer, loss curve, checkpoints and model card.

    Args:
        name: `py-4l`, `py-attn2` or `py-attn2-unmixed`.
        minutes: time to train in this call.
        resume: continue a run that is there.
        out: folder of the run; `runs/NAME` unless given. Tokenizer and tokens are kept beside it, for all models.
        seed: of the initial weights and the batches.
        device: where to train.
        compiled: compile the training step: about 1.4 times as fast on a CPU, needs a C++ compiler.

    Returns:
        How far it came.

    Raises:
        UnknownName: if there is no such recipe.
        BadInput: if the time is not positive, or the run to resume is of another recipe or seed.
        OutputOccupied: if there is a run in the folder and `resume` is not set.
        KeyboardInterrupt: on Ctrl-C, after saving.
    """
    chosen = recipe(name)
    if not minutes > 0:
        raise BadInput(f"expected a positive number of minutes, got {minutes}")
    folder = RUNS / name if out is None else out
    if (folder / STATE).exists() and not resume:
        raise OutputOccupied(f"{folder} holds a run already; resume it, delete it, or give another folder")
    streams = python_streams(folder.parent / "python-source")
    state = train(chosen, streams, folder, minutes=minutes, resume=resume, seed=seed, device=device, compiled=compiled)
    if state.step < chosen.steps:
        return Built(name, folder, state.step, chosen.steps, None)
    facts = {
        "command": f"openwork zoo build {name} --resume --minutes {ceil(state.seconds / 60)} --seed {seed}",
        "seed": seed,
        "device": device,
        "threads": torch.get_num_threads(),
        "compiled": compiled,
    }
    export(chosen, streams, state, folder, folder / EXPORTED, facts)
    return Built(name, folder, state.step, chosen.steps, folder / EXPORTED)
