"""The training loop: resumable, interruptible, the same numbers either way."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from openwork.errors import Diverged
from openwork.recipes.recipe import Recipe
from openwork.recipes.state import STATE, State, checkpoint_path, save_half

log = logging.getLogger(__name__)

SAVE_EVERY = 500
EXPLODED = 10.0
"""A loss this many times the first one is a training that went wrong."""


def train(
    recipe: Recipe,
    folder: Path,
    *,
    minutes: float,
    resume: bool,
    seed: int = 0,
    device: str = "cpu",
    compiled: bool = False,
) -> State:
    """Train until the recipe's last step or until time is up; the state on disk is whole at any moment.

    Args:
        recipe: what to train.
        folder: where the state, the curve and the training checkpoints go.
        minutes: time for this call.
        resume: continue from the state in `folder` if there is one; otherwise start anew.
        seed: of the initial weights and of every step.
        device: where to train.
        compiled: compile the network (faster; needs a C++ compiler).

    Returns:
        The state reached.

    Raises:
        Diverged: if a loss or gradient is no number, or a loss is ten times the first; the last state saved stays.
        KeyboardInterrupt: on Ctrl-C, after saving.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = recipe.network().to(device).train()
    state = State(network, recipe.descent.optimizer(network))
    if resume and (folder / STATE).exists():
        state.restore(folder, recipe.name, seed)
    called: Any = torch.compile(network) if compiled else network
    started, before = time.monotonic(), state.seconds
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(recipe.name, total=recipe.steps, completed=state.step)
        with _stopping_between_steps() as stopped:
            while state.step < recipe.steps and time.monotonic() - started < 60 * minutes and not stopped():
                _keep(recipe, state, folder)
                record = recipe.measure(network, state.step)
                step, loss = state.step, _step(recipe, state, called, seed, folder)
                if record is not None:
                    seconds = round(state.seconds, 1)
                    state.curve.append({"step": step, "seconds": seconds, **record, "loss": loss})
                    log.debug("%s %s", recipe.name, state.curve[-1])
                state.seconds = before + time.monotonic() - started
                if state.step % SAVE_EVERY == 0:
                    state.save(folder, recipe.name, seed)
                progress.update(bar, completed=state.step)
            _keep(recipe, state, folder)
            state.save(folder, recipe.name, seed)
    if stopped():
        raise KeyboardInterrupt
    return state


@contextmanager
def _stopping_between_steps() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a step, since half a step could not be gone on with exactly."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        # only the main thread hears of Ctrl-C
        yield lambda: False
        return

    def note(number: int, frame: object) -> None:
        log.warning("stopping after this step")
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _step(recipe: Recipe, state: State, network: nn.Module, seed: int, folder: Path) -> float:
    """Take one step; the weights change only if loss and gradient are numbers."""
    rate = recipe.descent.rate(state.step, recipe.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    loss = recipe.loss(network, state.step, seed)
    value = loss.item()
    if state.first_loss is None:
        state.first_loss = value
    if not math.isfinite(value) or value > EXPLODED * state.first_loss:
        raise _diverged(f"loss {value:.4g}", recipe, state, folder)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), recipe.descent.clip).item()
    if not math.isfinite(norm):
        raise _diverged(f"loss {value:.4g} and a gradient of norm {norm}", recipe, state, folder)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.step += 1
    return value


def _diverged(what: str, recipe: Recipe, state: State, folder: Path) -> Diverged:
    saved = (folder / STATE).exists()
    kept = (
        f"{folder} keeps the last state saved, from which the same would follow" if saved else "nothing was saved yet"
    )
    return Diverged(
        f"training {recipe.name} diverged at step {state.step} of {recipe.steps}: {what}, the first loss was "
        f"{state.first_loss:.4g}; {kept}. Give another seed and folder, or lower the recipe's learning rate "
        f"({recipe.descent.peak:g}) or its clip ({recipe.descent.clip:g})"
    )


def _keep(recipe: Recipe, state: State, folder: Path) -> None:
    if recipe.keeps(state.step):
        save_half(state.network, checkpoint_path(folder, state.step))
