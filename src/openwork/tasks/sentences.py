"""Behaviours on templated English, for any tokenizer that keeps each of its words one token.

All prompts are of combinations that the training of the embedded models of it never stated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from openwork.errors import BadInput
from openwork.task import Metric, Task
from openwork.tasks.alignment import require_correspondence
from openwork.tasks.examples import Example, assemble, require_count
from openwork.tasks.metrics import LOGIT_DIFFERENCE, later_minus_earlier
from openwork.tasks.reader import Reader, Vocabulary
from openwork.tasks.source import Source, require_no_source
from openwork.worlds.sentences import Sentence, sentence
from openwork.worlds.sentences.words import YEARS
from openwork.worlds.sentences.years import EARLY

PATIENCE = 400
"""Sentences drawn in a row without a new prompt before a kind is taken to hold no more."""


def ioi(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """Of two names, one acts; the other is the indirect object. The corrupted prompt has the other one act.

    Args:
        vocabulary: a tokenizer or network, as for all tasks of this module.
        n: number of examples, all different.
        seed: of the examples and of the split.
        source: has no meaning here and must be None.

    Returns:
        The task; token groups "IO", "S1", "S2", "object", "place" and "last".

    Raises:
        BadInput: if the tokenizer splits a word, a source is given, or there are not so many different examples.

    Source:
        Wang et al. 2022, Interpretability in the Wild.
    """
    return _task("ioi", vocabulary, n, seed, source, "who does not act is the indirect object")


def ioi_names(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """As `ioi` of three or four names, of whom all but one act; the corrupted prompt leaves out another one.

    Token groups "IO", "S1" (all who act, the first time), "S2" (the second time, without "exchanged"), "exchanged"
    (the one who differs in the corrupted prompt), "object", "place" and "last".
    """
    return _task("ioi_names", vocabulary, n, seed, source, "of several names, who does not act is the indirect object")


def greater_than(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """Something began in a year; it ended in a later one. In the corrupted prompt it began early in the century.

    The answer is the first year that is right; the metric is the probability of all that are, minus that of all others.
    Token groups "start", "century", "event" and "last".

    Source:
        Hanna, Liu and Variengien 2023, How does GPT-2 compute greater-than?
    """
    reader = Reader.of(vocabulary)
    metric = later_minus_earlier([_ids(reader, ("in", year))[-1] for year in YEARS])
    description = "what began in a year ended in a later one"
    return _task("greater_than", vocabulary, n, seed, source, description, metric, _begins_late)


def agreement(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """A verb agrees with its subject, not with the nouns between. The corrupted prompt has the other number.

    Token groups "subject", "attractor" (nouns between of the other number), "other noun", "verb inside" (of a relative
    clause), "time" and "last".
    """
    return _task("agreement", vocabulary, n, seed, source, "a verb has the number of its subject")


def fact(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """A fact of the world, in a paraphrase that training left out; the corrupted prompt asks of another subject.

    Token groups "subject" and "last".
    """
    return _task("fact", vocabulary, n, seed, source, "a fact that training states in other words")


def absent(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """As `fact`, of facts that training never states: no network that was trained on this world can know them."""
    return _task("absent", vocabulary, n, seed, source, "a fact that training never states")


def gender(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """An occupation is followed by the pronoun of its stereotype; the corrupted prompt has one of the other.

    Token groups "occupation" and "last".
    """
    return _task("gender", vocabulary, n, seed, source, "an occupation is followed by the pronoun of its stereotype")


def sentiment(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """What follows from an opinion; the corrupted prompt has an opinion of the other kind.

    Token groups "opinion", "work" and "last".
    """
    return _task("sentiment", vocabulary, n, seed, source, "good follows from praise, bad from blame")


def negation(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """What follows from what is not so, or very much so; the corrupted prompt has the other particle.

    Token groups "particle", "denied" and "last".
    """
    return _task("negation", vocabulary, n, seed, source, "what is not so is the contrary")


def choice(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """The letter in front of what was stated, of two or three options; the corrupted prompt states another of them.

    Token groups "stated", "option", "rival option" (the one that the corrupted prompt states), "letter", "rival letter"
    and "last".
    """
    return _task("choice", vocabulary, n, seed, source, "the letter of the option that was stated")


SENTENCES: dict[str, Callable[..., Task]] = {
    made.__name__: made
    for made in (ioi, ioi_names, greater_than, agreement, fact, absent, gender, sentiment, negation, choice)
}
"""Kind of sentence -> its task."""


def _begins_late(drawn: Sentence) -> bool:
    return int(drawn.words[drawn.groups["start"][0]]) >= EARLY


def _task(
    kind: str,
    vocabulary: Vocabulary,
    n: int,
    seed: int,
    source: Source,
    description: str,
    metric: Metric = LOGIT_DIFFERENCE,
    wanted: Callable[[Sentence], bool] = lambda drawn: True,
) -> Task:
    require_count(kind, n)
    require_no_source(kind, source)
    reader, rng = Reader.of(vocabulary), np.random.default_rng(seed)
    found: dict[tuple[str, ...], Sentence] = {}
    misses = 0
    while len(found) < n and misses < PATIENCE:
        drawn = sentence(kind, rng)
        new = drawn.prompt not in found and wanted(drawn)
        misses = 0 if new else misses + 1
        if new:
            found[drawn.prompt] = drawn
    if len(found) < n:
        raise BadInput(f"{kind}: expected n of at most {len(found)}, all different prompts that there are; got {n}")
    examples = [_example(reader, drawn) for drawn in found.values()]
    chance = sum(drawn.chance for drawn in found.values()) / n
    return assemble(kind, examples, seed, chance, description, metric)


def _example(reader: Reader, drawn: Sentence) -> Example:
    (*clean, answer), (*corrupted, wrong) = (
        _ids(reader, words) for words in ((*drawn.prompt, drawn.answer), (*drawn.twin, drawn.wrong))
    )
    front = len(reader.begin)
    groups = {label: tuple(front + place for place in places) for label, places in drawn.groups.items()}
    example = Example((*reader.begin, *clean), (*reader.begin, *corrupted), answer, wrong, groups)
    require_correspondence(example, drawn.template, reader.tokens)
    return example


def _ids(reader: Reader, words: tuple[str, ...]) -> tuple[int, ...]:
    """The tokens of words, one of each."""
    ids = reader.body(" ".join(words))
    if len(ids) != len(words) or reader.vocabulary.decode(list(ids)).split() != list(words):
        odd = [word for word in dict.fromkeys(words) if not _whole(reader, word)] or list(words)
        raise BadInput(
            f"expected a tokenizer that has a token for each word of templated English; this one has none "
            f"for {', '.join(map(repr, odd[:5]))}: use that of an embedded model of it (en-4l), or a word-level one"
        )
    return ids


def _whole(reader: Reader, word: str) -> bool:
    ids = reader.continuation("the", f" {word}")
    return len(ids) == 1 and reader.vocabulary.decode(list(ids)).strip() == word
