"""The recipes of the toys: what they train is what ships, and each step depends on seed and step alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openwork import zoo
from openwork.errors import BadInput
from openwork.recipes import superposition as toys
from openwork.recipes.modular import ModularAddition, measured
from openwork.recipes.superposition import Stack, Superposition, loss_of
from openwork.recipes.tokenizer import save_tokenizer, word_tokenizer
from openwork.recipes.train import train
from openwork.zoo import embedded
from openwork.zoo.modular import PRIME
from openwork.zoo.superposition import ToyModel, ToyModelConfig, importance, inputs

RUN = {"command": "openwork zoo build x", "seed": 0, "device": "cpu", "threads": 1, "compiled": False}


@pytest.fixture
def tiny(monkeypatch) -> Superposition:
    monkeypatch.setattr(toys, "TRIES", 2)
    monkeypatch.setattr(toys, "MEASURED_ROWS", 100)
    return Superposition("superposition/3-in-2", 3, 2, decay=0.5, sparsities=(0.0, 0.9), steps=3)


def test_a_stack_is_its_networks_side_by_side(tiny):
    stack = Stack(tiny.configs)
    x = torch.rand(5, 4, 3)
    for number, config in enumerate(tiny.configs):
        torch.testing.assert_close(stack(x)[:, number], stack.unstacked(number, config)(x[:, number]))


def test_the_loss_of_a_stack_is_the_sum_of_those_of_its_networks(tiny, monkeypatch):
    monkeypatch.setattr(toys, "ROWS", 40_000)
    stack = Stack(tiny.configs)
    alone = [loss_of(stack.unstacked(number, config), 40_000) for number, config in enumerate(tiny.configs)]
    assert tiny.loss(stack, 2, 0).item() == pytest.approx(sum(alone), rel=0.03)
    assert torch.equal(tiny.loss(stack, 2, 0), tiny.loss(stack, 2, 0))
    assert not torch.equal(tiny.loss(stack, 2, 0), tiny.loss(stack, 3, 0))


def test_the_loss_weighs_features_by_importance():
    config = ToyModelConfig(3, 2, decay=0.5)
    network = ToyModel(config)
    torch.nn.init.zeros_(network.encode.weight)
    x = inputs(config, 100, seed=1)
    assert importance(config).tolist() == [1, 0.5, 0.25]
    assert loss_of(network, 100) == pytest.approx((x**2 @ torch.tensor([1, 0.5, 0.25])).mean().item(), rel=1e-5)


def test_a_set_ships_as_one_folder_for_each_sparsity(tiny, tmp_path, monkeypatch):
    state = train(tiny, tmp_path / "run", minutes=1.0, resume=False)
    tiny.export(state, tmp_path / "run", tmp_path / "weights" / tiny.name, RUN)
    monkeypatch.setattr(embedded, "WEIGHTS", tmp_path / "weights")
    assert zoo.names() == ["superposition/3-in-2/sparsity-0", "superposition/3-in-2/sparsity-0.9"]
    network, tokenizer = zoo.load("superposition/3-in-2/sparsity-0.9")
    assert tokenizer is None
    assert isinstance(network, ToyModel)
    assert network.config == ToyModelConfig(3, 2, 0.9, 0.5)
    lengths = state.network.get_parameter("weight")[2:].norm(dim=1)
    assert any(torch.allclose(network.directions.norm(dim=1), own, atol=1e-3) for own in lengths)


def test_modular_addition_keeps_and_ships_the_steps_it_names(tmp_path, monkeypatch):
    made = ModularAddition(shipped=(0, 2), steps=3)
    state = train(made, tmp_path / "run", minutes=2.0, resume=False)
    made.export(state, tmp_path / "run", tmp_path / "weights" / made.name, RUN)
    monkeypatch.setattr(embedded, "WEIGHTS", tmp_path / "weights")
    assert zoo.checkpoints(made.name) == ["step-0", "step-2"]
    card = zoo.card(made.name)
    network, _ = zoo.load(made.name)
    assert card["loss_shipped"]["held_out"] == pytest.approx(measured(network, 0)["held_out"][0], rel=1e-5)
    assert state.curve[0]["loss"] == pytest.approx(state.curve[0]["trained_loss"], rel=1e-5)


def test_another_split_trains_on_other_pairs():
    made = ModularAddition(shipped=(), steps=3)
    torch.manual_seed(0)
    network = made.network()
    assert made.loss(network, 0, 0) == made.loss(network, 1, 5)
    assert made.loss(network, 0, 0) != replace(made, split_seed=1).loss(network, 0, 0)


def test_a_word_tokenizer_knows_its_words_and_no_other(tmp_path):
    save_tokenizer(word_tokenizer([*map(str, range(PRIME)), "="]), tmp_path)
    tokenizer = type(word_tokenizer(["a"])).from_pretrained(tmp_path, local_files_only=True)
    assert tokenizer("3 52 =").input_ids == [3, 52, PRIME]
    assert tokenizer.decode([3, 52, PRIME]) == "3 52 ="
    with pytest.raises(Exception, match="WordLevel"):
        tokenizer("3 53 =")


def test_what_cannot_be_built_again_is_not_described():
    with pytest.raises(BadInput, match="ToyModel"):
        embedded.config(torch.nn.Linear(2, 2))
