"""Some images to find things on and others to claim them on, and what a network reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from openwork.pictures import Pictures
from openwork.vision.corpora import Split
from openwork.vision.passes import encoded

if TYPE_CHECKING:
    from openwork.network import Network


def halves(pictures: Pictures, held_out: Pictures | None, most: int, seed: int) -> Split:
    """Find and held-out images, of each no more than are read at once.

    Args:
        pictures: the corpus that things are found on.
        held_out: the one that they are claimed on; a random half of `pictures` unless given.
        most: images of each.
        seed: of the choice.

    Raises:
        BadInput: if there are too few.
    """
    split = Split.of(pictures, held_out, seed)
    return Split(split.find, some(split.find_rows, most, seed), split.held, some(split.held_rows, most, seed))


def some(rows: Sequence[int], most: int, seed: int) -> list[int]:
    """A random choice of rows, in their order."""
    if len(rows) <= most:
        return [int(row) for row in rows]
    return sorted(int(row) for row in np.random.default_rng(seed).choice(rows, most, replace=False))


def read(net: Network, pictures: Pictures, rows: Sequence[int]) -> Float[Tensor, "image channel y x"]:
    """What the network reads of some images, all at once.

    Raises:
        BadInput: if the network says of no images what it makes of them, or these do not fit.
    """
    return encoded(net, pictures.pixels(rows))
