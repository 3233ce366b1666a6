"""Indirect objects in small: "Ann and Bob met Bob gave to" → Ann."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from openwork.zoo.compiled.language import BOS, Aggregate, Indices, Map, Select, Tokens, earliest, latest
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import changed

NAMES = ("Ann", "Bob", "Cid", "Dan", "Eva", "Fay", "Gus", "Hal")
ADVERBS = ("then", "later", "soon", "once")
FRAME = ("and", "met", "gave", "to")
LENGTH = 10


def ioi() -> Program:
    """Two names, then one of them again; the answer is the other one.

    Duplicate-token heads find where the name of a position stood first; an MLP says whether that is elsewhere.
    The inhibition head brings the repeated name to the last word, and name movers copy a name that is not inhibited.
    """
    tokens, indices = Tokens(words=(BOS, *NAMES, *ADVERBS, *FRAME)), Indices(context=LENGTH)
    same_name = Select(tokens, tokens, lambda key, query: key == query and key in NAMES, earliest(indices))
    first = Aggregate("duplicate token", same_name, indices, heads=2)
    repeated = Map("repeated", lambda first, here: "yes" if 0 < first < here else "no", (first, indices))
    inhibited = Select(repeated, tokens, lambda key, query: key == "yes", latest(indices))
    subject = Aggregate("inhibition", inhibited, tokens)
    others = Select(tokens, subject, lambda key, query: key in NAMES and key != query, latest(indices))
    output = Aggregate("name mover", others, tokens, heads=2)

    def algorithm(row: Row) -> list[str | None]:
        names = [word for word in row if word in NAMES]
        (answer,) = [name for name in names if names.count(name) == 1]
        return [*[None] * (LENGTH - 1), answer]

    def sample(rng: np.random.Generator) -> Row:
        one, two = (NAMES[i] for i in rng.permutation(len(NAMES))[:2])
        some = iter([ADVERBS[i] for i in rng.permutation(len(ADVERBS))])
        first, second, third = (list(islice(some, count)) for count in rng.multinomial(2, [1 / 3] * 3))
        giver = (one, two)[int(rng.integers(2))]
        return (BOS, *first, one, "and", two, "met", *second, giver, *third, "gave", "to")

    def groups(row: Row, position: int) -> Mapping[str, Sequence[int]]:
        places = [i for i, word in enumerate(row) if word in NAMES]
        (io,) = [i for i in places[:2] if row[i] != row[places[2]]]
        (s1,) = [i for i in places[:2] if row[i] == row[places[2]]]
        return {"IO": (io,), "S1": (s1,), "S2": (places[2],)}

    def near(row: Row, position: int, rng: np.random.Generator) -> Row:
        """The other name gives, or the two names change places, or the indirect object is someone else."""
        io, s1, s2 = (places[0] for places in groups(row, position).values())
        kind = int(rng.integers(3))
        if kind == 0:
            return changed(row, {s2: row[io]})
        if kind == 1:
            return changed(row, {io: row[s1], s1: row[io], s2: row[io]})
        others = [name for name in NAMES if name not in row]
        return changed(row, {io: others[int(rng.integers(len(others)))]})

    return Program(
        "ioi",
        output,
        Domain(tokens.words, LENGTH, sample, near, groups=groups),
        algorithm,
        acts={"duplicate token": "S2", "repeated": "S2", "inhibition": "asked", "name mover": "asked"},
        looks=(
            ("duplicate token", "S2", "S1"),
            ("inhibition", "asked", "S2"),
            ("name mover", "asked", "IO"),
        ),
        description="Of two names, one of which is said again, the other one.",
    )
