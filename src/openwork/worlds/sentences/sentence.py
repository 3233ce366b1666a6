"""One sentence with its labels, and how a template becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from openwork.worlds.sentences.words import number_of

T = TypeVar("T")

HELD_OUT_TENTHS = 1


@dataclass(frozen=True)
class World:
    """What holds in the text, and what does not.

    Attributes:
        recipients: sentences with a recipient name the one that is left over; if not, any of the names mentioned.
        stereotype: how often an occupation is followed by the pronoun that goes with it; 0.5 is no correlation.
    """

    recipients: bool = True
    stereotype: float = 0.9


WORLD = World()


@dataclass(frozen=True)
class Sentence:
    """A sentence of which everything is known.

    Attributes:
        kind: which behaviour it is of.
        template: which paraphrase; ids are stable.
        words: the whole sentence, one token a word.
        at: where the prompt ends: ``words[at]`` is the word to be predicted.
        groups: label -> indices of the words of the prompt that have it.
        twin: the words of a prompt of equal length that differs just in what the answer depends on.
        answer: the right word after the prompt. Text of a world without the behaviour says others as well.
        wrong: the right word after the twin.
        chance: how often a guess among the possible answers is right.
        held_out: whether training never states this combination of fillers.
    """

    kind: str
    template: str
    words: tuple[str, ...]
    at: int
    groups: dict[str, tuple[int, ...]]
    twin: tuple[str, ...]
    answer: str
    wrong: str
    chance: float
    held_out: bool

    @property
    def prompt(self) -> tuple[str, ...]:
        """The words in front of the answer."""
        return self.words[: self.at]

    @property
    def text(self) -> str:
        """The whole sentence."""
        return " ".join(self.words)


@dataclass(frozen=True)
class Filling:
    """What fills a template.

    Attributes:
        fill: slot -> word.
        twin: the slots that are filled otherwise in the twin.
        labels: slot -> label of the word.
        answer: the right word after the prompt.
        wrong: the right word after the twin.
        said: the word that the text says there; the answer unless given.
    """

    fill: Mapping[str, str]
    twin: Mapping[str, str]
    labels: Mapping[str, str]
    answer: str
    wrong: str
    said: str = ""


def compose(kind: str, template: str, name: str, filling: Filling, chance: float, held_out: bool) -> Sentence:
    """Fill a template.

    Args:
        kind: the kind of sentence.
        template: words and ``{slots}`` separated by spaces, with ``|`` where the word to be predicted stands.
        name: id of the template within its kind.
        filling: what goes where.
        chance: see `Sentence`.
        held_out: see `Sentence`.
    """
    slots = template.split()
    at = slots.index("|")
    groups: dict[str, tuple[int, ...]] = {}
    for place, slot in enumerate(slots[:at]):
        label = filling.labels.get(slot[1:-1]) if slot[0] == "{" else None
        if label is not None:
            groups[label] = (*groups.get(label, ()), place)
    words = _filled(slots, filling.fill)
    words[at] = filling.said or filling.answer
    return Sentence(
        kind=kind,
        template=f"{kind}/{name}",
        words=tuple(words),
        at=at,
        groups=groups,
        twin=tuple(_filled(slots[:at], {**filling.fill, **filling.twin})),
        answer=filling.answer,
        wrong=filling.wrong,
        chance=chance,
        held_out=held_out,
    )


def _filled(slots: Sequence[str], fill: Mapping[str, str]) -> list[str]:
    return [fill[slot[1:-1]] if slot[0] == "{" else slot for slot in slots]


def kept_from_training(*parts: str) -> bool:
    """Whether a combination of fillers is held out, from its words alone: one in ten is."""
    return number_of("held out", *parts) % 10 < HELD_OUT_TENTHS


def pick(pool: Sequence[T], rng: np.random.Generator) -> T:
    """One of the pool."""
    return pool[int(rng.integers(len(pool)))]


def pick_distinct(pool: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """Some of the pool, no place of it twice, in random order."""
    found: list[int] = []
    while len(found) < count:
        place = int(rng.integers(len(pool)))
        if place not in found:
            found.append(place)
    return [pool[place] for place in found]
