from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from openwork.tasks.names import ARGUMENTS

PIECES = r"[\r\n]+[ \t]*| ?[()\[\]{}]| ?[^\W\d]+| ?\d| ?[^\s\w()\[\]{}]+|[ \t]+"


class Characters:
    """One token for each printable character, nothing in front: the simplest vocabulary there is."""

    alphabet = [chr(i) for i in range(32, 127)] + ["\n"]

    def encode(self, text: str) -> list[int]:
        return [self.alphabet.index(c) for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.alphabet[i] for i in ids)

    def __len__(self) -> int:
        return len(self.alphabet)


@pytest.fixture(scope="session")
def characters() -> Characters:
    return Characters()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with a token in front of every text, trained on this package and on argument names."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    root = Path(__file__).parents[2] / "src" / "openwork" / "tasks"
    texts = [path.read_text(encoding="utf-8") for path in sorted(root.glob("*.py"))]
    names = [f" {name} self.{name}" for name in ARGUMENTS[:60]] * 200
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts + names, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", clean_up_tokenization_spaces=False)


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real code that does not change while the tests run: a copy of some of this package."""
    folder = tmp_path_factory.mktemp("code")
    root = Path(__file__).parents[2] / "src" / "openwork"
    for path in sorted([*root.glob("*.py"), *root.glob("metrics/*.py"), *root.glob("worlds/*.py")]):
        (folder / f"{path.parent.name}_{path.name}").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    return folder
