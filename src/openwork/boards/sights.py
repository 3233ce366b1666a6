"""What boards say of networks that see: items, what is true of them, and which claim is of which item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from openwork.boards.subjects import SPOTS, Looker, Sight
from openwork.finding import Finding
from openwork.worlds.picture_array import PictureArray
from openwork.zoo.sighted import patches, scrambled


def fires(unit: str, concept: str) -> str:
    """A unit and what it detects, as an item of the board."""
    return f"{unit}: {concept}"


def rests(label: str, unit: str) -> str:
    """A class and a unit that it rests on, as an item of the board."""
    return f"{label} <- {unit}"


def leads(label: str, sender: str, receiver: str) -> str:
    """An edge of a class, as an item of the board."""
    return f"{label} <- {receiver} <- {sender}"


def named(site: str, unit: object) -> str:
    """A unit by its whole name, where a table may have its number alone."""
    return str(unit) if str(unit).startswith(site) else f"{site}[{unit}]"


def channel(unit: str) -> int:
    """The number of a unit."""
    return int(unit.rpartition("[")[2].removesuffix("]"))


def first_named(finding: Finding, units: Sequence[str]) -> str:
    """The first of some units that a claim names."""
    return next(unit for unit in units if f"{unit} " in f"{finding.claim} ")


def of_known(truth: Callable[[Any], Iterable[str]]) -> Callable[[Looker[Any]], frozenset[str]]:
    """What is true of a network made by hand; nothing of a null."""
    return lambda looker: frozenset() if looker.known is None else frozenset(truth(looker.known))


def unless(reason: str) -> Callable[[Sight], str]:
    """Why a null cannot be asked; nothing of a network made by hand."""
    return lambda sight: "" if sight.known is not None else reason


def number(sight: Sight) -> int:
    """Which of its kind a sight is."""
    return int(sight.name.replace("-", "/").rpartition("/")[2])


def scenes(sight: Sight, *categories: str) -> tuple[PictureArray, PictureArray]:
    """Patches to find things on and to claim them on, with the masks of some categories, and of others in a null."""
    found = []
    for half in (0, 1):
        whole = patches(SPOTS, 2 * number(sight) + half)
        shown = whole if sight.known is not None else scrambled(whole, half + 1)
        masks = {name: shown.regions[name] for name in categories}
        concepts = {name: shown.concepts[name] for name in categories}
        found.append(PictureArray(shown.values, shown.name, concepts, masks, shown.labels, shown.class_names))
    return found[0], found[1]
