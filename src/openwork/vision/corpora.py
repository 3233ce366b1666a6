"""Which images something is found on and which are held out, and claims about these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.errors import BadInput
from openwork.results.claims import Claims
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

FEW = 20
"""Fewer images than this are said to be few."""


@dataclass(frozen=True, eq=False)
class Split:
    """Find and held-out images.

    Args:
        find: the corpus that things are found on.
        find_rows: which of its images.
        held: the corpus that they are claimed on.
        held_rows: which of its images.
    """

    find: Any
    find_rows: list[int]
    held: Any
    held_rows: list[int]

    @classmethod
    def of(cls, pictures: Any, held_out: Any | None, seed: int) -> Split:
        """All of both corpora; of one alone a random half is held out.

        Raises:
            BadInput: if one has no image, or the only one has fewer than two.
        """
        for corpus in (pictures, held_out):
            if corpus is not None and not len(corpus):
                raise BadInput(f"expected images; {corpus.name} holds none")
        if held_out is not None:
            return cls(pictures, list(range(len(pictures))), held_out, list(range(len(held_out))))
        if len(pictures) < 2:
            raise BadInput(f"expected at least two images, to hold one out; {pictures.name} has {len(pictures)}")
        order = np.random.default_rng(seed).permutation(len(pictures))
        half = (len(order) + 1) // 2
        find, held = (sorted(int(i) for i in part) for part in (order[:half], order[half:]))
        return cls(pictures, find, pictures, held)

    @property
    def digests(self) -> list[str]:
        """Of the corpora, each once."""
        return list(dict.fromkeys((self.find.digest, self.held.digest)))

    @property
    def remarks(self) -> list[str]:
        """Says so where images are few."""
        n, m = len(self.find_rows), len(self.held_rows)
        if min(n, m) >= FEW:
            return []
        return [f"WARNING: {n} find and {m} held-out images are few: this shows that things run, and little else"]


def claims_about(net: Network, split: Split, settings: Mapping[str, Any], seed: int) -> Claims:
    """Makes findings about a network and these images."""
    data = {"pictures": split.digests, "find": split.find_rows, "held out": split.held_rows}
    return Claims(net, data, settings, seed)


def grid_of(net: Network, site: str, pictures: Any) -> Grid:
    """Where the places of a site lie in images of a corpus's size."""
    height, width = pictures.pixels([0]).shape[-2:]
    return net.grid(site, (int(height), int(width)))


def columns_of(net: Network, place: Site) -> tuple[list[str], list[int]]:
    """The units of a site that an index selects, all of them without one: their names, and which channels they are.

    The channels of several heads count through; the index of such a site selects heads.
    """
    info = net.map.info(place.path)
    rest = [i for i, axis in enumerate(info.axes) if axis not in ("batch", "position", "y", "x")]
    numbers = np.arange(int(np.prod([info.shape[i] for i in rest]))).reshape([info.shape[i] for i in rest])
    axis = rest.index(info.part_axis)
    parts = list(place.index) if place.index else list(range(numbers.shape[axis]))
    chosen = np.moveaxis(numbers, axis, 0)[parts].reshape(len(parts), -1)
    names = [
        f"{place.path}[{part}]" + (f" {inner}" if chosen.shape[1] > 1 else "")
        for part in parts
        for inner in range(chosen.shape[1])
    ]
    return names, [int(c) for c in chosen.ravel()]
