"""What a task needs to know of a tokenizer: how text becomes tokens, what stands in front, where each token lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile
from typing import Any, Protocol, runtime_checkable

from openwork.errors import BadInput

PROBES = ("a", "(", "1", "=")


@runtime_checkable
class Vocabulary(Protocol):
    """A tokenizer, or a network that has one."""

    def encode(self, text: str, /) -> list[int]:
        """The token ids of a text, with whatever the model expects in front of it."""
        ...

    def decode(self, ids: list[int], /) -> str:
        """The text of token ids."""
        ...


@dataclass(frozen=True)
class Reader:
    """A vocabulary whose habits are known.

    Attributes:
        vocabulary: the tokenizer or network.
        begin: the ids that stand in front of every text (a beginning-of-text token, or nothing).
    """

    vocabulary: Vocabulary
    begin: tuple[int, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Reader:
        """Find out what the vocabulary puts in front of a text.

        Raises:
            BadInput: if it does not turn text into ids, or closes every text with a token of its own, after which
                no next token is ever predicted.
        """
        rows = [_encode(vocabulary, text) for text in PROBES]
        begin, end = _common_start(rows), _common_start([row[::-1] for row in rows])
        if end and len(begin) < min(map(len, rows)):
            raise BadInput(
                f"expected a tokenizer that adds tokens only in front of a text; this one ends every text with "
                f"{vocabulary.decode(list(end[::-1]))!r}: next-token tasks need a causal language model's tokenizer"
            )
        return cls(vocabulary, begin)

    def body(self, text: str) -> tuple[int, ...]:
        """The ids of a text without what stands in front."""
        return tuple(_encode(self.vocabulary, text)[len(self.begin) :])

    def ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text, as the model reads it.

        Raises:
            BadInput: if the text is empty.
        """
        body = self.body(text)
        if not body:
            raise BadInput(f"expected text with at least one token; got {text!r}")
        return self.begin + body

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The text of each token alone."""
        return [self.vocabulary.decode([i]) for i in ids]

    def continuation(self, text: str, after: str) -> tuple[int, ...]:
        """The ids by which `after` continues `text`; empty if the two melt into other tokens at the seam."""
        body, whole = self.body(text), self.body(text + after)
        return whole[len(body) :] if whole[: len(body)] == body else ()

    def boundaries(self, text: str) -> list[int]:
        """Where each token of `text` begins, counted in characters, and at the end the length of the text.

        Positions count what stands in front: those tokens begin and end at 0. A token that holds only part of a
        character begins where the character does.

        Raises:
            BadInput: if decoding does not give the text back, so that no character has a token.
        """
        body = list(self.body(text))
        pieces = self.tokens(body)
        if "".join(pieces) == text:
            lengths = [len("".join(pieces[:n])) for n in range(len(body))]
        elif (decoded := self.vocabulary.decode(body)) == text:
            prefixes = (self.vocabulary.decode(body[:n]) for n in range(len(body)))
            lengths = [len(_common_start([prefix, text])) for prefix in prefixes]
        else:
            raise BadInput(f"expected a tokenizer that decodes to the text it encoded; {text!r} became {decoded!r}")
        return [0] * len(self.begin) + [*lengths, len(text)]

    def positions(self, text: str, start: int, stop: int) -> tuple[int, ...]:
        """The positions of the tokens that hold the characters from `start` to before `stop`."""
        spans = enumerate(pairwise(self.boundaries(text)))
        return tuple(i for i, (first, last) in spans if first < stop and last > start)

    @cached_property
    def ordinary(self) -> tuple[int, ...]:
        """All ids but the special ones.

        Raises:
            BadInput: if the vocabulary does not say how large it is.
        """
        tokenizer: Any = getattr(self.vocabulary, "tokenizer", None) or self.vocabulary
        if not hasattr(tokenizer, "__len__"):
            raise BadInput(f"expected a tokenizer with a length; {type(tokenizer).__name__} has none")
        special = {*self.begin, *getattr(tokenizer, "all_special_ids", ())}
        return tuple(i for i in range(len(tokenizer)) if i not in special)


def _common_start(rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    columns = zip(*rows, strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


def _encode(vocabulary: Vocabulary, text: str) -> list[int]:
    ids = vocabulary.encode(text)
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        raise BadInput(f"expected encode(text) to give a list of ints; {type(vocabulary).__name__} gave {ids!r:.80}")
    return ids
