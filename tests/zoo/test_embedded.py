"""The networks that ship: they load, they are what their cards say, and a damaged file is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from openwork import zoo
from openwork.errors import CorruptFile, UnknownName
from openwork.zoo import embedded

NAMES = ("py-4l", "py-attn2", "py-attn2-unmixed")
MOST_BYTES = 25_000_000


def induction(name: str, rows: int = 12, span: int = 50) -> float:
    """The share of right answers in the second copy of random spans, counted one by one."""
    network, tokenizer = zoo.load(name)
    rng = np.random.default_rng(7)
    right = asked = 0
    for _ in range(rows):
        once = rng.integers(3, len(tokenizer), size=span).tolist()
        ids = [tokenizer.bos_token_id, *once, *once]
        with torch.no_grad():
            likeliest = network(input_ids=torch.tensor([ids])).logits[0].argmax(-1).tolist()
        for position in range(span + 2, len(ids)):
            right += likeliest[position - 1] == ids[position]
            asked += 1
    return right / asked


@pytest.fixture
def copied(tmp_path, monkeypatch) -> Path:
    """A copy of the small models that a test may damage."""
    for name in ("py-attn2", "py-4l"):
        shutil.copytree(embedded.WEIGHTS / name, tmp_path / name, ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.setattr(embedded, "WEIGHTS", tmp_path)
    return tmp_path


def test_the_three_models_ship_and_are_small():
    assert set(NAMES) <= set(zoo.names())
    weights = [path for name in NAMES for path in (embedded.WEIGHTS / name).rglob("*.safetensors")]
    assert sum(path.stat().st_size for path in weights) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_loads_in_float32_and_reads_code(name):
    network, tokenizer = zoo.load(name)
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    ids = tokenizer("def f(a, b):\n    return a", return_tensors="pt").input_ids
    assert ids[0, 0] == tokenizer.bos_token_id
    with torch.no_grad():
        logits = network(input_ids=ids).logits
    assert logits.shape == (*ids.shape, len(tokenizer))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "goal"), [("py-4l", 0.7), ("py-attn2", 0.5)])
def test_induction_is_what_the_card_says(name, goal):
    measured, card = induction(name), zoo.card(name)["induction"]
    assert measured >= goal
    assert measured == pytest.approx(card["accuracy"], abs=0.05)


def test_the_unmixed_twin_was_trained_as_long_and_on_code_alone():
    mixed, unmixed = (zoo.card(name)["training"] for name in ("py-attn2", "py-attn2-unmixed"))
    assert unmixed["tokens"] >= mixed["tokens"]
    assert all(phase["repeats"] == 0 for phase in unmixed["phases"])
    assert all(phase["repeats"] > 0 for phase in mixed["phases"])


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_loses_nothing(name):
    held_out = zoo.card(name)["held_out"]
    assert held_out["loss_shipped"] == pytest.approx(held_out["loss_float32"], abs=1e-3)


def test_the_default_model_does_its_tasks():
    card = zoo.card("py-4l")
    assert card["held_out"]["closing_bracket"]["accuracy"] >= 0.9
    assert card["tasks"]["bracket"]["accuracy"] >= 0.9
    assert card["tasks"]["docstring"]["accuracy"] >= 3 * card["tasks"]["docstring"]["chance"]


@pytest.mark.parametrize("name", NAMES)
def test_cards_name_no_place_of_the_machine_that_made_them(name):
    for file in ("card.json", "README.md", "config.json", "tokenizer_config.json"):
        text = (embedded.WEIGHTS / name / file).read_text(encoding="utf-8")
        assert not any(place in text for place in ("/home", "/root", "/tmp", "/work", "/usr"))


def test_checkpoints_show_induction_being_born():
    steps = zoo.checkpoints("py-attn2")
    assert len(steps) == 10
    assert steps[0] == "step-0"
    accuracies = [induction(f"py-attn2@{step}", rows=4) for step in steps]
    assert accuracies[0] < 0.05
    assert accuracies[-1] > 0.8
    assert sum(0.05 < accuracy < 0.8 for accuracy in accuracies) >= 4


def test_a_gpt2_opens_with_the_library_alone():
    ids = AutoTokenizer.from_pretrained(embedded.WEIGHTS / "py-4l", local_files_only=True)("x = 1").input_ids
    theirs = AutoModelForCausalLM.from_pretrained(embedded.WEIGHTS / "py-4l", local_files_only=True).eval()
    ours, _ = zoo.load("py-4l")
    inputs = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(theirs(inputs).logits, ours(inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("text", ["", "x", "def f():\n\treturn 'é 🐍'  # 123\n", "\n\n\n    \n", "a" * 500])
def test_text_survives_the_tokenizer(text):
    _, tokenizer = zoo.load("py-attn2")
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_digits_and_brackets_are_single_tokens():
    _, tokenizer = zoo.load("py-attn2")
    pieces = [str(tokenizer.decode([i])) for i in tokenizer("f(x[12], {3: (45)})", add_special_tokens=False).input_ids]
    assert all(len(piece.strip()) == 1 for piece in pieces if set(piece) & set("()[]{}0123456789"))


def test_an_untrained_copy_has_the_shape_and_knows_nothing():
    network, _ = zoo.untrained("py-attn2", seed=3)
    again, _ = zoo.untrained("py-attn2", seed=3)
    trained, _ = zoo.load("py-attn2")
    shapes = {name: tensor.shape for name, tensor in trained.state_dict().items()}
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes
    torch.testing.assert_close(network.state_dict(), again.state_dict(), rtol=0, atol=0)
    assert not torch.equal(network.state_dict()["embed.weight"], trained.state_dict()["embed.weight"])


def test_unknown_names_list_the_nearest():
    with pytest.raises(UnknownName, match="py-4l"):
        zoo.load("py-4")
    with pytest.raises(UnknownName, match="step-"):
        zoo.load("py-attn2@step-7")
    with pytest.raises(UnknownName, match="py-attn2"):
        zoo.card("../py-attn2")


@pytest.mark.parametrize("name", ["py-attn2", "py-4l"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "wrong tensors"])
def test_damaged_weights_are_named(copied, name, damage):
    path = copied / name / "model.safetensors"
    data = path.read_bytes()
    if damage == "wrong tensors":
        other = {"py-attn2": "py-4l", "py-4l": "py-attn2"}[name]
        shutil.copyfile(copied / other / "model.safetensors", path)
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "noise": b"\xff" * 1000, "empty": b""}[damage])
    with pytest.raises(CorruptFile, match=r"model\.safetensors") as caught:
        zoo.load(name)
    assert "reinstall" in str(caught.value)


def test_a_tied_tensor_may_be_missing_but_no_other(copied):
    from safetensors.torch import load_file, save_file

    path = copied / "py-4l" / "model.safetensors"
    tensors = load_file(path)
    assert "lm_head.weight" not in tensors
    tensors.pop("transformer.h.1.mlp.c_fc.bias")
    save_file(tensors, path)
    with pytest.raises(CorruptFile, match=r"h\.1\.mlp\.c_fc\.bias"):
        zoo.load("py-4l")


@pytest.mark.parametrize("file", ["config.json", "card.json", "tokenizer.json"])
def test_damaged_json_is_named(copied, file):
    (copied / "py-attn2" / file).write_text('{"a": ')
    with pytest.raises(CorruptFile, match=file.replace(".", r"\.")):
        zoo.card("py-attn2") if file == "card.json" else zoo.load("py-attn2")


def test_curves_are_complete():
    for name in NAMES:
        curve = json.loads((embedded.WEIGHTS / name / "curve.json").read_text())
        steps = [record["step"] for record in curve]
        assert steps == sorted(set(steps))
        assert any("held_out" in record for record in curve)
