"""A run that was stopped ends where one that was not stopped ends, to the last bit."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from openwork.errors import BadInput, CorruptFile, OutputOccupied, UnknownName
from openwork.recipes import build
from openwork.recipes import train as training
from openwork.recipes.batches import Mix
from openwork.recipes.catalogue import Phase, Recipe
from openwork.recipes.state import STATE, checkpoint_path
from openwork.recipes.train import train


def lengthened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another length."""
    return replace(recipe, phases=(replace(recipe.phases[-1], until=steps),))


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C in the middle of a given step."""

    def at(step: int) -> None:
        draw = training.training_batch

        def batch(streams, mix, context, seed, now):
            if now == step:
                signal.raise_signal(signal.SIGINT)
            return draw(streams, mix, context, seed, now)

        monkeypatch.setattr(training, "training_batch", batch)

    yield at
    monkeypatch.undo()


def test_a_stopped_run_ends_where_an_unbroken_one_does(tmp_path, streams, recipe, interrupt, monkeypatch):
    whole = train(recipe, streams, tmp_path / "whole", minutes=5.0, resume=False, seed=4)
    interrupt(17)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, streams, tmp_path / "parts", minutes=5.0, resume=True, seed=4)
    monkeypatch.undo()
    # whatever was drawn in between does not matter
    torch.rand(100)
    rest = train(recipe, streams, tmp_path / "parts", minutes=5.0, resume=True, seed=4)
    assert rest.step == whole.step == recipe.steps
    torch.testing.assert_close(rest.network.state_dict(), whole.network.state_dict(), rtol=0, atol=0)
    assert [r["loss"] for r in rest.curve] == [r["loss"] for r in whole.curve]


def test_ctrl_c_ends_the_step_and_keeps_it(tmp_path, streams, recipe, interrupt):
    before = signal.getsignal(signal.SIGINT)
    interrupt(8)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, streams, tmp_path, minutes=5.0, resume=False)
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 9
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_leaves_the_last_whole_state(tmp_path, streams, recipe, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 4)
    monkeypatch.setattr(training, "_note", lambda *_: 1 / 0 if _[2].step == 6 else _[2].curve.append({"step": 0}))
    with pytest.raises(ZeroDivisionError):
        train(recipe, streams, tmp_path, minutes=5.0, resume=False)
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 4


def test_time_is_kept_to_and_counted(tmp_path, streams, recipe):
    state = train(lengthened(recipe, 10**6), streams, tmp_path, minutes=0.02, resume=False)
    assert 0 < state.step < 10**6
    assert state.seconds < 10


def test_training_lowers_the_loss(tmp_path, streams, recipe):
    state = train(lengthened(recipe, 120), streams, tmp_path, minutes=5.0, resume=False)
    assert state.curve[-1]["loss"] < state.curve[0]["loss"] - 0.5


def test_checkpoints_are_kept_while_they_are_dense(tmp_path, streams, recipe):
    train(replace(recipe, dense_until=20, dense_every=10), streams, tmp_path, minutes=5.0, resume=False)
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert kept == [checkpoint_path(tmp_path, step) for step in (0, 10, 20)]


def test_a_broken_write_leaves_the_last_state(tmp_path, streams, recipe, monkeypatch):
    state = train(lengthened(recipe, 3), streams, tmp_path, minutes=5.0, resume=False)

    def fail(content, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    state.step = 99
    with pytest.raises(OSError, match="disk full"):
        state.save(tmp_path, recipe.name, 0)
    monkeypatch.undo()
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 3


def test_a_state_of_another_seed_or_damaged_is_refused(tmp_path, streams, recipe):
    recipe = lengthened(recipe, 2)
    train(recipe, streams, tmp_path, minutes=5.0, resume=False)
    with pytest.raises(BadInput, match="seed 1"):
        train(recipe, streams, tmp_path, minutes=5.0, resume=True, seed=1)
    (tmp_path / STATE).write_bytes(b"\x80\x02nonsense")
    with pytest.raises(CorruptFile, match="delete it"):
        train(recipe, streams, tmp_path, minutes=5.0, resume=True)


def test_the_rate_rises_stays_and_falls(recipe):
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    assert rates[0] == pytest.approx(recipe.learning_rate / 5)
    assert rates[10] == recipe.learning_rate
    assert rates[-1] < 0.2 * recipe.learning_rate
    assert all(after <= before for before, after in pairwise(rates[5:]))


def test_build_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(UnknownName, match="py-4l"):
        build("py-5l", minutes=1.0, resume=False, out=tmp_path)
    with pytest.raises(BadInput, match="minutes"):
        build("py-4l", minutes=0.0, resume=False, out=tmp_path)
    (tmp_path / STATE).touch()
    with pytest.raises(OutputOccupied, match="resume it"):
        build("py-4l", minutes=1.0, resume=False, out=tmp_path)


def test_phases_follow_one_another(recipe):
    first, second = Mix(code=4), Mix(code=1, repeats=2)
    recipe = replace(recipe, phases=(Phase(10, first), Phase(15, second)))
    assert recipe.steps == 15
    assert [recipe.mix(step) for step in (0, 9, 10, 14)] == [first, first, second, second]
    assert recipe.tokens(12) == (10 * 4 + 2 * 3) * recipe.context
