"""The token streams that the embedded models of Python are trained on."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from openwork.recipes.brackets import invent_statement
from openwork.recipes.docstrings import Lexicon, invent_function
from openwork.recipes.tokenizer import save_tokenizer, train_tokenizer
from openwork.worlds.corpus import Corpus, standard_library

log = logging.getLogger(__name__)

# tables of character names: a tenth of the vocabulary would go to words like LATIN and CAPITAL
TABLES = "encodings/"
INVENTED_FUNCTIONS = 40_000
INVENTED_STATEMENTS = 20_000
STREAMS = ("train", "held_out", "functions", "statements")


@dataclass(frozen=True)
class Streams:
    """Everything that a recipe reads.

    Attributes:
        tokenizer: the tokenizer that made the ids.
        train: ids of the training files, one after another, an end-of-text token after each.
        held_out: the same of the held-out files.
        functions: the same of invented functions with docstrings (`recipes.docstrings`).
        statements: the same of invented statements with nested brackets (`recipes.brackets`).
        facts: hashes and counts of the data, for the model card.
    """

    tokenizer: PreTrainedTokenizerFast
    train: np.ndarray
    held_out: np.ndarray
    functions: np.ndarray
    statements: np.ndarray
    facts: dict[str, dict]


def python_streams(folder: Path) -> Streams:
    """Read the streams from a folder, making them from the standard library of this Python if they are not there.

    Args:
        folder: where they are kept between calls.

    Returns:
        The streams. Making them takes about half a minute.
    """
    if not (folder / "facts.json").exists():
        _make(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in STREAMS}
    return Streams(tokenizer, facts=json.loads((folder / "facts.json").read_text()), **arrays)


def _make(folder: Path) -> None:
    corpus = Corpus.below(standard_library())
    corpus = Corpus(corpus.root, tuple(name for name in corpus.names if not name.startswith(TABLES)))
    log.info("reading %d files of the standard library", len(corpus.names))
    train = dict(corpus.split("train").texts())
    held_out = dict(corpus.split("held-out").texts())
    tokenizer = train_tokenizer(train.values())
    save_tokenizer(tokenizer, folder)

    facts: dict[str, dict] = {}
    for name, part, texts in (
        ("train", corpus.split("train"), train),
        ("held_out", corpus.split("held-out"), held_out),
    ):
        ids = _encode(tokenizer, list(texts.values()))
        np.save(folder / f"{name}.npy", ids)
        facts[name] = {**part.fingerprint(), "read": len(texts), "tokens": len(ids)}
    lexicon = Lexicon.of(train.values())
    for name, invent, count in (
        ("functions", invent_function, INVENTED_FUNCTIONS),
        ("statements", invent_statement, INVENTED_STATEMENTS),
    ):
        rng = np.random.default_rng(0)
        texts = [invent(lexicon, rng) for _ in range(count)]
        ids = _encode(tokenizer, ["".join(texts[start : start + 20]) for start in range(0, count, 20)])
        np.save(folder / f"{name}.npy", ids)
        facts[name] = {"invented": count, "tokens": len(ids)}
    # written last: its presence says that the folder is whole
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    end = tokenizer.eos_token_id
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return np.concatenate([np.asarray([*encoding.ids, end], dtype=np.uint16) for encoding in encodings])
