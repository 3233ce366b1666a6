# pyright: reportArgumentType=false, reportCallIssue=false
"""The commands about vision transformers, on a small one in a folder of its own."""

import json

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

COUNT = ("--pictures", "shapes", "--count", "90", "--alpha", "0.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=48,
        patch_size=16,
        num_labels=16,
    )
    path = tmp_path_factory.mktemp("models") / "vit"
    ViTForImageClassification(config).save_pretrained(path)
    format = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 48, "width": 48}}
    (path / "preprocessor_config.json").write_text(json.dumps(format))
    return path


@pytest.mark.parametrize(
    ("name", "words", "axis"),
    [
        ("heads", ("--claims", "1"), "concept"),
        ("registers", (), "block"),
        ("class-token", (), "block"),
        pytest.param("traits", ("--steps", "3"), "part", marks=pytest.mark.extended),
        pytest.param("drop-patches", ("--steps", "2", "--groups", "2"), "share", marks=pytest.mark.extended),
    ],
)
def test_each_command_writes_what_it_found(call, folder, tmp_path, name, words, axis):
    done = call(name, str(folder), *COUNT, *words, "--out", str(tmp_path / "out"), "--quiet")
    assert done.exit_code in (0, 4), done.stderr
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["method"] == name.replace("-", " ").replace("heads", "looks").replace(
        "drop patches", "patch dropping"
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert axis in json.dumps(record)
    assert "<svg" in page or "<img" in page


def test_a_network_of_text_is_refused(call):
    done = call("heads", "py-attn2", "--quiet")
    assert done.exit_code == 1
    assert "image" in done.stderr


def test_a_network_without_patches_is_refused(call):
    done = call("registers", "shapes-cnn", "--count", "8", "--quiet")
    assert done.exit_code == 1
    assert "vision transformer" in done.stderr
