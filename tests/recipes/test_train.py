"""A run that was stopped ends where one that was not stopped ends, to the last bit."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from openwork.errors import BadInput, CorruptFile, Diverged, OutputOccupied, UnknownName
from openwork.recipes import build
from openwork.recipes import python as python_recipe
from openwork.recipes import train as training
from openwork.recipes.batches import Mix
from openwork.recipes.plan import Phase
from openwork.recipes.python import PythonRecipe
from openwork.recipes.recipe import Descent
from openwork.recipes.state import STATE, checkpoint_path
from openwork.recipes.train import train


def changed(recipe: PythonRecipe, **fields: Any) -> PythonRecipe:
    """The recipe with another plan."""
    return replace(recipe, plan=replace(recipe.plan, **fields))


def lengthened(recipe: PythonRecipe, steps: int) -> PythonRecipe:
    """The recipe with another length."""
    return changed(recipe, phases=(replace(recipe.plan.phases[-1], until=steps),))


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C in the middle of a given step."""

    def at(step: int) -> None:
        draw = python_recipe.training_batch

        def batch(streams, mix, context, seed, now):
            if now == step:
                signal.raise_signal(signal.SIGINT)
            return draw(streams, mix, context, seed, now)

        monkeypatch.setattr(python_recipe, "training_batch", batch)

    yield at
    monkeypatch.undo()


def test_a_stopped_run_ends_where_an_unbroken_one_does(tmp_path, streams, recipe, interrupt, monkeypatch):
    whole = train(recipe, tmp_path / "whole", minutes=5.0, resume=False, seed=4)
    interrupt(17)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", minutes=5.0, resume=True, seed=4)
    monkeypatch.undo()
    # whatever was drawn in between does not matter
    torch.rand(100)
    rest = train(recipe, tmp_path / "parts", minutes=5.0, resume=True, seed=4)
    assert rest.step == whole.step == recipe.steps
    torch.testing.assert_close(rest.network.state_dict(), whole.network.state_dict(), rtol=0, atol=0)
    assert [r["loss"] for r in rest.curve] == [r["loss"] for r in whole.curve]


def test_ctrl_c_ends_the_step_and_keeps_it(tmp_path, streams, recipe, interrupt):
    before = signal.getsignal(signal.SIGINT)
    interrupt(8)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, minutes=5.0, resume=False)
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 9
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_leaves_the_last_whole_state(tmp_path, streams, recipe, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 4)
    monkeypatch.setattr(PythonRecipe, "measure", lambda self, network, step: 1 / 0 if step == 6 else None)
    with pytest.raises(ZeroDivisionError):
        train(recipe, tmp_path, minutes=5.0, resume=False)
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 4


def test_time_is_kept_to_and_counted(tmp_path, streams, recipe):
    state = train(lengthened(recipe, 10**6), tmp_path, minutes=0.02, resume=False)
    assert 0 < state.step < 10**6
    assert state.seconds < 10


def test_training_lowers_the_loss(tmp_path, streams, recipe):
    state = train(lengthened(recipe, 120), tmp_path, minutes=5.0, resume=False)
    assert state.curve[-1]["loss"] < state.curve[0]["loss"] - 0.5


def test_checkpoints_are_kept_while_they_are_dense(tmp_path, streams, recipe):
    train(changed(recipe, dense_until=20, dense_every=10), tmp_path, minutes=5.0, resume=False)
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert kept == [checkpoint_path(tmp_path, step) for step in (0, 10, 20)]


def test_a_broken_write_leaves_the_last_state(tmp_path, streams, recipe, monkeypatch):
    state = train(lengthened(recipe, 3), tmp_path, minutes=5.0, resume=False)

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
    train(recipe, tmp_path, minutes=5.0, resume=False)
    with pytest.raises(BadInput, match="seed 1"):
        train(recipe, tmp_path, minutes=5.0, resume=True, seed=1)
    (tmp_path / STATE).write_bytes(b"\x80\x02nonsense")
    with pytest.raises(CorruptFile, match="delete it"):
        train(recipe, tmp_path, minutes=5.0, resume=True)


def test_the_rate_rises_stays_and_falls(recipe):
    rates = [recipe.descent.rate(step, recipe.steps) for step in range(recipe.steps)]
    assert rates[0] == pytest.approx(recipe.descent.peak / 5)
    assert rates[10] == recipe.descent.peak
    assert rates[-1] < 0.2 * recipe.descent.peak
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
    plan = replace(recipe.plan, phases=(Phase(10, first), Phase(15, second)))
    assert plan.steps == 15
    assert [plan.mix(step) for step in (0, 9, 10, 14)] == [first, first, second, second]
    assert plan.tokens(12) == (10 * 4 + 2 * 3) * plan.context


@pytest.mark.parametrize(("what", "factor"), [("loss nan", float("nan")), ("loss inf", float("inf")), ("loss", 11.0)])
def test_a_loss_that_is_no_number_or_explodes_ends_training_and_keeps_the_last_whole_state(
    tmp_path, recipe, monkeypatch, what, factor
):
    monkeypatch.setattr(training, "SAVE_EVERY", 4)
    loss = PythonRecipe.loss

    def broken(self, network, step, seed):
        return loss(self, network, step, seed) * (factor if step == 6 else 1.0)

    monkeypatch.setattr(PythonRecipe, "loss", broken)
    with pytest.raises(Diverged, match=rf"tiny diverged at step 6 of 30: {what}.*learning rate"):
        train(recipe, tmp_path, minutes=5.0, resume=False)
    kept = torch.load(tmp_path / STATE, weights_only=True)
    assert kept["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in kept["network"].values())
    monkeypatch.undo()
    assert train(recipe, tmp_path, minutes=5.0, resume=True).step == recipe.steps


def test_a_gradient_that_is_no_number_changes_no_weight(tmp_path, recipe, monkeypatch):
    made, loss = [], PythonRecipe.loss
    monkeypatch.setattr(
        PythonRecipe, "network", lambda self: made.append(self.plan.network(self.streams.tokenizer)) or made[0]
    )

    def broken(self, network, step, seed):
        # the square root of nothing: its value is 0, its slope infinite
        return loss(self, network, step, seed) + (network.embed.weight.sum() * 0).sqrt()

    monkeypatch.setattr(PythonRecipe, "loss", broken)
    with pytest.raises(Diverged, match=r"gradient of norm nan.*nothing was saved"):
        train(recipe, tmp_path, minutes=5.0, resume=False)
    assert all(torch.isfinite(parameter).all() for parameter in made[0].parameters())


def test_a_run_too_fast_for_its_network_is_said_to_have_diverged(tmp_path, recipe):
    wild = changed(lengthened(recipe, 400), descent=Descent(peak=1e4, warmup=0, decay=0))
    with pytest.raises(Diverged, match="lower the recipe's learning rate"):
        train(wild, tmp_path, minutes=5.0, resume=False)


def test_without_warmup_and_decay_the_rate_is_constant():
    assert {Descent(peak=0.5, warmup=0, decay=0).rate(step, 10) for step in range(10)} == {0.5}
