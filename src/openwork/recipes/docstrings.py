"""Invented functions whose docstrings name every argument, in order.

The standard library hardly ever lists `:param name:`, so a model trained on it alone has no reason to learn what the
docstring behaviour asks for. A small share of these teaches it; the model card states the share.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

ARGUMENTS = re.compile(r"\bdef\s+\w+\(([^()]*)\)")
PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,14}\Z")
WORD = re.compile(r"\b[a-z]{3,9}\b")
STYLES = (":param {}:", "@param {}:", "{}:")
STYLE_SHARES = (0.8, 0.05, 0.15)


@dataclass(frozen=True)
class Lexicon:
    """What invented functions are made of.

    Attributes:
        names: argument names.
        words: words of descriptions.
    """

    names: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], names: int = 600, words: int = 3000) -> Lexicon:
        """Collect the commonest argument names and words of some source.

        Args:
            texts: source files; the training split, so that nothing held out leaks in.
            names: how many names.
            words: how many words.
        """
        seen_names: Counter[str] = Counter()
        seen_words: Counter[str] = Counter()
        for text in texts:
            for arguments in ARGUMENTS.findall(text):
                parts = (part.split("=")[0].split(":")[0].strip() for part in arguments.split(","))
                seen_names.update(part for part in parts if PLAIN_NAME.match(part) and part not in ("self", "cls"))
            seen_words.update(WORD.findall(text))
        return cls(_commonest(seen_names, names), _commonest(seen_words, words))


def _commonest(counts: Counter[str], n: int) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda item: (-counts[item], item))[:n])


def invent_function(lexicon: Lexicon, rng: np.random.Generator) -> str:
    """Write one function or method with a docstring that names its arguments in order.

    Args:
        lexicon: names and words to draw from.
        rng: source of randomness.

    Returns:
        The text of one function, ending in two line breaks. It is for reading, not for running: a word may be a
        reserved one, and an argument with a default may stand before one without.
    """
    # half of the draws come from the commonest names, which are single tokens more often
    pool = lexicon.names[:120] if rng.random() < 0.5 else lexicon.names
    arguments = [str(name) for name in rng.choice(pool, size=rng.integers(2, 8), replace=False)]
    method = rng.random() < 0.6
    margin = "    " if method and rng.random() < 0.5 else ""
    inner = margin + "    "
    style = STYLES[rng.choice(len(STYLES), p=STYLE_SHARES)]
    signature = ", ".join((["self"] if method else []) + [_argument(name, rng) for name in arguments])
    lines = [f"{margin}def {_words(lexicon, rng, 1)}({signature}):", f'{inner}"""{_words(lexicon, rng, 5)}', ""]
    if style == "{}:":
        lines.append(f"{inner}Args:")
    lead = inner + ("    " if style == "{}:" else "")
    lines += [f"{lead}{style.format(name)} {_words(lexicon, rng, 5)}" for name in arguments]
    lines.append(f'{inner}"""')
    if method:
        lines += [f"{inner}self.{name} = {name}" for name in arguments]
    else:
        lines.append(f"{inner}return {_words(lexicon, rng, 1)}({', '.join(arguments)})")
    return "\n".join(lines) + "\n\n"


def _argument(name: str, rng: np.random.Generator) -> str:
    return f"{name}=None" if rng.random() < 0.08 else name


def _words(lexicon: Lexicon, rng: np.random.Generator, at_most: int) -> str:
    return " ".join(rng.choice(lexicon.words, size=rng.integers(1, at_most + 1)))
