"""All kinds of sentences, drawn one at a time or as the text that a model is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from openwork.errors import BadInput, UnknownName
from openwork.worlds.corpus import Split
from openwork.worlds.sentences import grammar, names, opinions, questions, words, years
from openwork.worlds.sentences.facts import RELATIONS, absent, fact
from openwork.worlds.sentences.sentence import WORLD, Sentence, World

KINDS: dict[str, Callable[[np.random.Generator, World], Sentence]] = {
    "ioi": names.ioi,
    "ioi_names": names.ioi_names,
    "greater_than": years.greater_than,
    "agreement": grammar.agreement,
    "fact": fact,
    "absent": absent,
    "gender": opinions.gender,
    "sentiment": opinions.sentiment,
    "negation": opinions.negation,
    "choice": questions.choice,
}
"""Kind -> how one is drawn."""

MIX = {
    "ioi": 0.14,
    "ioi_names": 0.12,
    "greater_than": 0.08,
    "agreement": 0.12,
    "fact": 0.14,
    "gender": 0.05,
    "sentiment": 0.05,
    "negation": 0.14,
    "choice": 0.16,
}
"""Kind -> share of the sentences of training."""


def sentence(
    kind: str, rng: np.random.Generator, *, world: World = WORLD, split: Split | None = "held-out"
) -> Sentence:
    """Draw a sentence.

    Args:
        kind: one of `KINDS`.
        rng: source of randomness; the same state gives the same sentence.
        world: what holds in it.
        split: only of combinations that training states, only of those that it never does, or either (None).

    Raises:
        UnknownName: if there is no such kind.
        BadInput: if facts that training never states are asked of it.
    """
    if kind not in KINDS:
        raise UnknownName.among("kind of sentence", kind, KINDS)
    if kind == "absent" and split == "train":
        raise BadInput("expected split 'held-out' for absent facts, since training states none of them; got 'train'")
    draw = KINDS[kind]
    while True:
        drawn = draw(rng, world)
        if split is None or drawn.held_out == (split == "held-out"):
            return drawn


def stream(
    rng: np.random.Generator, *, world: World = WORLD, mix: Mapping[str, float] = MIX, split: Split = "train"
) -> Iterator[Sentence]:
    """Sentences without end, of all kinds.

    Args:
        rng: source of randomness.
        world: what holds in them.
        mix: kind -> share; shares are relative.
        split: "train", or "held-out" for text of combinations that training never states.

    Raises:
        BadInput: if a share is negative or none is positive.
        UnknownName: if there is no such kind.
    """
    shares = np.asarray(list(mix.values()), dtype=float)
    if not (len(shares) and (shares >= 0).all() and shares.sum() > 0):
        raise BadInput(f"expected shares of at least 0, one of them positive; got {dict(mix)}")
    kinds, ends = list(mix), np.cumsum(shares / shares.sum())
    while True:
        kind = kinds[min(int(np.searchsorted(ends, rng.random(), side="right")), len(kinds) - 1)]
        yield sentence(kind, rng, world=world, split=split)


def vocabulary() -> tuple[str, ...]:
    """Every word that can occur, in an order that never changes."""
    templates = (*names.TWO, *names.THREE, *names.FOUR, *years.TEMPLATES, *grammar.SUBJECTS, *opinions.OCCUPATION,
                 *opinions.CONTRARY, *questions.OPTIONS)  # fmt: skip
    templates += tuple(template for relation in RELATIONS for template in relation.templates)
    templates += tuple(template for template, _ in (*opinions.FEELING, *opinions.DENIED, *questions.STATED))
    templates += tuple(tail for _, _, tail in grammar.TENSES)
    fixed = [word for template in templates for word in template.split() if word[0] != "{" and word != "|"]
    outcomes = [word for _, pair in (*opinions.FEELING, *opinions.DENIED) for word in pair]
    tenses = [word for time, forms, _ in grammar.TENSES for word in (time, *forms)]
    lists = (
        fixed, questions.LETTERS, outcomes, tenses, grammar.NEAR, opinions.PRONOUNS, opinions.AFFIRMED, ["not"],
        words.YEARS, words.CENTURIES, words.NAMES, words.OBJECTS, words.PLACES, words.CONTAINERS, words.FOODS,
        words.COLORS, words.ANIMALS, words.NOUNS, map(words.plural, words.NOUNS), words.VERBS,
        map(words.third_person, words.VERBS), words.NEUTRAL, words.POSITIVE, words.NEGATIVE,
        [word for pair in words.ANTONYMS for word in pair], words.WORKS, words.FOLLOWED_BY_SHE, words.FOLLOWED_BY_HE,
        words.EVENTS, words.INSTRUMENTS, words.FIELDS, words.GOODS, words.PRODUCTS, words.PEOPLE, words.CITIES,
        words.COUNTRIES, words.COMPANIES, words.LANGUAGES,
    )  # fmt: skip
    return tuple(dict.fromkeys(word for part in lists for word in part))
