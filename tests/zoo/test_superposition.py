"""Toy models of superposition: what is known of them is in their weights."""

from __future__ import annotations

import pytest
import torch

import openwork as ow
from openwork import zoo
from openwork.errors import BadInput
from openwork.recipes.superposition import loss_of
from openwork.zoo.superposition import HIDDEN, ToyModel, ToyModelConfig, inputs, interference

NAMES = [name for name in zoo.names() if name.startswith("superposition/")]


def shipped(name: str) -> ToyModel:
    network, _ = zoo.load(name)
    assert isinstance(network, ToyModel)
    return network


def test_two_sets_of_five_ship():
    assert len(NAMES) == 10


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_the_weights_are(name):
    network, card = shipped(name), zoo.card(name)
    world = network.config
    assert card["world"]["sparsity"] == world.sparsity
    assert card["loss"]["shipped"] == pytest.approx(loss_of(network), rel=1e-4)
    assert card["loss"]["shipped"] == pytest.approx(card["loss"]["float32"], rel=1e-2)
    lengths = [sum(w**2 for w in row) ** 0.5 for row in network.directions.tolist()]
    assert card["norms"] == pytest.approx(lengths, abs=1e-3)
    assert card["represented"] == [i for i, length in enumerate(lengths) if length > 0.5]


def test_of_dense_features_the_most_important_are_kept_at_right_angles_and_the_others_dropped():
    directions = shipped("superposition/5-in-2/sparsity-0").directions
    torch.testing.assert_close(directions @ directions.T, torch.diag(torch.tensor([1.0, 1, 0, 0, 0])), atol=0.1, rtol=0)


def test_sparser_features_lie_in_antipodal_pairs():
    directions = shipped("superposition/5-in-2/sparsity-0.8").directions
    cosines = torch.nn.functional.cosine_similarity(directions[:4, None], directions[None, :4], dim=-1)
    # each of the four has one partner opposite and two at right angles
    torch.testing.assert_close(
        cosines.sort(dim=1).values, torch.tensor([-1.0, 0.0, 0.0, 1.0]).expand(4, 4), atol=0.1, rtol=0
    )
    assert directions[4].norm() < 0.5


def test_the_sparsest_form_a_pentagon():
    directions = shipped("superposition/5-in-2/sparsity-0.95").directions
    angles = torch.atan2(directions[:, 1], directions[:, 0]).sort().values
    gaps = torch.diff(torch.cat([angles, angles[:1] + 2 * torch.pi]))
    torch.testing.assert_close(gaps, torch.full((5,), 2 * torch.pi / 5), atol=0.15, rtol=0)


def test_sparser_worlds_have_more_features_represented():
    counts = [len(zoo.card(name)["represented"]) for name in NAMES if "20-in-5" in name]
    assert counts == sorted(counts)
    assert counts[0] == 5
    assert counts[-1] > 10


def test_a_toy_model_opens_by_name_and_its_feature_moves_its_output():
    net = ow.open("superposition/5-in-2/sparsity-0.95")
    network = shipped("superposition/5-in-2/sparsity-0.95")
    known = network.known.directions
    assert list(known) == [f"feature {i}" for i in range(5)]
    nothing = torch.zeros(1, 5)
    written = net.run(nothing, edits=[known["feature 3"].add(1.0)], keep=["logits"])
    alone = torch.eye(5)[3:4]
    torch.testing.assert_close(written["logits"], network(alone).detach())
    assert net.run(alone, keep=[HIDDEN])[HIDDEN].shape == (1, 2)


def test_interference_is_none_at_right_angles_and_whole_for_twins():
    assert interference(torch.eye(3)).tolist() == [0, 0, 0]
    assert interference(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])).tolist() == [4, 1, 0]


def test_inputs_are_as_sparse_as_said_and_repeat():
    config = ToyModelConfig(4, 2, sparsity=0.75)
    x = inputs(config, 10_000, seed=3)
    assert (x == 0).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert x[x > 0].mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(x, inputs(config, 10_000, seed=3))


@pytest.mark.parametrize("wrong", [{"features": 0}, {"hidden": 0}, {"sparsity": 1.0}, {"decay": 0.0}])
def test_worlds_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadInput, match="expected positive sizes"):
        ToyModelConfig(**{"features": 5, "hidden": 2, **wrong})
