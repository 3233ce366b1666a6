"""What lasted from one year to another ended later than it began.

Source: Hanna, Liu and Variengien 2023, How does GPT-2 compute greater-than? (the behaviour).
"""

from __future__ import annotations

import numpy as np

from openwork.worlds.sentences.sentence import Filling, Sentence, World, compose, kept_from_training, pick
from openwork.worlds.sentences.words import CENTURIES, EVENTS, NEUTRAL, YEARS

TEMPLATES = (
    "the {event} lasted from the year {century} {start} to the year {century} | .",
    "the {adjective} {event} began in {century} {start} and ended in {century} | .",
    "the years of the {event} were {century} {start} to {century} | .",
    "people remember the {event} of the years {century} {start} to {century} | .",
    "it was {century} {start} when the {event} began , and it was over in {century} | .",
)
FIRST, LAST = 2, 97
"""Years in which things begin."""
EARLY = 12
"""Things of the twins begin before this year."""


def greater_than(rng: np.random.Generator, world: World) -> Sentence:
    """The last two digits of the year in which something ended: any later than those of its beginning.

    The answer is the first year that is right. The twin begins early in the century, so that nearly every year
    is.

    Labels: "start" (the year of the beginning), "century", "event".
    """
    index, start = int(rng.integers(len(TEMPLATES))), int(rng.integers(FIRST, LAST + 1))
    event, century = pick(EVENTS, rng), pick(CENTURIES, rng)
    early = pick([year for year in range(FIRST, EARLY) if year != start], rng)
    filling = Filling(
        fill={"event": event, "century": century, "start": YEARS[start], "adjective": pick(NEUTRAL, rng)},
        twin={"start": YEARS[early]},
        labels={"start": "start", "century": "century", "event": "event"},
        answer=YEARS[start + 1],
        wrong=YEARS[early + 1],
        said=YEARS[int(rng.integers(start + 1, 100))],
    )
    held_out = kept_from_training("greater_than", event, century, YEARS[start])
    return compose("greater_than", TEMPLATES[index], str(index), filling, (99 - start) / 100, held_out)
