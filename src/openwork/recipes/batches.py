"""Training batches as a function of seed and step, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from openwork.recipes.corpus import Streams

IGNORED = -100
SHORTEST_SPAN = 12


@dataclass(frozen=True)
class Mix:
    """What the rows of a batch are.

    Attributes:
        code: rows of real code.
        repeats: rows of repeated random spans.
        functions: rows of invented functions with docstrings.
        statements: rows of invented statements with nested brackets.
    """

    code: int
    repeats: int = 0
    functions: int = 0
    statements: int = 0

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.code + self.repeats + self.functions + self.statements


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        inputs: token ids; every row begins with the beginning-of-text token.
        targets: the next token of each; `IGNORED` where it cannot be known (the first copy of a random span).
    """

    inputs: Int[Tensor, "row position"]
    targets: Int[Tensor, "row position"]


def training_batch(streams: Streams, mix: Mix, context: int, seed: int, step: int) -> Batch:
    """Draw the batch of one step.

    Args:
        streams: the data.
        mix: how many rows of which kind.
        context: tokens in a row.
        seed: of the whole run.
        step: which step; the same seed and step give the same batch.

    Returns:
        The batch, on the CPU.
    """
    rng = np.random.default_rng([seed, step])
    begin = streams.tokenizer.bos_token_id
    rows = np.full((mix.rows, context + 1), begin, dtype=np.int64)
    targets_from = np.zeros(mix.rows, dtype=np.int64)
    sources = [streams.train] * mix.code + [None] * mix.repeats
    sources += [streams.functions] * mix.functions + [streams.statements] * mix.statements
    for row, source in enumerate(sources):
        if source is not None:
            rows[row, 1:] = _window(source, context, rng)
        else:
            span = int(rng.integers(SHORTEST_SPAN, context // 2))
            # the span again and again, cut to the row
            rows[row, 1:] = np.resize(random_tokens(streams.tokenizer, span, rng), context)
            targets_from[row] = span
    targets = rows[:, 1:].copy()
    targets[np.arange(context) < targets_from[:, None]] = IGNORED
    return Batch(torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(targets))


def _window(stream: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(0, len(stream) - length))
    return stream[start : start + length]


def random_tokens(tokenizer: PreTrainedTokenizerFast, length: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens drawn uniformly from a vocabulary without its special ones.

    Args:
        tokenizer: whose vocabulary.
        length: how many.
        rng: source of randomness.
    """
    special = set(tokenizer.all_special_ids)
    ordinary = np.asarray([token for token in range(len(tokenizer)) if token not in special])
    return rng.choice(ordinary, size=length)
