"""Programs that count."""

from __future__ import annotations

from openwork.zoo.compiled.language import (
    BOS,
    Map,
    Select,
    SelectorWidth,
    Tokens,
)
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import all_rows, drawn, letters, one_changed


def count_of_same(tokens: Tokens, most: int, name: str = "count") -> Map:
    """How often the word of each position is seen from there."""
    same = Select(tokens, tokens, lambda key, query: key == query != BOS)
    return Map(name, lambda width: width, SelectorWidth(f"1 / (1 + {name})", same, most))


def histogram(words: int = 5, length: int = 7) -> Program:
    """How often the word of each position stands in the row."""
    vocabulary, numbers = letters(words), tuple(str(n) for n in range(length))
    tokens = Tokens(words=(BOS, *vocabulary, *numbers))
    row_words = length - 1

    def algorithm(row: Row) -> list[str | None]:
        return [None, *(str(row.count(word)) for word in row[1:])]

    return Program(
        "histogram",
        count_of_same(tokens, row_words),
        Domain(
            tokens.words, length, drawn(vocabulary, row_words), one_changed(vocabulary), all_rows(vocabulary, row_words)
        ),
        algorithm,
        causal=False,
        description="How often the word of each position stands in the row.",
    )
