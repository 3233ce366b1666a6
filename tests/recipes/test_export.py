"""The folder that ships: complete, loadable, and with a card that says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from openwork import zoo
from openwork.errors import BadInput
from openwork.recipes import card as cards
from openwork.recipes.card import as_text
from openwork.recipes.evaluate import Accuracy, induction_accuracy, on_held_out
from openwork.recipes.export import around_the_rise, rounded, write_config
from openwork.recipes.plan import Phase
from openwork.recipes.train import train
from openwork.zoo import embedded

RUN = {"command": "openwork zoo build tiny", "seed": 0, "device": "cpu", "threads": 1, "compiled": False}


@pytest.fixture
def shipped(tmp_path, streams, recipe, monkeypatch):
    monkeypatch.setattr(cards, "EXAMPLES", 24)
    short = replace(recipe, plan=replace(recipe.plan, phases=(Phase(5, recipe.plan.mix(0)),)))
    state = train(short, tmp_path / "run", minutes=5.0, resume=False)
    recipe.export(state, tmp_path / "run", tmp_path / "weights" / "tiny", RUN)
    monkeypatch.setattr(embedded, "WEIGHTS", tmp_path / "weights")
    return state


def test_what_was_exported_loads_as_what_was_trained(shipped):
    network, tokenizer = zoo.load("tiny")
    assert zoo.names() == ["tiny"]
    assert tokenizer.bos_token_id is not None
    torch.testing.assert_close(network.state_dict(), rounded(shipped.network).state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(network.state_dict(), shipped.network.state_dict(), rtol=1e-3, atol=1e-6)


def test_the_card_holds_what_was_measured(shipped, streams, recipe):
    card = zoo.card("tiny")
    network, tokenizer = zoo.load("tiny")
    measured = on_held_out(network, streams, recipe.plan.context)
    assert card["held_out"]["loss_shipped"] == pytest.approx(measured.loss, abs=1e-4)
    assert card["induction"] == card["induction"] | induction_accuracy(network, tokenizer, rows=24 // 4).record()
    assert set(card["tasks"]) == {"repeats", "bracket", "docstring", "argument"}
    assert card["training"]["steps"] == 5
    assert card["training"]["tokens"] == 5 * 3 * 32
    text = as_text(card)
    assert text == (embedded.WEIGHTS / "tiny" / "README.md").read_text()
    assert RUN["command"] in text
    assert max(map(len, text.split("\n"))) <= 130


def test_only_networks_that_can_be_rebuilt_are_exported(tmp_path):
    with pytest.raises(BadInput, match="Linear"):
        write_config(torch.nn.Linear(2, 2), tmp_path)


def test_accuracy_has_its_interval():
    record = Accuracy(right=8, n=10, chance=0.5).record()
    assert record["accuracy"] == 0.8
    # Wilson's formula with z = 1.959964, by hand
    assert record["interval"] == pytest.approx([0.4902, 0.9433], abs=1e-4)


def test_held_out_loss_of_a_uniform_model_is_the_logarithm_of_its_vocabulary(streams, recipe):
    network = recipe.network()
    torch.nn.init.zeros_(network.unembed.weight)
    measured = on_held_out(network, streams, recipe.plan.context, windows=3)
    assert measured.loss == pytest.approx(torch.tensor(float(len(streams.tokenizer))).log().item(), abs=1e-5)
    assert measured.tokens == 3 * recipe.plan.context


def test_chosen_checkpoints_lie_around_the_rise(recipe):
    plan = replace(recipe.plan, dense_until=3000, dense_every=25)
    curve = [{"step": step, "induction": 1 / (1 + 2.0 ** ((1500 - step) / 60))} for step in range(0, 4000, 25)]
    steps = around_the_rise(curve, plan)
    assert len(steps) == 10
    assert (steps[0], steps[-1]) == (0, 3000)
    accuracy = {record["step"]: record["induction"] for record in curve}
    assert sum(0.02 <= accuracy[step] <= 0.95 for step in steps) >= 8


def test_a_rise_too_steep_for_its_checkpoints_is_an_error(recipe):
    plan = replace(recipe.plan, dense_until=1000, dense_every=100)
    curve = [{"step": step, "induction": float(step > 500)} for step in range(0, 1100, 100)]
    with pytest.raises(BadInput, match="denser"):
        around_the_rise(curve, plan)


def test_the_curve_ships(shipped):
    assert json.loads((embedded.WEIGHTS / "tiny" / "curve.json").read_text()) == shipped.curve
