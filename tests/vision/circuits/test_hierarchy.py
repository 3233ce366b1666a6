# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""A hierarchy that was put in by hand is measured: what contains a part loses by it, what does not keeps its answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openwork import network
from openwork.errors import BadInput
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.circuits.hierarchy import Climbing, hierarchy, ordered, stand_ins, within
from openwork.vision.dissection.dissect import Dissection
from openwork.worlds.picture_array import PictureArray

SIDE, WIDTH = 20, 14
EARLY, LATE = "module:act1.out", "module:act2.out"
FEW = Climbing(Dissection(share=0.08, rotations=0, claims=0, shown=0), images=120)


class Parts(nn.Module):
    """Channel 0 sees wheels, 1 ears, the others random colours; later 0 sees cars by wheels and 1 cats by ears."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.conv1, self.act1 = nn.Conv2d(3, WIDTH, 1), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(WIDTH, 4, 7, padding=3), nn.ReLU()
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.conv1.weight.copy_(0.4 * torch.randn(self.conv1.weight.shape, generator=generator))
            self.conv1.bias.copy_(0.1 * torch.rand(WIDTH, generator=generator))
            self.conv1.weight[0, :, 0, 0] = torch.tensor([-1.0, 1.0, -1.0])
            self.conv1.weight[1, :, 0, 0] = torch.tensor([1.0, -1.0, -1.0])
            self.conv1.bias[:2] = 0
            self.conv2.weight.copy_(0.02 * torch.randn(self.conv2.weight.shape, generator=generator))
            self.conv2.weight[:2] = 0
            self.conv2.weight[0, 0], self.conv2.weight[1, 1] = 1.0, 1.0
            self.conv2.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act2(self.conv2(self.act1(self.conv1(x)))).mean((2, 3)))


def opened() -> Network:
    return network.open(Parts().eval(), example={"x": torch.zeros(2, 3, SIDE, SIDE)}, images=ImageFormat())


def images(count: int = 240, seed: int = 0) -> PictureArray:
    """Grey squares on a lighter ground: a car has a green wheel in it, a cat a red ear."""
    generator = torch.Generator().manual_seed(seed)
    values = 0.6 + 0.05 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    objects, parts = (torch.zeros(count, SIDE, SIDE, dtype=torch.long) for _ in range(2))
    for i in range(count):
        kind = i % 2
        y, x = (int(n) for n in torch.randint(1, SIDE - 9, (2,), generator=generator))
        values[i, :, y : y + 8, x : x + 8] = 0.3
        objects[i, y : y + 8, x : x + 8] = kind + 1
        spot = (slice(y + 2, y + 6), slice(x + 2, x + 6))
        values[(i, slice(None), *spot)] = 0.05
        values[(i, 1 - kind, *spot)] = 0.7 + 0.3 * float(torch.rand((), generator=generator))
        parts[(i, *spot)] = kind + 1
    concepts = {"object": ("car", "cat"), "part": ("wheel", "ear")}
    pixels = (255 * values).round().to(torch.uint8)
    return PictureArray(pixels, "cars and cats", concepts, {"object": objects, "part": parts})


@pytest.fixture(scope="module")
def found() -> Result:
    return hierarchy(opened(), images(), [EARLY, LATE], FEW)


def test_parts_are_detected_before_objects(found: Result) -> None:
    share = found.table["share"]
    assert float(share.sel(site=EARLY, category="part")) > 0
    assert float(share.sel(site=LATE, category="object")) >= 2 / 4


def test_what_contains_a_part_loses_by_its_detectors_and_the_rest_does_not(found: Result) -> None:
    wheel = found.table.isel(step=found.table["lower"].to_numpy().tolist().index("part wheel"))
    assert float(wheel["contained_loss"]) > 0.5
    assert float(wheel["other_loss"]) < 0.4 * float(wheel["contained_loss"])


def test_that_is_supported_on_held_out_images_against_random_units(found: Result) -> None:
    supported = [f for f in found.findings if f.verdict == "supported"]
    assert any("part wheel" in f.claim and "(car)" in f.claim for f in supported), found.findings
    assert any("part ear" in f.claim and "(cat)" in f.claim for f in supported)


def test_detectors_of_an_earlier_dissection_are_used(found: Result) -> None:
    from openwork.vision.dissection.dissect import dissect

    pictures = images()
    detectors = dissect(opened(), [EARLY, LATE], pictures, FEW.dissection)
    again = hierarchy(opened(), pictures, [EARLY, LATE], FEW, detectors=detectors)
    np.testing.assert_array_equal(again.table["share"], found.table["share"])


def test_how_much_of_a_concept_another_is_counted_pixel_by_pixel() -> None:
    pictures = images(6)
    inside = within(pictures, range(6), FEW)
    names = inside["names"]
    car, wheel, ear = (names.index(n) for n in (("object", "car"), ("part", "wheel"), ("part", "ear")))
    masks = pictures.masks(range(6))
    expected = ((masks["object"] == 1) & (masks["part"] == 1)).sum() / (masks["object"] == 1).sum()
    assert inside["share"][car, wheel] == pytest.approx(float(expected))
    assert inside["share"][car, ear] == 0
    assert inside["share"][wheel, car] == 1


def test_categories_go_from_edges_to_objects() -> None:
    given = dict.fromkeys(("object", "part", "own", "edge", "texture", "colour"), ("x",))
    assert ordered(given) == ["edge", "colour", "texture", "own", "part", "object"]


def test_stand_ins_have_about_the_same_mean_and_are_other_units() -> None:
    mean = np.array([0.0, 1.0, 1.1, 0.9, 5.0, 6.0])
    random = np.random.default_rng(0)
    for _ in range(20):
        drawn = stand_ins((1,), mean, (1,), 2, random)
        assert drawn[0] in (2, 3)


def test_a_result_goes_to_disk_and_back(found: Result, tmp_path: Any) -> None:
    again = Result.load(found.save(tmp_path / "out"))
    assert again.table["step"].to_numpy().tolist() == found.table["step"].to_numpy().tolist()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: hierarchy(opened(), PictureArray(images(8).values), [EARLY, LATE]), "masks"),  # pyright: ignore
        (lambda: hierarchy(opened(), images(8), [EARLY]), "two sites"),
        (lambda: Climbing(images=2), "images"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        call()


def test_a_dissection_of_other_sites_is_refused(found: Result) -> None:
    with pytest.raises(BadInput, match="detectors="):
        hierarchy(opened(), images(8), [EARLY, LATE], FEW, detectors=found)
