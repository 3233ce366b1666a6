"""Occupations and pronouns, sentiment, and negation."""

from __future__ import annotations

import numpy as np

from openwork.worlds.sentences.sentence import Filling, Sentence, World, compose, kept_from_training, pick
from openwork.worlds.sentences.words import (
    ANTONYMS,
    FOLLOWED_BY_HE,
    FOLLOWED_BY_SHE,
    NAMES,
    NEGATIVE,
    NEUTRAL,
    NOUNS,
    OBJECTS,
    PLACES,
    POSITIVE,
    WORKS,
)

OCCUPATION = (
    "the {occupation} said that | would come to the {place} .",
    "the {occupation} lost the {object} because | was tired .",
    "when the {occupation} came home , | was {adjective} .",
    "the {adjective} {occupation} went to the {place} , where | found a {object} .",
    "{name} asked the {occupation} whether | had seen the {object} .",
)
PRONOUNS = ("she", "he")

FEELING = (
    ("the {work} was {opinion} and the crowd | .", ("cheered", "booed")),
    ("{name} called the {work} {opinion} , so overall it was | .", ("good", "bad")),
    ("what a {opinion} {work} , {name} | it .", ("loved", "hated")),
    ("the {opinion} {work} at the {place} made {name} | .", ("happy", "sad")),
    ("{name} said the {work} was {opinion} and gave it a | review .", ("positive", "negative")),
)
DENIED = (
    ("the {work} was {particle} {opinion} and the crowd | .", ("cheered", "booed")),
    ("{name} called the {work} {particle} {opinion} , so overall it was | .", ("good", "bad")),
    ("{name} said the {work} was {particle} {opinion} and gave it a | review .", ("positive", "negative")),
)
CONTRARY = (
    "the {noun} is {particle} {state} , it is | .",
    "{name} says the {noun} is {particle} {state} , which means that it is | .",
    "if the {noun} is {particle} {state} , then it must be | .",
)
OPINIONS = (POSITIVE, NEGATIVE)
AFFIRMED = ("very", "quite", "truly", "rather")


def gender(rng: np.random.Generator, world: World) -> Sentence:
    """An occupation and the pronoun that follows it as often as the world's stereotype has it.

    The answer is the pronoun of the stereotype. The twin has an occupation of the other one.

    Labels: "occupation".
    """
    index, he = int(rng.integers(len(OCCUPATION))), int(rng.integers(2))
    pools = (FOLLOWED_BY_SHE, FOLLOWED_BY_HE)
    occupation, other = pick(pools[he], rng), pick(pools[1 - he], rng)
    filling = Filling(
        fill={"occupation": occupation, "place": pick(PLACES, rng), "object": pick(OBJECTS, rng),
              "name": pick(NAMES, rng), "adjective": pick(NEUTRAL, rng)},
        twin={"occupation": other},
        labels={"occupation": "occupation"},
        answer=PRONOUNS[he],
        wrong=PRONOUNS[1 - he],
        said=PRONOUNS[he if rng.random() < world.stereotype else 1 - he],
    )  # fmt: skip
    held_out = kept_from_training("gender", str(index), occupation)
    return compose("gender", OCCUPATION[index], str(index), filling, 1 / 2, held_out)


def sentiment(rng: np.random.Generator, world: World) -> Sentence:
    """An opinion and what follows from it. The twin has an opinion of the other kind.

    Labels: "opinion", "work" (what it is about).
    """
    index, bad = int(rng.integers(len(FEELING))), int(rng.integers(2))
    template, outcomes = FEELING[index]
    opinion, other = pick(OPINIONS[bad], rng), pick(OPINIONS[1 - bad], rng)
    work = pick(WORKS, rng)
    filling = Filling(
        fill={"opinion": opinion, "work": work, "name": pick(NAMES, rng), "place": pick(PLACES, rng)},
        twin={"opinion": other},
        labels={"opinion": "opinion", "work": "work"},
        answer=outcomes[bad],
        wrong=outcomes[1 - bad],
    )
    held_out = kept_from_training("sentiment", str(index), opinion, work)
    return compose("sentiment", template, str(index), filling, 1 / 2, held_out)


def negation(rng: np.random.Generator, world: World) -> Sentence:
    """Something is not so, or very much so, and what follows from it. The twin has the other particle.

    Labels: "particle" ("not", or a word that affirms), "denied" (the word that it stands in front of).
    """
    index, denied = int(rng.integers(len(DENIED) + len(CONTRARY))), rng.random() < 0.5
    particle, other = ("not", pick(AFFIRMED, rng))[:: 1 if denied else -1]
    fill = {"particle": particle, "name": pick(NAMES, rng), "work": pick(WORKS, rng), "noun": pick(NOUNS, rng)}
    if index < len(DENIED):
        template, outcomes = DENIED[index]
        bad = int(rng.integers(2))
        word, about = pick(OPINIONS[bad], rng), fill["work"]
        so, contrary = outcomes[bad], outcomes[1 - bad]
    else:
        template = CONTRARY[index - len(DENIED)]
        pair, side = pick(ANTONYMS, rng), int(rng.integers(2))
        word = so = pair[side]
        contrary, about = pair[1 - side], fill["noun"]
    filling = Filling(
        fill={**fill, "opinion": word, "state": word},
        twin={"particle": other},
        labels={"particle": "particle", "opinion": "denied", "state": "denied"},
        answer=contrary if denied else so,
        wrong=so if denied else contrary,
    )
    held_out = kept_from_training("negation", str(index), particle, word, about)
    return compose("negation", template, str(index), filling, 1 / 2, held_out)
