"""Programs that count."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from openwork.zoo.compiled.language import (
    BOS,
    Aggregate,
    Indices,
    Map,
    Prefer,
    Select,
    SelectorWidth,
    Share,
    Tokens,
)
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import all_rows, drawn, letters, one_changed, pick


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


def most_frequent(words: int = 5, length: int = 9) -> Program:
    """The most frequent word so far; of several, the one that came to that number first."""
    vocabulary, row_words = letters(words), length - 1
    tokens, indices = Tokens(words=(BOS, *vocabulary)), Indices(context=length)
    count = count_of_same(tokens, row_words)
    order = (Prefer(count, lambda n: n * length), Prefer(indices, lambda i: -i))
    output = Aggregate("most frequent", Select(indices, tokens, lambda key, query: key > 0, order), tokens)

    def algorithm(row: Row) -> list[str | None]:
        answers: list[str | None] = [None]
        best, counts = "", dict.fromkeys(vocabulary, 0)
        for word in row[1:]:
            counts[word] += 1
            if not best or counts[word] > counts[best]:
                best = word
            answers.append(best)
        return answers

    return Program(
        "most-frequent",
        output,
        Domain(tokens.words, length, drawn(vocabulary, row_words), one_changed(vocabulary)),
        algorithm,
        acts={"most frequent": "asked"},
        description="The most frequent word up to each position; of equals the one that was first to be that frequent.",
    )


CLASSES = ("none", "minority", "half", "majority", "all")


def fraction(words: int = 3, length: int = 11) -> Program:
    """Which part of the words so far is "a", in five classes."""
    vocabulary, row_words = letters(words), length - 1
    tokens, indices = Tokens(words=(BOS, *vocabulary, *CLASSES)), Indices(context=length)
    words_so_far = Select(indices, tokens, lambda key, query: key > 0)
    share = Share("share of a", words_so_far, tokens, lambda word: word == "a", row_words)
    half = Fraction(1, 2)
    classify = {0: "none", half: "half", 1: "all"}
    output = Map("part", lambda x: classify.get(x, "minority" if x < half else "majority"), share)

    def algorithm(row: Row) -> list[str | None]:
        answers: list[str | None] = [None]
        for seen in range(1, row_words + 1):
            found = row[1 : seen + 1].count("a")
            if found in (0, seen):
                answers.append("all" if found else "none")
            else:
                answers.append(CLASSES[2 + (2 * found > seen) - (2 * found < seen)])
        return answers

    def sample(rng: np.random.Generator) -> Row:
        likely = rng.random()
        return (BOS, *("a" if rng.random() < likely else pick(vocabulary[1:], rng) for _ in range(row_words)))

    return Program(
        "fraction",
        output,
        Domain(tokens.words, length, sample, one_changed(vocabulary)),
        algorithm,
        acts={"share of a": "asked", "part": "asked"},
        description='Which part of the words up to each position is "a": none, a minority, half, a majority or all.',
    )
