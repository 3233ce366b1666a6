"""The docstring task: a docstring lists the arguments in order; which one comes next?

Source: Heimersheim and Janiak 2023, A circuit for Python docstrings in a 4-layer attention-only transformer.
"""

from __future__ import annotations

import random

from openwork.task import Task
from openwork.tasks.examples import Example, assemble, require_count
from openwork.tasks.names import PROSE, single_tokens
from openwork.tasks.reader import Reader, Vocabulary
from openwork.tasks.source import Source, require_no_source

FEWEST, MOST = 5, 7
OPEN = 4
"""Arguments not yet named at least, so that chance is at most a quarter."""


def docstring(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """A method whose docstring has named some of its arguments in order, cut after ``:param``.

    The corrupted prompt has the next argument and another one that is not named yet exchanged in the signature, so
    that the other one is right. Chance is one over the arguments not yet named.

    Args:
        vocabulary: a tokenizer or network.
        n: number of examples.
        seed: of the names, the words and the split.
        source: has no meaning here and must be None.

    Returns:
        The task; token groups "arguments" (in the signature), "next argument" (of the signature, the right one),
        "exchanged argument" (with which it changes places), "previous argument" (of the signature, named last),
        "previous mention" (of the docstring, the same name) and "last".

    Raises:
        BadInput: if too few names are single tokens, or a source is given.
    """
    require_count("docstring", n)
    require_no_source("docstring", source)
    reader, rng = Reader.of(vocabulary), random.Random(seed)
    mentioned = set(single_tokens(reader, ":param ", MOST))
    names = [name for name in single_tokens(reader, "self, ", MOST) if name in mentioned]
    examples, chances = [], []
    while len(examples) < n:
        arguments = rng.sample(names, rng.randint(FEWEST, MOST))
        named = rng.randint(1, len(arguments) - OPEN)
        examples.append(_example(reader, arguments, named, rng))
        chances.append(1 / (len(arguments) - named))
    return assemble(
        "docstring", examples, seed, sum(chances) / n, "a docstring names the next argument of its function"
    )


def _example(reader: Reader, arguments: list[str], named: int, rng: random.Random) -> Example:
    other = rng.randrange(named + 1, len(arguments))
    exchanged = arguments.copy()
    exchanged[named], exchanged[other] = arguments[other], arguments[named]
    name, title = rng.choice(PROSE), _words(rng)
    lines = "".join(f"        :param {argument}: {_words(rng)}\n" for argument in arguments[:named])
    head, body = f"    def {name}(self", f'):\n        """{title}\n\n{lines}        :param'
    clean, corrupted = (head + "".join(f", {a}" for a in order) + body for order in (arguments, exchanged))
    places, at = [], len(head)
    for argument in arguments:
        places.append(reader.positions(clean, at + 1, at + 2 + len(argument)))
        at += 2 + len(argument)
    previous = arguments[named - 1]
    mention = clean.rindex(f":param {previous}:") + len(":param")
    groups = {
        "arguments": tuple(p for place in places for p in place),
        "next argument": places[named],
        "exchanged argument": places[other],
        "previous argument": places[named - 1],
        "previous mention": reader.positions(clean, mention, mention + 1 + len(previous)),
    }
    answer, wrong = (reader.continuation(clean, f" {order[named]}")[0] for order in (arguments, exchanged))
    return Example(reader.ids(clean), reader.ids(corrupted), answer, wrong, groups)


def _words(rng: random.Random) -> str:
    return " ".join(rng.sample(PROSE, rng.randint(1, 4)))
