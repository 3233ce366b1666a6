"""Programs that move the words of a row to other places."""

from __future__ import annotations

import numpy as np

from openwork.zoo.compiled.language import (
    BOS,
    Aggregate,
    Indices,
    Map,
    Select,
    Tokens,
    earliest,
)
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import changed, letters, pick

PAD = "pad"


def reverse(words: int = 8, length: int = 12) -> Program:
    """The words before the padding, last first."""
    vocabulary = letters(words)
    tokens, indices = Tokens(words=(BOS, PAD, *vocabulary)), Indices(context=length)
    padding = Select(tokens, indices, lambda key, query: key == PAD, earliest(indices))
    # 0, the first position, where there is no padding
    end = Aggregate("end", padding, indices)
    opposite = Map("opposite", lambda e, i: max((e or length) - i, 0), (end, indices))
    output = Aggregate("reversed", Select(indices, opposite, lambda key, query: key == query), tokens)

    def algorithm(row: Row) -> list[str | None]:
        said = [word for word in row[1:] if word != PAD]
        return [None, *reversed(said), *[None] * (length - 1 - len(said))]

    def padded(count: int, rng: np.random.Generator) -> Row:
        return (BOS, *(pick(vocabulary, rng) for _ in range(count)), *[PAD] * (length - 1 - count))

    def sample(rng: np.random.Generator) -> Row:
        return padded(int(rng.integers(2, length)), rng)

    def near(row: Row, position: int, rng: np.random.Generator) -> Row:
        count = length - 1 - row.count(PAD)
        if rng.random() < 0.5:
            return changed(row, {count + 1 - position: pick(vocabulary, rng)})
        return row[: count + 1] + padded(length - 1, rng)[count + 1 :] if count < length - 1 else (*row[:-1], PAD)

    return Program(
        "reverse",
        output,
        Domain(tokens.words, length, sample, near),
        algorithm,
        causal=False,
        description="The words of a row that may be padded, in reverse.",
    )
