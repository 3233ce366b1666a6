"""A network with a planted induction circuit that reads text character by character, its task, and one whole study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from openwork.faithfulness.planted import Plant, PlantedInduction
from openwork.network import Network
from openwork.network import open as open_network
from openwork.studies import Study, StudySettings, study
from openwork.task import Task
from openwork.tasks.induction import repeats

CHARACTERS = ["?", *(chr(i) for i in range(32, 127) if chr(i) != "?"), "\n"]
SMALL: dict[str, Any] = {
    "examples": 30, "units": 24, "shuffles": 19, "resamples": 10, "texts": 8, "text_tokens": 40, "random_side": 10,
}  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    made = Tokenizer(models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?")


@pytest.fixture(scope="session")
def settings() -> StudySettings:
    """Small, but with the 500 random circuits that support needs."""
    return StudySettings(**SMALL)


Opener = Callable[..., Network]


@pytest.fixture(scope="session")
def opened(tokenizer: PreTrainedTokenizerFast) -> Opener:
    """Opens a fresh network with this mechanism planted, or the same without it."""

    def make(plant: Plant, planted: bool = True) -> Network:
        module = PlantedInduction(len(CHARACTERS), plant, context=48, planted=planted).eval()
        return open_network(module, tokenizer=tokenizer, example={"input_ids": torch.arange(20)[None]})

    return make


@pytest.fixture(scope="session")
def text() -> str:
    """Python source."""
    return "\n".join(f"def f{i}(a, b):\n    return [a + {i}, (b, a)]  # add\n" for i in range(30))


@pytest.fixture(scope="session")
def net(opened: Opener) -> Network:
    """Heads 2 (block 0) and 7 (block 1) of twelve."""
    return opened(Plant((2,), (7,), heads=12))


@pytest.fixture(scope="session")
def task(net: Network) -> Task:
    """Repeated random characters."""
    return repeats(net, n=64, span=12)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `done` lies."""
    return tmp_path_factory.mktemp("studies") / "planted"


@pytest.fixture(scope="session")
def done(net: Network, task: Task, settings: StudySettings, folder: Path, text: str) -> Study:
    """The whole study of the planted network, made once."""
    return study(net, task, text=text, out=folder, settings=settings, quiet=True)
