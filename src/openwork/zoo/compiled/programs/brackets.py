"""Balanced brackets of two kinds: the program that needs the most layers."""

from __future__ import annotations

import numpy as np

from openwork.zoo.compiled.language import BOS, Aggregate, Indices, Map, Select, SelectorWidth, Tokens, latest
from openwork.zoo.compiled.program import Domain, Program, Row
from openwork.zoo.compiled.programs.rows import one_changed, pick

PAIRS = {"(": ")", "[": "]"}
BRACKETS = (*PAIRS, *PAIRS.values())
CLOSED, OPEN, WRONG = "closed", "open", "wrong"


def brackets(length: int = 9) -> Program:
    """Whether the brackets so far are closed, can still be closed, or cannot.

    Heads count what opened and what closed, which gives the depth and the level of each bracket. A closing bracket
    belongs to the latest one that opened at its level; if that is of the other kind, or there is none, all is wrong
    from there on.
    """
    row_words = length - 1
    tokens, indices = Tokens(words=(BOS, *BRACKETS, CLOSED, OPEN, WRONG)), Indices(context=length)

    def counted(name: str, those: tuple[str, ...]) -> Map:
        seen = Select(tokens, tokens, lambda key, query: key in those)
        return Map(name, lambda width: width, SelectorWidth(f"1 / (1 + {name})", seen, row_words))

    opened, closed = counted("opened", tuple(PAIRS)), counted("closed", tuple(PAIRS.values()))
    depth = Map("depth", lambda up, down: up - down if up + down <= row_words else None, (opened, closed))
    opens = Map("opens at", lambda depth, word: depth if word in PAIRS else "no", (depth, tokens))
    closes = Map("closes at", lambda depth, word: depth + 1 if word in PAIRS.values() else "none", (depth, tokens))
    partner = Aggregate("partner", Select(opens, closes, lambda key, query: key == query, latest(indices)), tokens)
    fault = Map("fault", lambda word, other: word in PAIRS.values() and PAIRS.get(other) != word, (tokens, partner))
    # where the latest fault is, 0 if there is none
    faulty = Aggregate("faulty", Select(fault, tokens, lambda key, query: key, latest(indices)), indices)
    output = Map("state", lambda at, depth: WRONG if at else OPEN if depth else CLOSED, (faulty, depth))

    def algorithm(row: Row) -> list[str | None]:
        answers: list[str | None] = [None]
        stack: list[str] = []
        wrong = False
        for word in row[1:]:
            if word in PAIRS:
                stack.append(PAIRS[word])
            else:
                wrong = wrong or not stack or stack.pop() != word
            answers.append(WRONG if wrong else OPEN if stack else CLOSED)
        return answers

    def sample(rng: np.random.Generator) -> Row:
        """Brackets that close what is open, but for a mistake now and then, or any brackets at all."""
        row, stack = [BOS], []
        mistakes = 1.0 if rng.random() < 0.1 else 0.05
        for _ in range(row_words):
            if rng.random() < mistakes:
                row.append(pick(BRACKETS, rng))
            elif stack and rng.random() < 0.65:
                row.append(stack.pop())
            else:
                row.append(pick(tuple(PAIRS), rng))
                stack.append(PAIRS[row[-1]])
        return tuple(row)

    return Program(
        "brackets",
        output,
        Domain(tokens.words, length, sample, one_changed(BRACKETS)),
        algorithm,
        acts={"faulty": "asked", "state": "asked"},
        description="Whether brackets of two kinds up to each position are closed, can still be, or are wrong.",
    )
