"""Which networks a scoreboard goes through: the whole zoo, or a part that is done in two minutes."""

from __future__ import annotations

from openwork.boards.subjects import CHANGE, COURSE, DEPTH, GAZE, SIGHT, subjects
from openwork.zoo import nulls
from openwork.zoo.member import FAMILIES, members

QUICK = ("compiled/induction+distracted", "compiled/histogram+distracted", "siit/histogram")
QUICK_KINDS = ("spread", "twin")


WITH_PLAIN = ("reading",)
"""Boards that ask about plain compiled networks too, whose parts have counterparts in other forms of them."""
KINDS = {"reading": (COURSE, CHANGE, DEPTH), "seeing": (SIGHT, GAZE)}
"""What boards ask about besides networks of the zoo."""
NO_NETWORKS = ("seeing",)
"""Boards that ask about nothing of the zoo's networks, which read tokens."""


def few(board: str) -> list[str]:
    """A part that is done in two minutes.

    Args:
        board: for which scoreboard.
    """
    if board in NO_NETWORKS:
        return [name for name in subjects(KINDS[board]) if name.endswith(("/0", "-0"))]
    return [*QUICK, *(f"null/{name}" for name in nulls.names(QUICK_KINDS, 1))]


def networks(board: str, each: int = nulls.EACH) -> list[str]:
    """Names of networks, those with something to find first.

    Args:
        board: for which scoreboard.
        each: how many nulls of each kind.
    """
    others = subjects(KINDS.get(board, ()))
    if board in NO_NETWORKS:
        return others
    plain = board in WITH_PLAIN
    # without parts that do other work there is nothing to mistake
    compiled = [name for name in members("compiled") if "+distracted" in name or (plain and "+" not in name)]
    rest = [name for family in FAMILIES if family not in ("compiled", "null") for name in members(family)]
    # of each kind in turn, so that a board that was stopped early has some of all
    by_kind = [nulls.names([kind], each) for kind in nulls.KINDS]
    known = [*compiled, *rest, *(name for name in others if not name.startswith("null/"))]
    empty = [f"null/{name}" for of_one in zip(*by_kind, strict=True) for name in of_one]
    return [*known, *(name for name in others if name.startswith("null/")), *empty]
