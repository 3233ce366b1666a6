"""The causal methods of the toolkit, as `openwork bench causal` asks them."""

from __future__ import annotations

from openwork.boards.hypotheses import HYPOTHESES
from openwork.boards.places import PLACES
from openwork.boards.subspaces import SUBSPACES

CONTENDERS = {**PLACES, **SUBSPACES, **HYPOTHESES}
"""Name -> method."""

BASE = (
    "addition", "brackets", "fraction", "histogram", "induction", "ioi", "most-frequent", "reverse", "sort", "two-hop",
    "unique",
)  # fmt: skip
