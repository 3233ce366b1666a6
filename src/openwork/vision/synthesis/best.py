"""How far real images go: the largest value of each objective over a corpus, streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openwork.pictures import Pictures
from openwork.vision.synthesis.ascent import Watching
from openwork.vision.synthesis.objective import Objective
from openwork.vision.synthesis.objectives import Objectives

if TYPE_CHECKING:
    from openwork.network import Network

BATCH = 64


@dataclass(frozen=True)
class Best:
    """The best image of each objective.

    Args:
        activation: its value.
        row: of the corpus.
        count: images that were looked at.
    """

    activation: Float[np.ndarray, " unit"]
    row: Int[np.ndarray, " unit"]
    count: int


class Crossed:
    """Every objective on every image, each through as much of the network as its sites need.

    Args:
        net: the network.
        objectives: which.
    """

    def __init__(self, net: Network, objectives: Sequence[Objective]):
        self.net, self.objectives = net, tuple(objectives)
        self._groups: dict[frozenset[str], list[int]] = {}
        self._each: dict[tuple[int, int], Objectives] = {}
        for number, objective in enumerate(objectives):
            sites = frozenset(t.reads for t in objective.terms() if t.reads is not None)
            self._groups.setdefault(sites, []).append(number)

    def __call__(self, pixels: Float[Tensor, "image channel y x"]) -> Float[Tensor, "objective image"]:
        """Their values on some images."""
        out = torch.zeros(len(self.objectives), len(pixels))
        with torch.no_grad():
            for sites, members in self._groups.items():
                seen = Watching(self.net, sorted(sites))(pixels)
                for i in members:
                    out[i] = self._for(i, len(pixels))(seen, pixels).float().cpu()
        return out

    def _for(self, number: int, count: int) -> Objectives:
        if (number, count) not in self._each:
            rows = list(range(count))
            self._each[number, count] = Objectives(self.net, [self.objectives[number]] * count, rows)
        return self._each[number, count]


def best_of(net: Network, objectives: Sequence[Objective], pictures: Pictures, rows: Sequence[int]) -> Best:
    """The image of some rows of a corpus on which each objective is largest.

    Raises:
        BadInput: if the network cannot read the images.
    """
    crossed = Crossed(net, objectives)
    top, where = np.full(len(objectives), -np.inf), np.zeros(len(objectives), dtype=np.int64)
    for first in range(0, len(rows), BATCH):
        some = list(rows[first : first + BATCH])
        found = crossed(pictures.pixels(some).float() / 255).numpy()
        best = found.argmax(1)
        value = found[np.arange(len(objectives)), best]
        where = np.where(value > top, np.array(some)[best], where)
        top = np.maximum(value, top)
    return Best(top, where, len(rows))
