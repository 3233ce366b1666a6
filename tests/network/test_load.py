"""Folders and names: what loads, and what is said of files that are damaged, missing or not to be trusted."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from openwork import network
from openwork.edit import Ablate, Scale
from openwork.errors import BadInput, CorruptFile, UnknownName
from openwork.zoo import opening

from .oracle import forward
from .tiny import WIDTH, build, token_ids

WEIGHTS = "model.safetensors"
TENSOR = "transformer.h.1.mlp.c_fc.weight"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks a hub, nor waits for one."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers saves it."""
    folder = tmp_path_factory.mktemp("saved") / "gpt2"
    build("gpt2").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("as_text", [True, False])
def test_a_folder(saved: Path, as_text: bool) -> None:
    net = network.open(str(saved) if as_text else saved)
    assert net.name == str(saved)
    assert net.tokenizer is None
    assert not net.module.training
    assert len(net.sites) == 51
    assert torch.equal(net.run(token_ids()).logits, forward(build("gpt2"), {"input_ids": token_ids()}))


def test_a_folder_with_a_tokenizer(copied: Path) -> None:
    letters = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[pad]", *"abc"])}, unk_token="[pad]"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="[pad]").save_pretrained(copied)
    net = network.open(copied)
    assert net.encode("cab") == [3, 1, 2]
    assert network.open(copied, tokenizer=None, name="mine").name == "mine"


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_a_folder_in_another_dtype(saved: Path, dtype: Any) -> None:
    net = network.open(saved, dtype=dtype, device="cpu")
    expected = torch.bfloat16 if dtype == "bfloat16" else dtype
    assert {p.dtype for p in net.module.parameters()} == {expected}


def test_a_checkpoint_of_the_body_alone_opens_without_logits(tmp_path: Path) -> None:
    build("bert").bert.save_pretrained(tmp_path / "bert")
    net = network.open(tmp_path / "bert")
    assert type(net.module).__name__ == "BertModel"
    assert net.n_blocks == 3


# -- damaged --


def cut_short(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-500])


def overwritten(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"dear all, this is no tensor. " * 20)


def emptied(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def tensor_lost(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.__delitem__(TENSOR))


def tensor_misshaped(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({TENSOR: torch.zeros(3, 3)}))


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def empty_config(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def unheard_of(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "never-heard-of"}')


DAMAGE = [cut_short, overwritten, emptied, tensor_lost, tensor_misshaped, broken_config, empty_config, unheard_of]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_folder(copied: Path, damage: Callable[[Path], None]) -> None:
    damage(copied)
    with pytest.raises(CorruptFile, match="model"):
        network.open(copied)


def test_a_lost_tensor_is_named(copied: Path) -> None:
    tensor_lost(copied)
    with pytest.raises(CorruptFile, match=r"transformer\.h\.1\.mlp\.c_fc\.weight"):
        network.open(copied)


def test_not_a_number_among_the_weights(copied: Path) -> None:
    change_tensors(copied, lambda tensors: tensors.update({TENSOR: tensors[TENSOR] * torch.nan}))
    with pytest.raises(BadInput, match=r"NaN or infinite weights: transformer\.h\.1\.mlp\.c_fc\.weight"):
        network.open(copied)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_a_number_in_one_row_of_the_weights(value: float) -> None:
    module = build("llama")
    with torch.no_grad():
        module.lm_head.weight[7] = value
    with pytest.raises(BadInput, match=r"lm_head\.weight"):
        network.open(module)


# -- missing, or not to be trusted --


def test_a_folder_without_configuration(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(BadInput, match=r"no config\.json"):
        network.open(copied)


def test_a_folder_without_weights(copied: Path) -> None:
    (copied / WEIGHTS).unlink()
    with pytest.raises(BadInput, match="no weights at all"):
        network.open(copied)


def test_bin_weights_only_when_asked_for(copied: Path) -> None:
    (copied / WEIGHTS).unlink()
    torch.save(build("gpt2").state_dict(), copied / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin.*allow_bin=True"):
        network.open(copied)
    net = network.open(copied, allow_bin=True)
    assert torch.equal(net.run(token_ids()).logits, forward(build("gpt2"), {"input_ids": token_ids()}))


RAN: list[str] = []


class Smuggled:
    def __reduce__(self) -> Any:
        return RAN.append, ("code",)


def test_code_in_bin_weights_never_runs(copied: Path) -> None:
    (copied / WEIGHTS).unlink()
    torch.save({TENSOR: Smuggled()}, copied / "pytorch_model.bin")
    RAN.clear()
    with pytest.raises(CorruptFile, match="model"):
        network.open(copied, allow_bin=True)
    assert RAN == []


def test_code_beside_the_weights_never_runs_unasked(copied: Path) -> None:
    (copied / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}'
    )
    (copied / "own.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(BadInput, match="trust_remote_code=True"):
        network.open(copied)


def test_a_file_instead_of_a_folder(saved: Path) -> None:
    with pytest.raises(BadInput, match="is a file"):
        network.open(saved / WEIGHTS)


@pytest.mark.parametrize("name", ["no-such-model", "nobody/nothing", "/no/such/folder", "./no/folder", "what is it?"])
def test_a_name_that_nothing_has(name: str) -> None:
    with pytest.raises(UnknownName, match="named"):
        network.open(name)


def test_an_unknown_name_lists_the_embedded_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening.zoo, "names", lambda: ["py-4l", "py-attn2"])
    with pytest.raises(UnknownName, match="py-4l, py-attn2"):
        opening.open("py4l")


def test_a_name_without_letters() -> None:
    with pytest.raises(BadInput, match="expected"):
        network.open("")


@pytest.mark.parametrize(
    "options", [{"dtype": "float7"}, {"dtype": "Tensor"}, {"device": "nowhere"}, {"device": "cuda:97"}], ids=str
)
def test_a_device_or_dtype_that_does_not_exist(saved: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(options.values()))):
        network.open(saved, **options)


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"dtype": "float16"}, {"allow_bin": True}], ids=str)
def test_loading_options_for_a_module(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="for names and folders"):
        network.open(build("gpt2"), **options)


def test_a_map_of_devices(saved: Path) -> None:
    net = network.open(saved, device="auto")
    run = net.run(token_ids(), keep="blocks.1.attn.z")
    assert run["blocks.1.attn.z"].shape[-1] * 4 == WIDTH


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_a_model_that_accelerate_spreads_is_read_and_written_like_the_plain_one(
    saved: Path, tmp_path: Path, where: str
) -> None:
    """Weights that lie on disk come in for one module's call only, behind a forward of accelerate's own."""
    parts = ["wte", "wpe", "drop", "h.0", "h.1", "h.2", "ln_f"]
    device_map = {**{f"transformer.{part}": "cpu" for part in parts}, "lm_head": "cpu", "transformer.h.1": where}
    module = AutoModelForCausalLM.from_pretrained(saved, device_map=device_map, offload_folder=tmp_path).eval()
    plain, spread = network.open(saved), network.open(module)
    assert list(spread.sites) == list(plain.sites)
    names = list(plain.sites)
    edits = [Scale("blocks.1.norm1.scale", factor=2.0), Ablate("blocks.1.attn.z[1]")]
    for given in ([], edits):
        one, other = (net.run(token_ids(), keep=names, edits=given) for net in (plain, spread))
        assert torch.equal(one.logits, other.logits)
        assert all(torch.equal(one[name], other[name]) for name in names)
    grads = [
        net.run(token_ids(), keep="blocks.0.attn.z", grads=lambda r: r.logits[:, -1, 3]).grads
        for net in (plain, spread)
    ]
    assert torch.equal(*(g["blocks.0.attn.z"] for g in grads))
    assert spread.generate(token_ids(), max_new_tokens=3).ids == plain.generate(token_ids(), max_new_tokens=3).ids


def test_a_map_of_devices_without_accelerate(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="accelerate"):
        network.open(saved, device="auto")
