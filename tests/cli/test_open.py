from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

NAME = "py-attn2"


def test_the_tree_shows_sites_shapes_and_checks(call: Callable[..., Result]) -> None:
    done = call("open", NAME)
    assert done.exit_code == 0
    for said in (NAME, "resid_pre", "attn.pattern", "head 6", "certified", "identity write"):
        assert said in done.stdout, said


def test_json_is_the_certificate(call: Callable[..., Result]) -> None:
    import openwork as ow

    record = json.loads(call("open", NAME, "--json").stdout)
    net = ow.open(NAME)
    assert [site["site"] for site in record["sites"]] == list(net.sites)
    for site in record["sites"]:
        assert site["axes"] == dict(zip(net.sites[site["site"]].axes, net.sites[site["site"]].shape, strict=True))
        assert site["checks"]
        assert all(check["residual"] <= check["tolerance"] for check in site["checks"])
    assert record["refused"] == net.refused


def test_precision_reaches_the_network(call: Callable[..., Result]) -> None:
    record = json.loads(call("open", NAME, "--json", "--dtype", "bfloat16").stdout)
    assert record["blocks"] == 2


@pytest.mark.parametrize("words", [["no-such-model"], [NAME, "--device", "warp"]])
def test_unknown_models_and_devices_are_one_clear_error(words: list[str], call: Callable[..., Result]) -> None:
    done = call("open", *words)
    assert done.exit_code == 1
    assert "error: " in done.stderr
    assert words[-1] in done.stderr
    assert done.stdout == ""


def test_a_damaged_model_is_an_error(call: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2}')
    (folder / "model.safetensors").write_bytes(b"cut short")
    done = call("open", str(folder))
    assert done.exit_code == 1
    assert "damaged" in done.stderr
