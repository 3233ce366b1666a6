"""A recipe that trains in a second, on a few files of the standard library."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from openwork import zoo
from openwork.recipes.batches import Mix
from openwork.recipes.brackets import invent_statement
from openwork.recipes.corpus import Streams
from openwork.recipes.docstrings import Lexicon, invent_function
from openwork.recipes.plan import Phase, Plan
from openwork.recipes.python import PythonRecipe
from openwork.recipes.recipe import Descent
from openwork.worlds import Corpus, standard_library
from openwork.zoo import AttentionOnly, AttentionOnlyConfig

MIX = Mix(code=1, repeats=1, functions=1)


@pytest.fixture(scope="session")
def streams() -> Streams:
    _, tokenizer = zoo.load("py-attn2")
    texts = [text for _, text in Corpus.below(standard_library() / "json").texts()]
    lexicon = Lexicon.of(texts, names=30, words=50)
    functions = [invent_function(lexicon, np.random.default_rng(i)) for i in range(20)]
    statements = [invent_statement(lexicon, np.random.default_rng(i)) for i in range(20)]

    def ids(parts: list[str]) -> np.ndarray:
        return np.asarray(tokenizer("".join(parts), add_special_tokens=False).input_ids, dtype=np.uint16)

    facts = {name: {"sha256": "0" * 64, "read": 3, "tokens": 99} for name in ("train", "held_out")}
    return Streams(tokenizer, ids(texts[1:]), ids(texts[:1]), ids(functions), ids(statements), facts)


def tiny(tokenizer: PreTrainedTokenizerFast) -> AttentionOnly:
    return AttentionOnly(AttentionOnlyConfig(vocabulary=len(tokenizer), width=16, heads=2, context=128))


PLAN = Plan("tiny", tiny, (Phase(30, MIX),), context=32, descent=Descent(warmup=5, decay=10, clip=1.0))


@pytest.fixture
def recipe(streams) -> PythonRecipe:
    return PythonRecipe(PLAN, streams)
