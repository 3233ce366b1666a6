"""The training loop: resumable, interruptible, the same numbers either way."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from openwork.recipes.batches import IGNORED, training_batch
from openwork.recipes.catalogue import Recipe
from openwork.recipes.corpus import Streams
from openwork.recipes.evaluate import induction_accuracy, on_held_out
from openwork.recipes.state import STATE, State, checkpoint_path, save_half

log = logging.getLogger(__name__)

MEASURE_EVERY = 25
HELD_OUT_EVERY = 250
SAVE_EVERY = 500


def train(
    recipe: Recipe,
    streams: Streams,
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
        streams: the data.
        folder: where the state, the curve and the training checkpoints go.
        minutes: time for this call.
        resume: continue from the state in `folder` if there is one; otherwise start anew.
        seed: of the initial weights and of every batch.
        device: where to train.
        compiled: compile the step (faster; needs a C++ compiler).

    Returns:
        The state reached.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after saving.
    """
    torch.manual_seed(seed)
    network = recipe.network(streams.tokenizer).to(device).train()
    state = State(network, _optimizer(network, recipe))
    if resume and (folder / STATE).exists():
        state.restore(folder, recipe.name, seed)
    loss_of = _loss(network, device)
    if compiled:
        loss_of = torch.compile(loss_of)
    started, before = time.monotonic(), state.seconds
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(recipe.name, total=recipe.steps, completed=state.step)
        with _stopping_between_steps() as stopped:
            while state.step < recipe.steps and time.monotonic() - started < 60 * minutes and not stopped():
                _note(recipe, streams, state, folder)
                loss = _step(recipe, streams, state, loss_of, seed, device)
                if (state.step - 1) % MEASURE_EVERY == 0:
                    state.curve[-1]["loss"] = loss.item()
                state.seconds = before + time.monotonic() - started
                if state.step % SAVE_EVERY == 0:
                    state.save(folder, recipe.name, seed)
                progress.update(bar, completed=state.step)
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


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def _loss(network: nn.Module, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(inputs: Int[Tensor, "row position"], targets: Int[Tensor, "row position"]) -> Float[Tensor, ""]:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = network(input_ids=inputs).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    return loss


def _step(
    recipe: Recipe, streams: Streams, state: State, loss_of: Callable[[Tensor, Tensor], Tensor], seed: int, device: str
) -> Float[Tensor, ""]:
    batch = training_batch(streams, recipe.mix(state.step), recipe.context, seed, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.rate(state.step)
    loss = loss_of(batch.inputs.to(device), batch.targets.to(device))
    loss.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.step += 1
    return loss.detach()


def _note(recipe: Recipe, streams: Streams, state: State, folder: Path) -> None:
    """Measure and keep what the step about to be made would change."""
    step = state.step
    if step % MEASURE_EVERY == 0 and not (state.curve and state.curve[-1]["step"] == step):
        record = {
            "step": step,
            "seconds": round(state.seconds, 1),
            "induction": induction_accuracy(state.network, streams.tokenizer, rows=16, seed=1).value,
        }
        if step % HELD_OUT_EVERY == 0:
            record["held_out"] = on_held_out(state.network, streams, recipe.context, windows=64).loss
            log.info("%s %s after loss %s", recipe.name, record, state.curve[-1].get("loss") if state.curve else None)
        state.curve.append(record)
    if step <= recipe.dense_until and step % recipe.dense_every == 0 and recipe.dense_until:
        save_half(state.network, checkpoint_path(folder, step))
