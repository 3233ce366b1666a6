"""Python source as tokens with true labels: a world in which every label is known.

A label of a token is the label of its first character that is not white space; a token of white space alone takes
its last character, so that "line break and eight spaces" already carries the indentation of the line it opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from openwork.errors import BadInput
from openwork.worlds.corpus import Corpus
from openwork.worlds.python_labels import CharacterLabels, label_characters
from openwork.worlds.reading import read_source


@runtime_checkable
class OffsetTokenizer(Protocol):
    """A tokenizer that says which characters each token came from (every fast tokenizer of transformers does)."""

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool) -> Any:
        """Return a mapping with `input_ids` and `offset_mapping`."""
        ...


@dataclass(frozen=True)
class LabelledSource:
    """A Python file as tokens with their labels.

    Attributes:
        name: path or other name of the file.
        text: the whole text, with "\\n" line ends.
        token_ids: ids, without special tokens.
        offsets: first and past-the-last character of each token.
        labels: one array of `token` entries each, never to be written to:
            bracket_depth: brackets open after the labelled character; an opening bracket counts itself, a closing
                one no longer does. Brackets inside strings and comments are text.
            open_bracket: which bracket is the innermost open one: 0 none, 1 "(", 2 "[", 3 "{" (`BRACKETS`).
            indentation: enclosing indented blocks; lines within a statement count as its first; blank lines
                and comments count as what stands before them.
            string, comment, docstring: inside one, quotes and "#" included; f-strings are strings throughout.
            keyword: part of a reserved word.
            name: part of an identifier that is not a reserved word.
            argument: part of a parameter's name in a signature.
            keyword_argument: part of the name in `f(name=value)`.
            attribute: part of the name after a dot.
            previous: for the token that begins an identifier, the index of the token that began the same identifier
                the last time; -1 at its first occurrence and at every other token.
    """

    name: str
    text: str
    token_ids: Int[np.ndarray, " token"]
    offsets: Int[np.ndarray, "token 2"]
    labels: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.token_ids)

    def cut(self, start: int, stop: int) -> LabelledSource:
        """Tokens `start` to `stop` with the labels that they have in the whole file.

        Args:
            start: first token.
            stop: past the last token.

        Returns:
            The part; "previous" counts from its own start and is -1 where it would point before it.
        """
        labels = {label: array[start:stop] for label, array in self.labels.items()}
        labels["previous"] = np.maximum(labels["previous"] - start, -1)
        return LabelledSource(self.name, self.text, self.token_ids[start:stop], self.offsets[start:stop], labels)


@dataclass(frozen=True)
class LabelledFolder:
    """The Python files of a folder.

    Attributes:
        sources: those that could be labelled, in the order of their paths.
        skipped: path and reason of those that could not: other encodings, syntax of other Pythons.
    """

    sources: tuple[LabelledSource, ...]
    skipped: tuple[tuple[str, str], ...]


def label_text(text: str, tokenizer: OffsetTokenizer, name: str = "<text>") -> LabelledSource:
    """Tokenize and label Python source.

    Args:
        text: the source; may be empty.
        tokenizer: any tokenizer with offsets.
        name: what to call it.

    Returns:
        Tokens and labels.

    Raises:
        BadInput: if the running Python cannot parse it; names the line.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    characters = label_characters(text, name)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    places = _labelled_characters(text, offsets)
    labels = {label: array[places] for label, array in characters.values.items()}
    labels["previous"] = _previous(characters, offsets)
    return LabelledSource(name, text, np.asarray(encoded["input_ids"], dtype=np.int64), offsets, labels)


def label_file(path: Path, tokenizer: OffsetTokenizer) -> LabelledSource:
    """Read, tokenize and label a Python file.

    Args:
        path: the file.
        tokenizer: any tokenizer with offsets.

    Returns:
        Tokens and labels.

    Raises:
        BadInput: if it cannot be read, decoded or parsed; names the file and the line.
    """
    return label_text(read_source(path), tokenizer, str(path))


def label_folder(root: Path, tokenizer: OffsetTokenizer) -> LabelledFolder:
    """Label every Python file below a folder that the running Python can parse.

    Args:
        root: the folder.
        tokenizer: any tokenizer with offsets.

    Returns:
        The labelled files, and the others with the reason.

    Raises:
        BadInput: if there is no folder or no .py file in it.
    """
    corpus = Corpus.below(root)
    sources, skipped = [], []
    for name in corpus.names:
        try:
            sources.append(label_text(read_source(root / name), tokenizer, name))
        except BadInput as error:
            skipped.append((name, str(error)))
    return LabelledFolder(tuple(sources), tuple(skipped))


def _labelled_characters(text: str, offsets: Int[np.ndarray, "token 2"]) -> Int[np.ndarray, " token"]:
    """Index of the character whose labels each token takes."""
    space = np.fromiter((character.isspace() for character in text), dtype=bool, count=len(text))
    # for every index, the first place at or after it that is not white space
    following = np.where(space, len(text), np.arange(len(text)))
    following = np.minimum.accumulate(following[::-1])[::-1]
    first, last = offsets[:, 0], np.maximum(offsets[:, 1] - 1, offsets[:, 0])
    if not len(first):
        return first
    solid = following[first]
    return np.where(solid <= last, solid, last)


def _previous(characters: CharacterLabels, offsets: Int[np.ndarray, "token 2"]) -> Int[np.ndarray, " token"]:
    previous = np.full(len(offsets), -1, dtype=np.int64)
    seen: dict[str, int] = {}
    for word in characters.words:
        # the last token that begins at or before the word's first character is the one that holds it
        token = int(np.searchsorted(offsets[:, 0], word.start, side="right")) - 1
        previous[token] = seen.get(word.name, -1)
        seen[word.name] = token
    return previous
