"""Which networks a scoreboard goes through: the whole zoo, or a part that is done in two minutes."""

from __future__ import annotations

from openwork.zoo import nulls
from openwork.zoo.member import FAMILIES, members

QUICK = ("compiled/induction+distracted", "compiled/sort+distracted", "planted/direction")


def networks(quick: bool = False) -> list[str]:
    """Names of networks, those with something to find first.

    Args:
        quick: the small part.
    """
    if quick:
        return [*QUICK, *(f"null/{name}" for name in nulls.names(each=1))]
    # without parts that do other work there is nothing to mistake
    compiled = [name for name in members("compiled") if "+distracted" in name]
    rest = [name for family in FAMILIES if family not in ("compiled", "null") for name in members(family)]
    # of each kind in turn, so that a board that was stopped early has some of all
    by_kind = [nulls.names([kind]) for kind in nulls.KINDS]
    return [*compiled, *rest, *(f"null/{name}" for of_one in zip(*by_kind, strict=True) for name in of_one)]
