# pyright: reportArgumentType=false
"""A trained network and photographs that others made: three labelled scenes run, and are said to be three."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import openwork as ow
from openwork.pictures import ImageFormat
from openwork.vision.dissection.dissect import Dissection, dissect
from openwork.worlds.photographs import Photographs

from .pictures import MEAN, SD, load

pytestmark = pytest.mark.extended
SCENES = "data_ade20k_sample"


@pytest.fixture(scope="module")
def scenes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """The scenes with their id maps, laid out as a user's own folders."""
    folder, made = data / SCENES, tmp_path_factory.mktemp("ade")
    with (folder / "objectInfo150.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    names = [row[-1].split(";")[0] for row in rows]
    (made / "masks" / "object").mkdir(parents=True)
    (made / "masks" / "concepts.json").write_text(json.dumps({"object": names}))
    shutil.copytree(folder / "sampleData" / "images", made / "images")
    for path in (folder / "sampleData" / "annotations").glob("*.png"):
        shutil.copy(path, made / "masks" / "object" / path.name)
    return Photographs(made / "images", (32, 32), "crop", made / "masks")


def test_three_scenes_run_and_are_said_to_be_few(data: Path, scenes: Photographs):
    net = ow.open(
        load(data),
        example={"images": torch.rand(2, 3, 32, 32)},
        images=ImageFormat((32, 32), MEAN, SD),
        name="ResNet-20",
    )
    found = dissect(net, "module:layer1.out", scenes, Dissection(rotations=2, claims=2))
    assert len(scenes) == 3
    assert np.isfinite(found.table.iou).all()
    assert any("smoke test, no evidence" in remark for remark in found.remarks)
    assert any("2 find and 1 held-out images are few" in remark for remark in found.remarks)
    assert not found.findings


def test_pictures_are_shown_as_the_camera_saw_them(data: Path, scenes: Photographs):
    net = ow.open(
        load(data),
        example={"images": torch.rand(2, 3, 32, 32)},
        images=ImageFormat((32, 32), MEAN, SD),
        name="ResNet-20",
    )
    found = dissect(net, "module:layer1.out", scenes, Dissection(rotations=0, claims=0, shown=1, examples=1))
    row = int(found.table.row[0, 0])
    assert np.array_equal(found.table.picture.values[0, 0], scenes.pixels([row])[0].permute(1, 2, 0).numpy())
    assert Image.fromarray(found.table.picture.values[0, 0]).size == (32, 32)
