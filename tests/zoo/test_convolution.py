"""The residual network of pictures: its sites, its shape, and that the one that ships sees what its card says."""

from __future__ import annotations

import pytest
import torch

import openwork as ow
from openwork import zoo
from openwork.errors import BadInput
from openwork.worlds.shapes import CLASSES, Shapes
from openwork.zoo import embedded
from openwork.zoo.convolution import Residual, ResidualConfig

SMALL = ResidualConfig(classes=3, size=32, widths=(4, 6), blocks=(1, 2))
BUDGET = 6_000_000
SEEING = [name for name in zoo.names() if name.startswith("shapes-")]
"""Bytes of both picture models."""


@pytest.fixture
def small() -> Residual:
    torch.manual_seed(0)
    return Residual(SMALL).eval()


def test_every_stage_halves_height_and_width(small):
    net = ow.open(small)
    run = net.run(torch.rand(2, 3, 32, 32), keep=["module:stages.0.0.conv2.out", "module:stages.1.1.conv2.out"])
    assert run["module:stages.0.0.conv2.out"].shape == (2, 4, 16, 16)
    assert run["module:stages.1.1.conv2.out"].shape == (2, 6, 8, 8)
    assert run.logits.shape == (2, 3)
    assert run.axes("module:stages.1.1.conv2.out") == ("batch", "channel", "y", "x")


def test_a_block_adds_two_convolutions_to_what_it_reads(small):
    x = torch.rand(2, 6, 8, 8)
    block = small.stages[1][1]
    wanted = torch.relu(x + block.norm2(block.conv2(torch.relu(block.norm1(block.conv1(x))))))
    torch.testing.assert_close(block(x), wanted)


def test_a_network_is_built_again_from_what_its_config_says(small):
    record = embedded.config(small)
    assert record.pop("model_type") == "openwork-residual"
    again = Residual(ResidualConfig(**record)).eval()
    again.load_state_dict(small.state_dict())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(x).logits, small(x).logits)


@pytest.mark.parametrize(
    "changes", [{"widths": (4,)}, {"classes": 0}, {"widths": (), "blocks": ()}, {"blocks": (1, 0)}]
)
def test_sizes_that_no_network_has_are_refused(changes):
    with pytest.raises(BadInput, match="a width and a number of blocks for each stage"):
        ResidualConfig(**{"classes": 3, "widths": (4, 6), "blocks": (1, 2), **changes})


def test_picture_models_that_ship_are_small():
    found = [embedded.WEIGHTS / name / embedded.MODEL for name in SEEING]
    assert sum(path.stat().st_size for path in found) <= BUDGET


def test_each_picture_model_ships_with_two_from_other_seeds():
    cards = {name: zoo.card(name) for name in SEEING}
    assert sorted((card["name"], card["training"]["seed"]) for card in cards.values()) == [
        (name, int(name[11:] or 0)) for name in SEEING
    ]
    for name, card in cards.items():
        own = {k: v for k, v in card["training"].items() if k not in ("command", "note", "seconds", "seed")}
        first = cards[name[:10]]["training"]
        assert own == {k: first[k] for k in own}


@pytest.mark.parametrize("name", SEEING)
def test_a_picture_model_sees_what_its_card_says(name):
    net, card, n = ow.open(name), zoo.card(name), 150
    held = Shapes(split="held-out", count=n)
    assert net.images == ow.ImageFormat.from_json(card["images"])
    assert net.images is not None
    logits = net.run(net.images.encode(held.pixels(range(n)).float() / 255)).logits
    accuracy = float((logits.argmax(-1) == held.classes(range(n))).float().mean())
    assert card["held_out"]["accuracy"] >= 0.9
    assert card["held_out"]["n"] >= 2000
    assert accuracy == pytest.approx(card["held_out"]["accuracy"], abs=0.06)
    assert card["classes"] == list(CLASSES)
    assert set(card["by"]["class"]) == set(CLASSES)


def test_an_untrained_picture_model_guesses():
    n = 150
    held = Shapes(split="held-out", count=n)
    network, _ = zoo.untrained("shapes-cnn")
    images = ow.ImageFormat.from_json(zoo.card("shapes-cnn")["images"])
    net = ow.open(network, images=images)
    logits = net.run(images.encode(held.pixels(range(n)).float() / 255)).logits
    assert float((logits.argmax(-1) == held.classes(range(n))).float().mean()) < 0.25
