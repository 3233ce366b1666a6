"""Attention of a head over a text, ready to be shown as a strip of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from openwork.errors import CorruptFile
from openwork.reports.words import visible
from openwork.studies.schema import AttentionExample

LEVELS = 20
"""Shades of the style sheet."""


@dataclass(frozen=True)
class Look:
    """One query that attends to one key with a weight."""

    query: str
    key: str
    query_at: int
    key_at: int
    weight: float


@dataclass(frozen=True)
class AttentionView:
    """What is shown of one head.

    Args:
        site: the head.
        tokens: the text, line breaks made visible.
        breaks: whether a line of the text ends at each token.
        weights: attention in percent, by query and then by key up to the query.
        focus: the query shown before the reader chooses another.
        strongest: its strongest looks at another token than itself and the first.
    """

    site: str
    tokens: list[str]
    breaks: list[bool]
    weights: list[list[int]]
    focus: int
    strongest: list[Look]

    @property
    def shades(self) -> list[int]:
        """The shade of each token for the query in focus."""
        row = self.weights[self.focus]
        return [round(w * LEVELS / 100) for w in row] + [0] * (len(self.tokens) - len(row))


def attention_view(example: AttentionExample, arrays: Mapping[str, np.ndarray], count: int = 6) -> AttentionView:
    """Prepare one example.

    Args:
        example: the head and the text.
        arrays: those of the study; the example names one of shape (query, key).
        count: how many strong looks to list.

    Raises:
        CorruptFile: if the array is missing or does not fit the text.
    """
    weights = arrays.get(example.array)
    size = len(example.tokens)
    if weights is None or weights.shape != (size, size):
        came = "none" if weights is None else f"shape {weights.shape}"
        raise CorruptFile(f"expected array {example.array!r} of shape ({size}, {size}) in arrays.npz; got {came}")
    weights = np.nan_to_num(np.clip(np.asarray(weights, dtype=float), 0, 1))
    # the first token collects the attention that has nowhere to go, and says nothing about the head
    telling = np.tril(weights, -1)
    telling[:, 0] = 0
    names = [visible(token) for token in example.tokens]
    order = np.argsort(-telling, axis=None, kind="stable")[:count]
    looks = [(int(flat // size), int(flat % size)) for flat in order]
    return AttentionView(
        site=example.site,
        tokens=names,
        breaks=["\n" in token for token in example.tokens],
        weights=[[round(100 * w) for w in weights[q, : q + 1]] for q in range(size)],
        focus=looks[0][0],
        strongest=[Look(names[q], names[k], q, k, float(weights[q, k])) for q, k in looks if telling[q, k] > 0],
    )
