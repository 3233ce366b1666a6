"""Multiple-choice questions: which letter stands in front of what was stated?"""

from __future__ import annotations

import numpy as np

from openwork.worlds.sentences.sentence import (
    Filling,
    Sentence,
    World,
    compose,
    kept_from_training,
    pick,
    pick_distinct,
)
from openwork.worlds.sentences.words import ANIMALS, COLORS, CONTAINERS, FOODS, NAMES, OBJECTS

STATED = (
    ("{name} put the {object} in the {stated} . where is the {object} ?", CONTAINERS),
    ("{name} ate {stated} . what did {name} eat ?", FOODS),
    ("the {object} of {name} is {stated} . what color is the {object} ?", COLORS),
    ("{name} saw a {stated} . what did {name} see ?", ANIMALS),
)
OPTIONS = ("{l0} ) {o0} {l1} ) {o1} answer : | .", "{l0} ) {o0} {l1} ) {o1} {l2} ) {o2} answer : | .")
LETTERS = ("A", "B", "C")


def choice(rng: np.random.Generator, world: World) -> Sentence:
    """A statement, a question, two or three options, and the letter of the right one.

    The twin states another of the options.

    Labels: "stated", "option" (the right one), "rival option" (the one that the twin states), "letter" (of the right
    one), "rival letter".
    """
    index, more = int(rng.integers(len(STATED))), int(rng.integers(2))
    statement, pool = STATED[index]
    options = pick_distinct(pool, 2 + more, rng)
    right, rival = pick_distinct(range(len(options)), 2, rng)
    filling = Filling(
        fill={"name": pick(NAMES, rng), "object": pick(OBJECTS, rng), "stated": options[right],
              **{f"o{i}": option for i, option in enumerate(options)},
              **{f"l{i}": letter for i, letter in enumerate(LETTERS)}},
        twin={"stated": options[rival]},
        labels={"stated": "stated", f"o{right}": "option", f"o{rival}": "rival option", f"l{right}": "letter",
                f"l{rival}": "rival letter"},
        answer=LETTERS[right],
        wrong=LETTERS[rival],
    )  # fmt: skip
    template, held_out = f"{statement} {OPTIONS[more]}", kept_from_training("choice", *sorted(options))
    return compose("choice", template, f"{index}/{len(options)}", filling, 1 / len(options), held_out)
