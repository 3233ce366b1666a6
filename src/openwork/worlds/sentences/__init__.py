"""Templated English in which everything is known: what is true, which word plays which part, what comes next and why.

Every kind of sentence is a behaviour: a prompt, the word that is right after it, and a twin of equal length that
differs just in what the answer depends on. `sentence` draws one, `stream` the text that a model is trained on. A
`World` without a behaviour has the same sentences, in which the word in question says nothing.
"""

from openwork.worlds.sentences.facts import ABSENT, FACTS, RELATIONS, STATED, Fact, Relation
from openwork.worlds.sentences.kinds import KINDS, MIX, sentence, stream, vocabulary
from openwork.worlds.sentences.sentence import WORLD, Sentence, World

__all__ = [
    "ABSENT",
    "FACTS",
    "KINDS",
    "MIX",
    "RELATIONS",
    "STATED",
    "WORLD",
    "Fact",
    "Relation",
    "Sentence",
    "World",
    "sentence",
    "stream",
    "vocabulary",
]
