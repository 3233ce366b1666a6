"""Tokenizers that need no training, and a slow reading of Python that shares nothing with the labels under test."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

OPENING = "([{"
PARTNER = {")": "(", "]": "[", "}": "{"}


@dataclass
class Scan:
    """Open brackets after each character, and whether it belongs to a string or a comment."""

    open: list[str] = field(default_factory=list)
    string: list[bool] = field(default_factory=list)
    comment: list[bool] = field(default_factory=list)


def scan_characters(text: str) -> Scan:
    """Read source that has no f-string with quotes within."""
    found, stack, i = Scan(), "", 0

    def take(n: int, string: bool = False, comment: bool = False) -> None:
        nonlocal i
        found.open.extend([stack] * n)
        found.string.extend([string] * n)
        found.comment.extend([comment] * n)
        i += n

    while i < len(text):
        quote = next((q for q in ('"""', "'''", '"', "'") if text.startswith(q, i)), None)
        if quote is not None:
            back = i
            while back > 0 and text[back - 1] in "rRbBuUfF":
                back -= 1
            if back == 0 or not (text[back - 1].isalnum() or text[back - 1] == "_"):
                for place in range(back, i):
                    found.string[place] = True
            end = i + len(quote)
            while not text.startswith(quote, end):
                end += 2 if text[end] == "\\" else 1
            take(end + len(quote) - i, string=True)
        elif text[i] == "#":
            end = text.find("\n", i)
            take((len(text) if end < 0 else end) - i, comment=True)
        elif text[i] in OPENING:
            stack += text[i]
            take(1)
        elif text[i] in PARTNER:
            assert stack[-1] == PARTNER[text[i]]
            stack = stack[:-1]
            take(1)
        else:
            take(1)
    return found


class Pieces:
    """Tokens by a regular expression; ids are of no importance."""

    def __init__(self, pattern: str):
        self.pattern = re.compile(pattern, re.DOTALL)

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool) -> Any:
        offsets = [match.span() for match in self.pattern.finditer(text)]
        return {"input_ids": [ord(text[start]) for start, _ in offsets], "offset_mapping": offsets}


@pytest.fixture
def characters() -> Pieces:
    return Pieces(".")


@pytest.fixture
def pieces() -> Pieces:
    return Pieces(r"\n\s*| ?\w+| ?[^\w\s]|\s+")


@pytest.fixture
def scan() -> Callable[[str], Scan]:
    return scan_characters
