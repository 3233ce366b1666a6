"""Pictures and dataset examples of a network that others trained, on photographs that others took."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import openwork as ow
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.vision.responses.exemplars import Exemplars, exemplars
from openwork.vision.responses.predicts import Predicting, predicts
from openwork.vision.synthesis.making import Ascent
from openwork.vision.synthesis.visualise import visualise
from openwork.worlds.picture_array import PictureArray

from .pictures import CLASSES, MEAN, SD, images_and_labels, load

pytestmark = pytest.mark.extended
LAST = "module:layer3.2.out"


@pytest.fixture(scope="module")
def net(data: Path) -> Network:
    images = ImageFormat((32, 32), MEAN, SD)
    return ow.open(load(data), example={"images": torch.rand(2, 3, 32, 32)}, images=images, name="ResNet-20")


@pytest.fixture(scope="module")
def photographs(data: Path) -> PictureArray:
    values, labels = images_and_labels(data)
    mean, sd = (torch.tensor(v)[:, None, None] for v in (MEAN, SD))
    pixels = ((values * sd + mean) * 255).round().clamp(0, 255).byte()
    return PictureArray(pixels, "CIFAR-10", labels=labels, class_names=CLASSES)


def test_pictures_of_classes_activate_them_more_than_any_photograph(net: Network, photographs: PictureArray) -> None:
    result = visualise(net, [f"logits[{n}]" for n in range(4)], Ascent(steps=128), photographs)
    assert [finding.verdict for finding in result.findings] == ["supported"] * 4
    assert any("4 of 4 pictures activate their unit more than the best of" in remark for remark in result.remarks)


def test_the_photographs_that_activate_a_class_most_are_of_it(net: Network, photographs: PictureArray) -> None:
    found = exemplars(net, [f"logits[{n}]" for n in range(10)], photographs, Exemplars()).table
    strongest = found["row"].sel(example=found["shown"].to_numpy() == "strongest").to_numpy()
    labels = photographs.classes(range(len(photographs))).numpy()
    right = (labels[strongest] == torch.arange(10)[:, None].numpy()).mean()
    assert right > 0.9


def test_another_network_judges_that_examples_of_late_channels_predict(
    data: Path, net: Network, photographs: PictureArray
) -> None:
    images = ImageFormat((32, 32), MEAN, SD)
    judge = ow.open(load(data, 56), example={"images": torch.rand(2, 3, 32, 32)}, images=images, name="ResNet-56")
    result = predicts(net, f"{LAST}[0-7]", photographs, Predicting(site="module:layer3.8.out"), judge=judge)
    own, other = (float(result.table[name].mean()) for name in ("accuracy", "other_accuracy"))
    assert own > other + 0.1
