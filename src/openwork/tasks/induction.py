"""Induction: A B … A predicts B. Over real code, and over random tokens that are repeated.

Source: Olsson et al. 2022, In-context Learning and Induction Heads (the behaviour, and repeated random tokens).
"""

from __future__ import annotations

import keyword
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from openwork.errors import BadInput
from openwork.task import Task
from openwork.tasks.examples import LEAST, Example, assemble, require_count, require_enough
from openwork.tasks.reader import Reader, Vocabulary
from openwork.tasks.source import Document, Source, documents, require_no_source

LONGEST = 96
"""Tokens of a prompt, with what stands in front."""
SHORTEST = 24
"""Tokens of real code that stand in a prompt at least."""
GAP = 4
"""Tokens between the earlier occurrence and this one at least, so that no n-gram bridges them."""
USUAL = 0.05
"""A continuation with a larger share than this, in the source outside the prompt, is one the bigram gives away."""
USUAL_AFTER_TWO = 0.2
"""The same for the last two tokens of the prompt, where they stand anywhere else; the chance level of the task."""
RIVALS = 5
"""The wrong answer is one of so many names that are most like the answer to anybody who has not read the prompt."""
PLACE, AFTER = "previous occurrence", "after previous occurrence"


@dataclass(frozen=True)
class _Place:
    """A prompt in a document: tokens `start` to `end`, whose last token A was followed by B `earlier`."""

    document: Document
    start: int
    end: int
    earlier: tuple[int, ...]

    @property
    def text(self) -> tuple[int, ...]:
        """The tokens of the prompt and the answer."""
        return self.document.ids[self.start : self.end + 1]


class _Statistics:
    """How often each token follows another one, or another two, in the source."""

    def __init__(self, found: list[Document]):
        rows = [document.ids for document in found]
        self.counts = [Counter(gram for row in rows for gram in _grams(row, size)) for size in (1, 2, 3)]

    def gives_away(self, token: int, text: tuple[int, ...]) -> bool:
        """Whether what lies outside `text` makes `token` usual after the one or two tokens before its last.

        A token that stands nowhere outside the text says nothing, and counts as giving away what follows it.
        """
        times, share = self._outside(text, (text[-2], token))
        if not times or share > USUAL:
            return True
        return self._outside(text, (*text[-3:-1], token))[1] > USUAL_AFTER_TWO

    def most_alike(self, tokens: list[int], text: tuple[int, ...]) -> list[int]:
        """The tokens, none of which stands in the text, ordered by how like its last token they are outside it.

        First by how often they follow the token before it, then by how often they stand anywhere.
        """
        *_, first, answer = text
        after = self.counts[1][first, answer] - sum(gram == (first, answer) for gram in _grams(text, 2))

        def unlike(token: int) -> tuple[int, float]:
            frequency = math.log(self.counts[0][token,] / self.counts[0][answer,])
            return abs(self.counts[1][first, token] - after), abs(frequency)

        return sorted(tokens, key=unlike)

    def _outside(self, text: tuple[int, ...], gram: tuple[int, ...]) -> tuple[int, float]:
        """How often the first tokens of the gram stand outside the text, and the share that its last one follows."""
        size = len(gram)
        both = self.counts[size - 1][gram] - sum(g == gram for g in _grams(text, size))
        times = self.counts[size - 2][gram[:-1]] - sum(g == gram[:-1] for g in _grams(text[:-1], size - 1))
        return times, both / times if times else 0.0


def _grams(row: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    return zip(*(row[i:] for i in range(size)), strict=False)


def induction(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None) -> Task:
    """Induction over real code.

    A prompt ends in a token A that stands earlier in the prompt, every time followed by the name B, which stands
    nowhere else; the answer is B. The corrupted prompt has another name in place of each B, so that the same prompt
    calls for that one; in the rest of the source it is about as frequent, and follows A about as often. Pairs whose B
    is a usual continuation of A in the rest of the source are left out, and each pair is asked once. Whole files are
    held out. Chance is `USUAL_AFTER_TWO`, the most that such statistics can give.

    Args:
        vocabulary: a tokenizer or network.
        n: number of examples; fewer if the source holds fewer, at least `LEAST`.
        seed: of the choice of prompts, of the names put in, and of the split.
        source: a file or folder; openwork's own installed source unless given.

    Returns:
        The task; token groups "previous occurrence" (A), "after previous occurrence" (B) and "last".

    Raises:
        BadInput: if the source does not exist, is empty, or is too short.
    """
    require_count("induction", n)
    reader = Reader.of(vocabulary)
    found = documents(reader, source)
    longest = max(len(document.ids) for document in found)
    if longest <= SHORTEST:
        raise BadInput(
            f"induction: expected text of more than {SHORTEST} tokens; found {longest}: give a longer source"
        )
    names = _names(reader, found)
    statistics, rng = _Statistics(found), random.Random(seed)
    places = [place for document in found for place in _places(document, reader, names)]
    rng.shuffle(places)
    examples, asked = [], set()
    for place in places:
        if len(examples) == n:
            break
        pair = place.text[-2:]
        if pair in asked or statistics.gives_away(pair[1], place.text):
            continue
        example = _example(place, reader, names, statistics, rng)
        if example is not None:
            examples.append(example)
            asked.add(pair)
    require_enough("induction", len(examples), min(n, LEAST), "repeated pairs of tokens that bigrams do not give away")
    return assemble("induction", examples, seed, USUAL_AFTER_TWO, "A B … A predicts B, in real code")


def _names(reader: Reader, found: list[Document]) -> dict[int, bool]:
    """The tokens of the source that are names or parts of names -> whether they bring a space along."""
    used = sorted({token for document in found for token in document.ids})
    texts = zip(used, reader.tokens(used), strict=True)
    return {
        token: text[:1] == " "
        for token, text in texts
        if (name := text.removeprefix(" ")).isidentifier() and len(name) > 1 and not keyword.iskeyword(name)
    }


def _places(document: Document, reader: Reader, names: dict[int, bool]) -> Iterator[_Place]:
    """The places where a token was followed by one and the same name each time before, and is followed by it again."""
    ids, width = document.ids, LONGEST - len(reader.begin)
    seen: dict[int, deque[int]] = defaultdict(deque)

    def within(token: int, start: int) -> deque[int]:
        places = seen[token]
        while places and places[0] < start:  # windows only move on
            places.popleft()
        return places

    for last in range(len(ids) - 1):
        start, answer = max(0, last + 1 - width), ids[last + 1]
        earlier = tuple(within(ids[last], start)) if answer in names else ()
        seen[ids[last]].append(last)
        if not earlier or last + 1 - start < SHORTEST or last - earlier[-1] <= GAP or ids[last] == answer:
            continue
        if list(within(answer, start)) == [p + 1 for p in earlier]:
            yield _Place(document, start, last + 1, earlier)


def _example(
    place: _Place, reader: Reader, names: dict[int, bool], statistics: _Statistics, rng: random.Random
) -> Example | None:
    *window, answer = place.text
    shift = len(reader.begin) - place.start
    absent = [token for token, spaced in names.items() if spaced == names[answer] and token not in place.text]
    alike = statistics.most_alike(absent, place.text)
    rivals = [token for token in alike[: 2 * RIVALS] if not statistics.gives_away(token, place.text)][:RIVALS]
    if not rivals:
        return None
    wrong = rng.choice(rivals)
    corrupted = list(window)
    for p in place.earlier:
        corrupted[p + 1 - place.start] = wrong
    groups = {PLACE: tuple(p + shift for p in place.earlier), AFTER: tuple(p + 1 + shift for p in place.earlier)}
    return Example(
        (*reader.begin, *window), (*reader.begin, *corrupted), answer, wrong, groups, family=place.document.name
    )


def repeats(vocabulary: Vocabulary, *, n: int = 128, seed: int = 0, source: Source = None, span: int = 32) -> Task:
    """Induction over random tokens: a random span, then its beginning again.

    The tokens of a span are distinct. In the corrupted prompt, the token that follows the earlier occurrence is
    exchanged for one that stands nowhere else, so that the match is there but leads elsewhere.

    Args:
        vocabulary: a tokenizer or network.
        n: number of examples.
        seed: of the tokens and of the split.
        source: has no meaning here and must be None.
        span: length of the span; the second copy stops at a random place.

    Returns:
        The task; token groups "previous occurrence", "after previous occurrence" and "last".

    Raises:
        BadInput: if the vocabulary holds too few tokens, or a source is given.
    """
    require_count("repeats", n)
    require_no_source("repeats", source)
    reader, rng = Reader.of(vocabulary), random.Random(seed)
    if not 3 <= span < len(reader.ordinary):
        raise BadInput(f"repeats: expected a span of 3 to {len(reader.ordinary) - 1} distinct tokens; got {span}")
    examples, begin = [], len(reader.begin)
    for _ in range(n):
        *tokens, wrong = rng.sample(reader.ordinary, span + 1)
        k = rng.randrange(1, span - 1)
        broken = [*tokens[: k + 1], wrong, *tokens[k + 2 :]]
        clean, corrupted = ((*reader.begin, *first, *tokens[: k + 1]) for first in (tokens, broken))
        groups = {PLACE: (begin + k,), AFTER: (begin + k + 1,)}
        examples.append(Example(clean, corrupted, tokens[k + 1], wrong, groups))
    return assemble("repeats", examples, seed, 1 / len(reader.ordinary), "A B … A predicts B, in random tokens")
