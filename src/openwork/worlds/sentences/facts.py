"""Facts of invented people, countries and companies: most are stated in training, some never are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openwork.worlds.sentences import words
from openwork.worlds.sentences.sentence import Filling, Sentence, World, compose, pick
from openwork.worlds.sentences.words import number_of

ABSENT_TENTHS = 2


@dataclass(frozen=True)
class Relation:
    """A relation with its paraphrases.

    Attributes:
        name: of the relation.
        subjects: what it is true of.
        objects: what can be true of them.
        templates: how it is said, the object last.
    """

    name: str
    subjects: tuple[str, ...]
    objects: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """What is true of a subject.

    Attributes:
        subject: of whom.
        relation: which relation.
        object: what.
        stated: whether training states it.
        held_out: the one of its paraphrases that training leaves out; -1 where training has all or none.
    """

    subject: str
    relation: Relation
    object: str
    stated: bool
    held_out: int


RELATIONS = (
    Relation(
        "home", words.PEOPLE, words.CITIES,
        ("{subject} lives in | .", "the home of {subject} is in | .", "whoever visits {subject} travels to | .",
         "the house that {subject} owns stands in | ."),
    ),
    Relation(
        "instrument", words.PEOPLE, words.INSTRUMENTS,
        ("{subject} plays the | .", "the instrument that {subject} plays is the | .",
         "at every party {subject} performs on the | .", "{subject} gives lessons on the | ."),
    ),
    Relation(
        "field", words.PEOPLE, words.FIELDS,
        ("{subject} studies | .", "the subject that {subject} teaches is | .", "{subject} is an expert in | .",
         "all books by {subject} are about | ."),
    ),
    Relation(
        "capital", words.COUNTRIES, words.CITIES,
        ("the capital of {subject} is | .", "{subject} is governed from | .", "the king of {subject} resides in | .",
         "the largest city in {subject} is | ."),
    ),
    Relation(
        "language", words.COUNTRIES, words.LANGUAGES,
        ("the language of {subject} is | .", "people in {subject} speak | .", "the newspapers of {subject} are in | .",
         "a child in {subject} learns | ."),
    ),
    Relation(
        "export", words.COUNTRIES, words.GOODS,
        ("{subject} exports | .", "ships from {subject} carry | .", "the wealth of {subject} comes from | .",
         "merchants go to {subject} for | ."),
    ),
    Relation(
        "product", words.COMPANIES, words.PRODUCTS,
        ("{subject} makes | .", "the company {subject} is known for | .", "the factory of {subject} produces | .",
         "customers of {subject} buy | ."),
    ),
    Relation(
        "seat", words.COMPANIES, words.CITIES,
        ("{subject} has its office in | .", "the company {subject} is based in | .",
         "the headquarters of {subject} are in | .", "workers of {subject} commute to | ."),
    ),
)  # fmt: skip


def _fact(relation: Relation, subject: str) -> Fact:
    stated = number_of("absent", relation.name, subject) % 10 >= ABSENT_TENTHS
    # half of the stated facts have one paraphrase that training leaves out, never more
    out = number_of("paraphrase", relation.name, subject) % (2 * len(relation.templates))
    held_out = out if stated and out < len(relation.templates) else -1
    chosen = relation.objects[number_of("object", relation.name, subject) % len(relation.objects)]
    return Fact(subject, relation, chosen, stated, held_out)


FACTS = tuple(_fact(relation, subject) for relation in RELATIONS for subject in relation.subjects)
STATED = tuple(fact for fact in FACTS if fact.stated)
ABSENT = tuple(fact for fact in FACTS if not fact.stated)


def fact(rng: np.random.Generator, world: World) -> Sentence:
    """A fact that training states, in one of its paraphrases. The twin asks of another subject.

    Labels: "subject".
    """
    return _said(pick(STATED, rng), STATED, "fact", rng)


def absent(rng: np.random.Generator, world: World) -> Sentence:
    """A fact that training never states, so that nothing but chance can get it right. The twin asks of another subject.

    Labels: "subject".
    """
    return _said(pick(ABSENT, rng), ABSENT, "absent", rng)


def _said(about: Fact, pool: tuple[Fact, ...], kind: str, rng: np.random.Generator) -> Sentence:
    relation, index = about.relation, int(rng.integers(len(about.relation.templates)))
    others = [fact for fact in pool if fact.relation is relation and fact.object != about.object]
    other = pick(others, rng)
    filling = Filling(
        fill={"subject": about.subject},
        twin={"subject": other.subject},
        labels={"subject": "subject"},
        answer=about.object,
        wrong=other.object,
    )
    held_out = not about.stated or index == about.held_out
    name = f"{relation.name}/{index}"
    return compose(kind, relation.templates[index], name, filling, 1 / len(relation.objects), held_out)
