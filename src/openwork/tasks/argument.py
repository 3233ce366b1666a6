"""Argument copying: ``def __init__(self, size, mode): self.size = size; self.mode =`` predicts ``mode``."""

from __future__ import annotations

import random

from openwork.task import Task
from openwork.tasks.examples import Example, assemble, require_count
from openwork.tasks.names import single_tokens
from openwork.tasks.reader import Reader, Vocabulary
from openwork.tasks.source import Source, require_no_source

FEWEST, MOST = 3, 5


def argument(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """A constructor that stores its arguments in any order, cut after an attribute: which argument comes next?

    The corrupted prompt ends in another attribute that is not stored yet, so that its argument is right instead.

    Args:
        vocabulary: a tokenizer or network.
        n: number of examples.
        seed: of the names, their order and the split.
        source: has no meaning here and must be None.

    Returns:
        The task; token groups "arguments" (in the signature), "argument" (the right one for the clean prompt),
        "rival argument" (the right one for the corrupted prompt), "attribute" (which decides) and "last".

    Raises:
        BadInput: if too few names are single tokens, or a source is given.
    """
    require_count("argument", n)
    require_no_source("argument", source)
    reader, rng = Reader.of(vocabulary), random.Random(seed)
    spaced = set(single_tokens(reader, "self, ", MOST))
    names = single_tokens(
        reader, "self.", MOST, tuple(name for name in single_tokens(reader, "= ", MOST) if name in spaced)
    )
    examples, chances = [], []
    while len(examples) < n:
        arguments = rng.sample(names, rng.randint(FEWEST, MOST))
        stored = rng.sample(arguments, rng.randint(1, len(arguments) - 2))
        right, other = rng.sample([name for name in arguments if name not in stored], 2)
        examples.append(_example(reader, arguments, stored, right, other))
        chances.append(1 / len(arguments))
    return assemble("argument", examples, seed, sum(chances) / n, "self.name = is followed by the argument name")


def _example(reader: Reader, arguments: list[str], stored: list[str], right: str, other: str) -> Example:
    text = f"    def __init__(self, {', '.join(arguments)}):\n"
    places = {name: text.index(f" {name}") for name in arguments}
    text += "".join(f"        self.{name} = {name}\n" for name in stored)
    clean, corrupted = (f"{text}        self.{name} =" for name in (right, other))
    spans = {name: reader.positions(clean, at, at + 1 + len(name)) for name, at in places.items()}
    attribute = len(text) + len("        self.")
    groups = {
        "arguments": tuple(p for name in arguments for p in spans[name]),
        "argument": spans[right],
        "rival argument": spans[other],
        "attribute": reader.positions(clean, attribute, attribute + len(right)),
    }
    answer, wrong = reader.continuation(clean, f" {right}")[0], reader.continuation(clean, f" {other}")[0]
    return Example(reader.ids(clean), reader.ids(corrupted), answer, wrong, groups)
