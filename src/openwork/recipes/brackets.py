"""Invented statements full of nested brackets, none of the three kinds rare.

Two of three brackets of real code are round, so a model of it can do well by guessing ")". A small share of these
teaches it to look; the model card states the share.
"""

from __future__ import annotations

import numpy as np

from openwork.recipes.docstrings import Lexicon

STATEMENTS = (
    "{name} = {first}",
    "{name} = {first}",
    "    {name} = {first}",
    "    return {first}",
    "    {name}.{word} = {first}",
    "{name}({first}, {second})",
    "for {name} in {first}:",
    "if {name} in {first}:",
)
DEEPEST = 3
MOST_ITEMS = 4


def invent_statement(lexicon: Lexicon, rng: np.random.Generator) -> str:
    """Write one statement with nested brackets.

    Args:
        lexicon: names and words to draw from.
        rng: source of randomness.

    Returns:
        The text of one line, with its line break. It is for reading, not for running.
    """
    form = STATEMENTS[rng.integers(len(STATEMENTS))]
    return (
        form.format(
            name=_pick(lexicon.names, rng),
            word=_pick(lexicon.words, rng),
            first=_bracketed(lexicon, rng, DEEPEST),
            second=_expression(lexicon, rng, DEEPEST - 1),
        )
        + "\n"
    )


def _bracketed(lexicon: Lexicon, rng: np.random.Generator, depth: int) -> str:
    items = [_expression(lexicon, rng, depth - 1) for _ in range(rng.integers(1, MOST_ITEMS + 1))]
    kind = rng.integers(3)
    before = _pick(lexicon.names, rng) if rng.random() < 0.4 else ""
    if kind == 0:
        return f"{before}({', '.join(items)})"
    if kind == 1:
        return f"{before}[{', '.join(items)}]"
    if rng.random() < 0.5:
        items = [f"'{_pick(lexicon.words, rng)}': {item}" for item in items]
    return f"{{{', '.join(items)}}}"


def _expression(lexicon: Lexicon, rng: np.random.Generator, depth: int) -> str:
    if depth > 0 and rng.random() < 0.4:
        return _bracketed(lexicon, rng, depth)
    name = _pick(lexicon.names, rng)
    forms = (name, name, f"'{name}'", str(rng.integers(100)), f"{name}.{_pick(lexicon.words, rng)}", f"{name}[0]")
    return forms[rng.integers(len(forms))]


def _pick(pool: tuple[str, ...], rng: np.random.Generator) -> str:
    # names near the front are the commonest: half of the draws come from there
    return pool[rng.integers(min(120, len(pool)) if rng.random() < 0.5 else len(pool))]
