# pyright: reportIndexIssue=false
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import openwork as ow
from openwork.errors import BadInput
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.concepts.craft import Craft, craft
from openwork.worlds.picture_array import PictureArray

SIDE = 16
COLOUR = (0,) * 3 + (1,) * 3 + (2,) * 15
"""Of each channel."""
CHANNELS = len(COLOUR)


def pictures(n: int, seed: int) -> PictureArray:
    """Red, green and blue squares on black, each somewhere or absent."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((n, 3, SIDE, SIDE), dtype=np.uint8)
    for image in range(n):
        for colour in range(3):
            size = rng.integers(3, 7)
            top, left = rng.integers(0, SIDE - size, 2)
            pixels[image, :, top : top + size, left : left + size] = 0
            pixels[image, colour, top : top + size, left : left + size] = rng.integers(150, 255)
    return PictureArray(torch.tensor(pixels), f"squares {seed}")


def network(leak: float = 0.0) -> Network:
    """Some channels a colour, most of blue; the class reads red three times as much as green, and blue not at all."""
    conv, head = nn.Conv2d(3, CHANNELS, 1, bias=False), nn.Linear(CHANNELS, 2, bias=False)
    mix = torch.eye(3)[list(COLOUR)] * torch.tensor([1.0, 0.6, 0.3] * 7)[:, None]
    conv.weight.data = mix[:, :, None, None]
    head.weight.data.zero_()
    head.weight.data[0, :3], head.weight.data[0, 3:6] = 9.0, 3.0
    rectifier = nn.LeakyReLU(leak) if leak else nn.ReLU()
    net = nn.Sequential(conv, rectifier, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    return ow.open(net, example={"input": torch.rand(2, 3, SIDE, SIDE)}, images=ImageFormat(), name="squares")


@pytest.fixture(scope="module")
def result() -> Result:
    method = Craft(concepts=3, crops=8, images=24, design=16, claims=1, crop=0.4)
    return craft(network(), "module:1.out", pictures(40, 0), 0, method, held_out=pictures(40, 1))


def colour_of(result: Result) -> list[int]:
    """Which colour each concept is."""
    return by_colour(result).argmax(1).tolist()


def by_colour(result: Result) -> np.ndarray:
    """Each concept's squared basis by the colour of its channels."""
    return (result.table.basis.values**2) @ np.eye(3)[list(COLOUR)]


def test_the_factors_are_the_colours(result: Result):
    assert sorted(colour_of(result)) == [0, 1, 2]
    basis = by_colour(result)
    assert (basis.max(1) / basis.sum(1) > 0.95).all()
    assert result.table.attrs["explained"] > 0.98


def test_factors_that_still_move_are_said_to(result: Result, monkeypatch: pytest.MonkeyPatch):
    assert not any("rounds" in remark for remark in result.remarks)
    monkeypatch.setattr("openwork.vision.concepts.craft.ROUNDS", 2)
    method = Craft(concepts=3, crops=4, images=8, design=4, claims=0)
    cut = craft(network(), "module:1.out", pictures(24, 0), 0, method, held_out=pictures(24, 1))
    assert any("after 2 rounds" in remark for remark in cut.remarks)


def test_importance_ranks_what_the_class_reads(result: Result):
    importance = dict(zip(colour_of(result), result.table.importance.values.tolist(), strict=True))
    assert importance[0] > 2 * importance[1] > 0
    assert importance[2] < 0.02


def test_taking_a_concept_out_lowers_the_class_more_than_random_directions(result: Result):
    drop = dict(zip(colour_of(result), result.table["drop"].values.tolist(), strict=True))
    assert drop[0] > 1.5 * drop[1] > 0
    assert abs(drop[2]) < 0.05 * drop[0]
    first = result.findings[0]
    assert str(first.verdict) == "supported"
    assert first.control is not None
    assert first.estimate > first.control.high


def test_taking_out_leaves_what_is_not_the_concept():
    """The drop of the class's logit is that of a full pass without the concept's part, by hand."""
    net, held = network(), pictures(30, 1)
    method = Craft(concepts=3, crops=8, images=30, design=4, claims=0, crop=0.4)
    table = craft(net, "module:1.out", pictures(40, 0), 0, method, held_out=held).table
    basis = torch.tensor(table.basis.values, dtype=torch.float32)
    with torch.no_grad():
        whole = net.root[1](net.root[0](held.values.float() / 255))
        own = net.root(held.values.float() / 255).argmax(1) == 0
        flat = whole[own].permute(0, 2, 3, 1).reshape(-1, CHANNELS)
        amount = torch.linalg.lstsq(basis.T, flat.T).solution.T.clamp_min(0)
        for concept in range(3):
            part = (amount[:, concept, None] * basis[concept]).view(-1, SIDE, SIDE, CHANNELS).permute(0, 3, 1, 2)
            change = net.root[2:](whole[own]) - net.root[2:](whole[own] - part)
            expected = float((change[:, 0] - change.mean(1)).mean())
            assert float(table["drop"][concept]) == pytest.approx(expected, rel=0.05, abs=0.02)


def test_heat_lies_where_the_colour_is(result: Result):
    red = colour_of(result).index(0)
    heat, image = result.table.heat.values[red], result.table.image.values
    inside = image[..., 0] > 100
    assert heat[inside].mean() > 20 * heat[~inside].mean()


def test_crops_that_have_most_of_a_concept_show_its_colour(result: Result):
    for concept, colour in enumerate(colour_of(result)):
        mean = result.table.crop.values[concept].astype(float).mean((0, 1, 2))
        assert mean.argmax() == colour


def test_it_says_that_crops_are_enlarged(result: Result):
    assert any("crops of 6 px are enlarged to 16 px" in remark for remark in result.remarks)


def test_negative_activations_are_an_error():
    net = network(leak=0.5)
    net.root[0].weight.data[0] = -1.0
    with pytest.raises(BadInput, match="after a ReLU"):
        craft(net, "module:1.out", pictures(20, 0), 0, Craft(concepts=2, images=4))


def test_a_class_that_is_never_predicted_is_an_error():
    with pytest.raises(BadInput, match="puts into class 1"):
        craft(network(), "module:1.out", pictures(20, 0), 1)


def test_more_concepts_than_channels_are_an_error():
    with pytest.raises(BadInput, match="no more concepts"):
        craft(network(), "module:1.out", pictures(20, 0), 0, Craft(concepts=30))
    with pytest.raises(BadInput, match="crop <= 1"):
        Craft(crop=2.0)
