"""Which networks a scoreboard goes through: the whole zoo, or a part that is done in two minutes."""

from __future__ import annotations

from openwork.boards.subjects import subjects
from openwork.zoo import nulls
from openwork.zoo.member import FAMILIES, members

QUICK = ("compiled/induction+distracted", "compiled/histogram+distracted", "siit/histogram")
QUICK_KINDS = ("spread", "twin")


WITH_PLAIN = ("reading",)
"""Boards that ask about plain compiled networks too, whose parts have counterparts in other forms of them, and about
trainings, changes and depths."""


def few() -> list[str]:
    """A part that is done in two minutes."""
    return [*QUICK, *(f"null/{name}" for name in nulls.names(QUICK_KINDS, 1))]


def networks(board: str, each: int = nulls.EACH) -> list[str]:
    """Names of networks, those with something to find first.

    Args:
        board: for which scoreboard.
        each: how many nulls of each kind.
    """
    plain = board in WITH_PLAIN
    # without parts that do other work there is nothing to mistake
    compiled = [name for name in members("compiled") if "+distracted" in name or (plain and "+" not in name)]
    rest = [name for family in FAMILIES if family not in ("compiled", "null") for name in members(family)]
    # of each kind in turn, so that a board that was stopped early has some of all
    by_kind = [nulls.names([kind], each) for kind in nulls.KINDS]
    others = subjects() if plain else []
    known = [*compiled, *rest, *(name for name in others if not name.startswith("null/"))]
    empty = [f"null/{name}" for of_one in zip(*by_kind, strict=True) for name in of_one]
    return [*known, *(name for name in others if name.startswith("null/")), *empty]
