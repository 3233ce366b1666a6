# pyright: reportArgumentType=false, reportCallIssue=false
"""`openwork exemplars` and `tune`, on a small vision transformer in a folder and a folder of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from openwork.cli.pictures import numbers, pixels
from openwork.errors import BadInput

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer of 16 x 16 pixels that has learned nothing."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vit")
    ViTForImageClassification(config).save_pretrained(folder)
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True, "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photographs of noise, of two classes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for i in range(30):
        path = folder / ("dark" if i % 2 else "light") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 100 if i % 2 else 256, (20, 24, 3)).astype(np.uint8)).save(path)
    return folder


def test_exemplars_writes_examples_and_their_test(call: Call, model: Path, images: Path, tmp_path: Path) -> None:
    words = ["--pictures", str(images), "--top", "3", "--pairs", "4", "--alpha", "0.4", "--quiet", "--out", "out"]
    done = call("exemplars", str(model), "blocks.0.resid_post[2,5]", "logits[1]", *words)
    assert done.exit_code in (0, 4), done.output
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(record["findings"]) == 3
    assert "--pairs 4" in record["settings"]["command"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") > 20
    assert "a picture of light" in page


def test_tune_writes_round_curves(call: Call, model: Path, tmp_path: Path) -> None:
    words = ["--feature", "hue", "--trials", "3", "--alpha", "0.4", "--quiet", "--out", "out"]
    done = call("tune", str(model), "blocks.0.resid_post[0-1]", *words)
    assert done.exit_code in (0, 4), done.output
    assert "Responses by hue of discs" in (tmp_path / "out" / "report.html").read_text()


def test_json_is_the_record(call: Call, model: Path) -> None:
    done = call("tune", str(model), "logits[0]", "--trials", "2", "--claims", "0", "--alpha", "0.4", "--json", "-q")
    assert json.loads(done.stdout)["method"] == "tuning to orientation"


def test_a_text_model_a_missing_folder_and_an_unknown_unit_are_told(call: Call, model: Path, images: Path) -> None:
    for words, said in [
        (("tune", "py-attn2", "embed"), "reads images"),
        (("exemplars", str(model), "logits", "--pictures", "nowhere"), "nowhere is not there"),
        (("exemplars", str(model), "logit", "--pictures", str(images)), "logits"),
        (("exemplars", str(model), "logits", "--pictures", str(images)), "80 for queries"),
        (("exemplars", str(model), "logits", "--count", "0"), "one image or more"),
        (("exemplars", str(model), "logits", "--fit", "stretch"), "crop"),
        (("exemplars", str(model), "logits", "--masks", "m"), "shapes bring their own"),
    ]:
        done = call(*words, "-q")
        assert done.exit_code == 1
        assert said in done.stderr, done.stderr


def test_an_empty_folder_is_told(call: Call, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call("exemplars", str(model), "logits", "--pictures", "empty", "-q")
    assert (done.exit_code, "got none among 0 files" in done.stderr) == (1, True)


def test_a_folder_may_be_read_in_part(call: Call, model: Path, images: Path) -> None:
    done = call("exemplars", str(model), "logits[0]", "--pictures", str(images), "--count", "8", "-q")
    assert "has 4" in done.stderr


@pytest.mark.parametrize("text", ["a,b,c", "1,2", ""])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="one or three numbers"):
        numbers("--mean", text)


def test_a_size_is_one_number_or_height_by_width() -> None:
    assert (pixels("32"), pixels("20x30")) == ((32, 32), (20, 30))
    with pytest.raises(BadInput, match="--size"):
        pixels("32x")
