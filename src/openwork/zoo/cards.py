"""The cards of networks that are made and not trained: what was measured of them, and what of their answer is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from openwork.errors import CorruptFile
from openwork.store.files import read_json
from openwork.zoo.known import Known

CARDS = Path(__file__).parent / "cards.json"


@cache
def cards() -> Mapping[str, Any]:
    """Name -> card, for every network that has one.

    Raises:
        CorruptFile: if the file of the package is damaged.
    """
    found = read_json(CARDS) if CARDS.exists() else {}
    if not isinstance(found, dict):
        raise CorruptFile(f"expected cards by name in {CARDS}; reinstall openwork")
    return found


def settled(known: Known, card: Mapping[str, Any]) -> Known:
    """What of an answer is true by the test on its card; edges that are not are kept among the constant ones.

    Where the test asked for nodes alone, edges stay as they were made.
    """
    if not card:
        return known
    true = {effect["item"] for effect in card["truth"]["true"]}
    edges = any(effect["kind"] == "edge" for effect in card["truth"]["untrue"])
    roles = {
        role: kept
        for role, nodes in known.roles.items()
        if (
            kept := tuple(
                node for node in nodes if str(node.site) in true or node.site.kind not in ("attn.z", "mlp.out")
            )
        )
    }
    moving = tuple(edge for edge in known.edges if str(edge) in true or not edges)
    rest = tuple(edge for edge in known.edges if edge not in set(moving))
    return replace(known, roles=roles, edges=moving, constant=tuple(sorted((*known.constant, *rest))))
