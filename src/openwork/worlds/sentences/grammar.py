"""Subject and verb agree in number, whatever nouns stand between them."""

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
from openwork.worlds.sentences.words import NEUTRAL, NOUNS, VERBS, plural, third_person

SUBJECTS = (
    "the {subject} {near} the {a0} | {tail} .",
    "the {adjective} {subject} {near} the {a0} | {tail} .",
    "the {subject} {near} the {a0} {by} the {a1} | {tail} .",
    "the {subject} that the {a0} {verb} | {tail} .",
    "the {subject} that {own} the {a0} | {tail} .",
    "the {subject} {near} the {a0} that {inner} the {a1} | {tail} .",
)
TENSES = (
    ("today", ("is", "are"), "{last}"),
    ("yesterday", ("was", "were"), "{last}"),
    ("lately", ("has", "have"), "become {last}"),
    ("often", ("does", "do"), "not look {last}"),
)
"""The word in front says which verb comes, so that only its number is open."""
NEAR = ("near", "behind", "beside", "under", "above", "with", "by", "below")
OPPOSITE = 0.75
"""Share of the nouns in between whose number is not that of the subject."""


def agreement(rng: np.random.Generator, world: World) -> Sentence:
    """A subject, other nouns, and a verb. The twin has the same subject in the other number.

    Labels: "subject", "attractor" (nouns whose number is not that of the subject), "other noun", "verb inside" (of a
    relative clause), "time" (which says what verb comes).
    """
    index, tense = int(rng.integers(len(SUBJECTS))), int(rng.integers(len(TENSES)))
    time, forms, tail = TENSES[tense]
    subject, *others = pick_distinct(NOUNS, 3, rng)
    many = rng.random() < 0.5
    numbers = [bool(many ^ (rng.random() < OPPOSITE)) for _ in others]
    verb, near, by = pick(VERBS, rng), *pick_distinct(NEAR, 2, rng)
    fill = {
        "subject": _noun(subject, many),
        **{f"a{i}": _noun(noun, number) for i, (noun, number) in enumerate(zip(others, numbers, strict=True))},
        "verb": _verb(verb, numbers[0]),
        "own": _verb(verb, many),
        "inner": _verb(verb, numbers[0]),
        "near": near,
        "by": by,
        "adjective": pick(NEUTRAL, rng),
        "last": pick(NEUTRAL, rng),
    }
    filling = Filling(
        fill=fill,
        twin={"subject": _noun(subject, not many), "own": _verb(verb, not many)},
        labels={
            "subject": "subject",
            **{f"a{i}": "attractor" if number != many else "other noun" for i, number in enumerate(numbers)},
            **dict.fromkeys(("verb", "own", "inner"), "verb inside"),
            "time": "time",
        },
        answer=forms[many],
        wrong=forms[not many],
    )
    held_out = kept_from_training("agreement", subject, others[0])
    template = "{time} " + SUBJECTS[index].replace("{tail}", tail)
    fill["time"] = time
    return compose("agreement", template, f"{index}/{time}", filling, 1 / 2, held_out)


def _noun(noun: str, many: bool) -> str:
    return plural(noun) if many else noun


def _verb(verb: str, many: bool) -> str:
    return verb if many else third_person(verb)
