"""The threshold that a unit exceeds at a given share of all places, from a stream too large to keep.

    tail = Tail(units=64, places=len(pictures) * 16 * 16, share=0.005)
    for values in stream:  # (unit, place)
        tail.add(values)
    tail.thresholds()

How long the stream will be is known beforehand, so only the largest ``share * places`` values of each unit can matter.
While these fit into `capacity` the thresholds are exact. Beyond it, every block of the stream is thinned: sorted, and
every w-th value kept from a random start, which stands for w values. A block then miscounts the values above any
number by less than w, without bias and independently of the other blocks, so Hoeffding's inequality bounds the error
of all of them together; see `Tail.bound`. Memory is `capacity` values a unit, however long the stream.

Source: Hoeffding 1963, theorem 2; systematic sampling as in Wang, Luo, Yi and Cormode 2013, Quantiles over data
streams: an experimental study (their random sampler); the share itself is that of Bau et al. 2017, section 2.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput

CAPACITY = 8192


class Tail:
    """Thresholds that each unit exceeds at a share of the places of a stream.

    Args:
        units: how many.
        places: how many values of each unit the stream will have.
        share: of the places that are to lie above the threshold.
        capacity: values that are kept of each unit.
        seed: of the thinning.

    Raises:
        BadInput: if the share asks for less than one place.
    """

    def __init__(self, units: int, places: int, share: float, capacity: int = CAPACITY, seed: int = 0):
        if not 0 < share < 1 or capacity < 2 or units < 1:
            raise BadInput(f"expected 0 < share < 1, capacity >= 2 and a unit; got {share}, {capacity} and {units}")
        self.wanted = math.floor(share * places)
        if self.wanted < 1:
            raise BadInput(
                f"expected at least {math.ceil(1 / share)} places for a threshold that a share of {share:g} exceeds; "
                f"the images have {places}. Give more images or a larger share"
            )
        self.units, self.places, self.share = units, places, share
        self.weight = math.ceil((self.wanted + 1) / capacity)
        self.seen = self.blocks = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._top: Tensor | None = None

    def add(self, values: Float[Tensor, "unit place"]) -> None:
        """Take in a block of the stream.

        Raises:
            BadInput: for another number of units, more places than announced, or values that are not finite.
        """
        if values.shape[0] != self.units or self.seen + values.shape[1] > self.places:
            raise BadInput(
                f"expected {self.units} units and {self.places - self.seen} more places; got {tuple(values.shape)}"
            )
        if not bool(torch.isfinite(values).all()):
            raise BadInput("expected finite activations; got NaN or infinity")
        self.seen += values.shape[1]
        self.blocks += 1
        few = values.topk(min(values.shape[1], self.wanted + 1), sorted=self.weight > 1).values
        if self.weight > 1:
            start = int(torch.randint(self.weight, (1,), generator=self._generator))
            few = few[:, start :: self.weight]
        top = few if self._top is None else torch.cat((self._top, few), 1)
        kept = (self.wanted // self.weight) + 1
        self._top = top if top.shape[1] <= kept else top.topk(kept, sorted=False).values

    def thresholds(self) -> Float[Tensor, " unit"]:
        """The least values that at most the wanted share of places exceed.

        Raises:
            BadInput: if the stream was shorter than announced.
        """
        if self.seen != self.places or self._top is None:
            raise BadInput(f"expected {self.places} places, as announced; only {self.seen} came")
        rank = self.wanted // self.weight
        order = self._top.sort(1, descending=True).values
        return order[:, min(rank, order.shape[1] - 1)]

    def bound(self, risk: float = 0.01) -> float:
        """By how much the share above a threshold may differ from the one wanted, where no values are equal.

        Args:
            risk: chance that one unit lies outside.

        Returns:
            a share of all places; 0 where thresholds are exact but for the remainder of a place.
        """
        if self.weight == 1:
            return 0.0
        spread = self.weight * math.sqrt(self.blocks * math.log(2 / risk) / 2)
        return (spread + self.weight) / self.places
