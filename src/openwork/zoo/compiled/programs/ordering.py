"""Programs that move the words of a row to other places."""

from __future__ import annotations

import numpy as np

from openwork.zoo.compiled.language import (
    BOS,
    Aggregate,
    Indices,
    Map,
    Select,
    SelectorWidth,
    Tokens,
    earliest,
)
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import changed, drawn, letters, one_changed, pick

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


def sort(words: int = 5, length: int = 8) -> Program:
    """The words in the order of the alphabet."""
    vocabulary, row_words = letters(words), length - 1
    tokens, indices = Tokens(words=(BOS, *vocabulary)), Indices(context=length)
    # of equal words that of an earlier place comes first
    pair = Map("word and place", lambda word, i: BOS if word == BOS else (word, i), (tokens, indices))
    up_to = Select(pair, pair, lambda key, query: BOS not in (key, query) and key <= query)
    rank = Map("rank", lambda width: width, SelectorWidth("1 / (1 + rank)", up_to, row_words))
    output = Aggregate("sorted", Select(rank, indices, lambda key, query: key == query), tokens)

    def algorithm(row: Row) -> list[str | None]:
        return [None, *sorted(row[1:])]

    return Program(
        "sort",
        output,
        Domain(tokens.words, length, drawn(vocabulary, row_words), one_changed(vocabulary)),
        algorithm,
        causal=False,
        acts={"sorted": "asked"},
        description="The words of a row in the order of the alphabet, equal ones as often as they stand there.",
    )


def unique(words: int = 7, length: int = 8) -> Program:
    """The words of the row without repetitions, in the order in which they first stand, then padding."""
    vocabulary, row_words = letters(words), length - 1
    tokens, indices = Tokens(words=(BOS, *vocabulary, PAD)), Indices(context=length)
    first = Aggregate("first", Select(tokens, tokens, lambda key, query: key == query, earliest(indices)), indices)
    new_at = Map("new at", lambda first, i: i if first == i else 0, (first, indices))
    new_before = Select(new_at, indices, lambda key, query: 0 < key <= query)
    rank = Map("rank", lambda width: width, SelectorWidth("1 / (1 + rank)", new_before, row_words))
    # of the places of one rank the earliest is that of the new word
    output = Aggregate("kept", Select(rank, indices, lambda key, query: key == query, earliest(indices)), tokens)

    def algorithm(row: Row) -> list[str | None]:
        kept = list(dict.fromkeys(row[1:]))
        return [None, *kept, *[PAD] * (row_words - len(kept))]

    def sample(rng: np.random.Generator) -> Row:
        some = [vocabulary[i] for i in rng.permutation(words)[: int(rng.integers(1, words + 1))]]
        row = [*some, *(pick(some, rng) for _ in range(row_words - len(some)))]
        return (BOS, *(row[i] for i in rng.permutation(row_words)))

    return Program(
        "unique",
        output,
        Domain(tokens.words, length, sample, one_changed(vocabulary)),
        algorithm,
        causal=False,
        word=lambda value: PAD if value == BOS else str(value),
        acts={"kept": "asked"},
        description="The words of a row without those that stood before, then padding.",
    )
