"""Programs that find something in the row and copy what belongs to it: attention alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from openwork.zoo.compiled.language import BOS, Aggregate, Indices, Select, Tokens, Variable, latest
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import changed, drawn, letters, pick


def previous(tokens: Tokens, indices: Indices, name: str = "before") -> Variable:
    """The word before each."""
    return Aggregate(name, Select(indices, indices, lambda key, query: key == query - 1), tokens)


def followed(tokens: Tokens, indices: Indices, before: Variable, sought: Variable, name: str) -> Variable:
    """The word that stands after the latest `sought` of the row."""
    match = Select(before, sought, lambda key, query: key == query != BOS, latest(indices))
    return Aggregate(name, match, tokens)


def induction(words: int = 8, length: int = 14) -> Program:
    """A B … A → B: what followed the latest earlier occurrence of each word."""
    vocabulary = letters(words)
    tokens, indices = Tokens(words=(BOS, *vocabulary)), Indices(context=length)
    output = followed(tokens, indices, previous(tokens, indices), tokens, "copied")

    def algorithm(row: Row) -> list[str | None]:
        answers: list[str | None] = []
        for i, word in enumerate(row):
            earlier = [j for j in range(1, i) if row[j] == word]
            answers.append(row[earlier[-1] + 1] if earlier else None)
        return answers

    def groups(row: Row, position: int) -> Mapping[str, Sequence[int]]:
        match = max(j for j in range(1, position) if row[j] == row[position])
        return {"previous": (match,), "copied": (match + 1,)}

    def near(row: Row, position: int, rng: np.random.Generator) -> Row:
        return changed(row, {groups(row, position)["copied"][0]: pick(vocabulary, rng)})

    return Program(
        "induction",
        output,
        Domain(tokens.words, length, drawn(vocabulary, length - 1), near, groups=groups),
        algorithm,
        acts={"before": "copied", "copied": "asked"},
        looks=(("before", "copied", "previous"), ("copied", "asked", "copied")),
        description="After a word that stood earlier in the row comes what followed its latest occurrence.",
    )


def two_hop(words: int = 7, pairs: int = 5) -> Program:
    """Pairs of a word and what it leads to, then a word: where two steps lead from there."""
    vocabulary, length = letters(words), 2 * pairs + 2
    tokens, indices = Tokens(words=(BOS, *vocabulary)), Indices(context=length)
    # only the second of a pair sees the first: 1 leads to 2, 3 to 4, ...
    inside = Select(indices, indices, lambda key, query: key == query - 1 and query % 2 == 0)
    source = Aggregate("source", inside, tokens)
    first = followed(tokens, indices, source, tokens, "first hop")
    second = followed(tokens, indices, source, first, "second hop")

    def algorithm(row: Row) -> list[str | None]:
        leads = dict(zip(row[1:-1:2], row[2:-1:2], strict=True))
        return [*[None] * (length - 1), leads.get(leads.get(row[-1], ""))]

    def sample(rng: np.random.Generator) -> Row:
        sources = [vocabulary[i] for i in rng.permutation(words)[:pairs]]
        targets = [pick([word for word in vocabulary if word != source], rng) for source in sources]
        linked = [source for source, target in zip(sources, targets, strict=True) if target in sources]
        asked = pick(linked or sources, rng)
        return (BOS, *(word for pair in zip(sources, targets, strict=True) for word in pair), asked)

    def groups(row: Row, position: int) -> Mapping[str, Sequence[int]]:
        value = {row[i]: i + 1 for i in range(1, length - 1, 2)}
        return {"first": (value[row[-1]],), "second": (value[row[value[row[-1]]]],)}

    def near(row: Row, position: int, rng: np.random.Generator) -> Row:
        place = int(rng.choice([groups(row, position)["first"][0], groups(row, position)["second"][0], length - 1]))
        return changed(row, {place: pick(vocabulary, rng)})

    return Program(
        "two-hop",
        second,
        Domain(tokens.words, length, sample, near, groups=groups),
        algorithm,
        acts={"first hop": "asked", "second hop": "asked"},
        looks=(("first hop", "asked", "first"), ("second hop", "asked", "second")),
        description="Of pairs that lead from one word to another, where two steps lead from the last word.",
    )
