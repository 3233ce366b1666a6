"""`openwork dissect`, `remove`, `describe` and `concepts`: what they write, on shapes and on a user's own folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from typer.testing import Result as Called

from openwork.cli import app

FEW = ("--quiet", "--alpha", "0.4")


def call(*words: str) -> Called:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "pictures"),
    [
        (
            ("dissect", "shapes-cnn", "blocks.2.resid_post", "--count", "60", "--rotations", "1", "--claims", "1"),
            ("Unique detectors of blocks.2.resid_post", "held-out images that they prefer", "data:image/png"),
        ),
        (
            ("remove", "shapes-cnn", "blocks.2.resid_post[0-19]", "--count", "120", "--best", "1", "--claims", "1"),
            ("balanced accuracy without its best units",),
        ),
        (
            ("describe", "shapes-cnn", "blocks.2.resid_post[0-9]", "--count", "60", "--way", "cos-cubed"),
            ("Units and words: correlation on held-out images",),
        ),
        (
            ("concepts", "shapes-cnn", "blocks.1.resid_post", "--count", "100", "--how", "patches", "--number", "4"),
            ("Patch concepts",),
        ),
        (
            ("concepts", "shapes-cnn", "blocks.2.resid_post", "--count", "150", "--how", "score", "--number", "12"),
            ("weakest scores of each image dropped",),
        ),
    ],
)
def test_a_command_writes_its_result_and_its_pictures(
    words: tuple[str, ...], pictures: tuple[str, ...], tmp_path: Path
) -> None:
    done = call(*words, *FEW, "--out", str(tmp_path / "out"))
    assert done.exit_code in (0, 4), done.output
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["settings"]["command"].startswith(f"openwork {words[0]} shapes-cnn")
    page = (tmp_path / "out" / "report.html").read_text()
    for picture in pictures:
        assert picture in page


def test_concepts_of_a_class_are_drawn(tmp_path: Path) -> None:
    words = ("concepts", "shapes-cnn", "blocks.2.resid_post", "--count", "200", "--target", "tree", "--number", "3")
    done = call(*words, *FEW, "--claims", "1", "--out", str(tmp_path / "out"))
    assert done.exit_code in (0, 4), done.output
    assert "total Sobol indices" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve photographs of a bright square, and masks that say where it is."""
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 90, (64, 64, 3)).astype(np.uint8)
        mask = np.zeros((64, 64), dtype=np.uint8)
        top, left = rng.integers(0, 40, 2)
        pixels[top : top + 20, left : left + 20] = 220
        mask[top : top + 20, left : left + 20] = 1
        for path, image in ((f"photographs/{number}.png", pixels), (f"masks/thing/{number}.png", mask)):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / path)
    (tmp_path / "masks" / "concepts.json").write_text('{"thing": ["square", "circle"]}')
    return tmp_path


def test_a_users_own_photographs_with_masks_are_dissected(folder: Path) -> None:
    words = ("--pictures", str(folder / "photographs"), "--masks", str(folder / "masks"), "--claims", "0")
    done = call("dissect", "shapes-cnn", "blocks.1.resid_post", *words, "--rotations", "0", *FEW, "--out",
                str(folder / "out"))  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads((folder / "out" / "result.json").read_text())
    assert any("smoke test" in remark for remark in record["remarks"])
    with np.load(folder / "out" / "arrays.npz") as arrays:
        assert arrays["variables/picture"].max() == 220  # as the camera saw it, not as the network reads it


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dissect", "py-attn2", "blocks.0.resid_post"), "images"),
        (("dissect", "shapes-cnn", "blocks.9.resid_post", "--count", "8"), "blocks.9"),
        (("concepts", "shapes-cnn", "blocks.2.resid_post", "--target", "zebra", "--count", "8"), "zebra"),
        (("describe", "shapes-cnn", "blocks.2.resid_post", "--words", "w.txt", "--count", "8"), "--clip and --words"),
        (("describe", "shapes-cnn", "blocks.2.resid_post", "--way", "pmi", "--count", "8"), "soft-wpmi"),
    ],
)
def test_what_does_not_fit_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = call(*words, "--quiet")
    assert done.exit_code == 1
    assert said in done.output


def test_photographs_without_masks_or_classes_are_one_line(folder: Path) -> None:
    words = ("--pictures", str(folder / "photographs"), "--quiet")
    done = call("dissect", "shapes-cnn", "blocks.1.resid_post", *words)
    assert (done.exit_code, "--masks FOLDER" in done.output) == (1, True)
    done = call("remove", "shapes-cnn", "blocks.1.resid_post", *words)
    assert (done.exit_code, "sub-folder a class" in done.output) == (1, True)


def test_an_empty_folder_and_a_broken_image_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = call("dissect", "shapes-cnn", "blocks.1.resid_post", "--pictures", str(tmp_path / "none"), "--quiet")
    assert done.exit_code == 1
    (tmp_path / "none" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photograph")
    done = call("dissect", "shapes-cnn", "blocks.1.resid_post", "--pictures", str(tmp_path / "none"), "--quiet")
    assert done.exit_code == 1
    assert "broken.jpg" in done.output
