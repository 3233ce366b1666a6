"""How much of a behaviour a circuit carries alone, and how much is left without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Edit
from openwork.errors import BadInput
from openwork.faithfulness.components import Component
from openwork.faithfulness.measure import Cell, Meter, Tick, patch, set_to, silent

Ablation = Literal["corrupted", "mean"]
Table = Float[np.ndarray, "circuit example"]


@dataclass(eq=False)
class Judge:
    """Measures circuits on one batch of examples.

    f(C) = (m(C) − m(∅)) / (m(M) − m(∅)): the metric with only C left, between everything ablated (0) and the whole
    network (1). Of one example, only the numerator is its own; the gap is the mean over examples, so that the mean of
    the numbers of all examples is f(C).

    Args:
        meter: the examples.
        components: all components; those outside a circuit are ablated.
        ablation: they get their value in the ``corrupted`` run, or a constant (``mean``).
        means: path -> mean value; for ``mean``.

    Raises:
        BadInput: if ablating everything does not lower the metric: then nothing can be faithful.

    Source:
        Wang et al. 2022, Interpretability in the Wild, section 4; Mueller et al. 2025, MIB, section 3.
    """

    meter: Meter
    components: Sequence[Component]
    ablation: Ablation = "corrupted"
    means: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.ablation == "mean" and self.means is None:
            raise BadInput("expected the mean of each site for ablation='mean'; got none")
        self.full, self.empty = self.meter.measure([Cell(), Cell(self.without(self.components))])
        self.gap = float((self.full - self.empty).mean())
        sign = 1 if self.meter.metric.higher_is_better else -1
        if sign * self.gap <= 0:
            raise BadInput(
                f"expected ablating every component to lower the {self.meter.metric.name}; it goes from "
                f"{self.full.mean():.3g} to {self.empty.mean():.3g}: there is no behaviour to explain, or "
                "choose another ablation"
            )

    def on_first(self, examples: int) -> Judge:
        """The same judge on the first examples only; itself if it has no more than those."""
        if len(self.meter.batch) <= examples:
            return self
        return Judge(self.meter.on_first(examples), self.components, self.ablation, self.means)

    def without(self, components: Iterable[Component]) -> tuple[Edit, ...]:
        """The edits that ablate some components."""
        if self.ablation == "mean":
            assert self.means is not None
            return set_to(components, self.means)
        return patch(components, "corrupted")

    def alone(self, circuits: Sequence[Iterable[Component]], tick: Tick = silent) -> Table:
        """f of each circuit on each example, everything else ablated.

        Circuits that come twice are run once.
        """
        return self._each([frozenset(self.components) - frozenset(c) for c in circuits], tick)

    def removed(self, circuits: Sequence[Iterable[Component]], tick: Tick = silent) -> Table:
        """f of the rest of the network on each example, each circuit ablated."""
        return self._each([frozenset(c) for c in circuits], tick)

    def _each(self, ablated: Sequence[frozenset[Component]], tick: Tick) -> Table:
        distinct = list(dict.fromkeys(ablated))
        values = self.meter.measure([Cell(self.without(gone)) for gone in distinct], tick)
        scores = (values - self.empty) / self.gap
        place = {gone: i for i, gone in enumerate(distinct)}
        return scores[[place[gone] for gone in ablated]]
