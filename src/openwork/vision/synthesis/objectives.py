"""Many objectives in one forward pass: the terms of one kind are measured together, one a row."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openwork.errors import BadInput
from openwork.vision.synthesis.objective import Objective, Product, Rows, Sum, Term
from openwork.vision.synthesis.terms import Activation
from openwork.vision.units import Unit, channel_axis

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class _Together:
    """Terms that are measured at once: which rows they are of, and where their values go."""

    terms: tuple[Term, ...]
    rows: Int[Tensor, " term"]
    whole: bool
    units: Rows


class Objectives:
    """The objectives of a batch, measured with one gather a kind of term.

    Args:
        net: the network.
        objectives: one a row.
        units: the number of each row's unit.
    """

    def __init__(self, net: Network, objectives: Sequence[Objective], units: Sequence[int]):
        self.net, self.objectives = net, [_bound(net, o) for o in objectives]
        groups: dict[Hashable, list[tuple[int, Term]]] = {}
        for row, objective in enumerate(self.objectives):
            for term in dict.fromkeys(objective.terms()):
                groups.setdefault(term.kind, []).append((row, term))
        self.sites = tuple(dict.fromkeys(t.reads for o in self.objectives for t in o.terms() if t.reads is not None))
        device = net.device
        self.groups: list[_Together] = []
        self.place: dict[tuple[int, Term], int] = {}
        for members in groups.values():
            layers: list[list[tuple[int, Term]]] = []  # a kind may occur several times in one row
            for row, term in members:
                layer = next((x for x in layers if x[-1][0] != row), None)
                layer.append((row, term)) if layer is not None else layers.append([(row, term)])
            for layer in layers:
                for row, term in layer:
                    self.place[row, term] = len(self.place)
                numbers = [row for row, _ in layer]
                self.groups.append(
                    _Together(
                        tuple(term for _, term in layer),
                        torch.tensor(numbers, device=device),
                        numbers == list(range(len(objectives))),
                        Rows(tuple(units[row] for row in numbers)),
                    )
                )
        self._weights = self._linear(device)

    def __call__(self, values: Mapping[str, Tensor], pixels: Tensor) -> Float[Tensor, " row"]:
        """One number a row.

        Args:
            values: of the sites, as the network gives them; one row each.
            pixels: (row, channel, y, x), the pictures.
        """
        maps = {site: self.map(values[site], site) for site in self.sites}
        found = []
        for group in self.groups:
            reads = group.terms[0].reads
            value = pixels if reads is None else maps[reads]
            given = value if group.whole else value[group.rows]
            found.append(group.terms[0].together(group.terms, given, group.units))
        each = torch.cat(found)
        if self._weights is not None:
            rows, places, weights = self._weights
            return each.new_zeros(len(self.objectives)).index_add(0, rows, each[places] * weights.to(each))
        return torch.stack([
            o.total(lambda term, row=row: each[self.place[row, term]]) for row, o in enumerate(self.objectives)
        ])  # fmt: skip

    def map(self, value: Tensor, site: str) -> Float[Tensor, "row channel place"]:
        """(row, channel, place) of a site's value."""
        moved = value.movedim(channel_axis(self.net.map.info(site).axes), 1)
        return moved.flatten(2) if moved.ndim > 2 else moved[..., None]

    def _linear(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor] | None:
        """Row, place and weight of every term, where all objectives are weighted sums."""
        rows, places, weights = [], [], []
        for row, objective in enumerate(self.objectives):
            parts = objective.weights()
            if parts is None:
                return None
            for weight, term in parts:
                rows.append(row)
                places.append(self.place[row, term])
                weights.append(weight)
        return torch.tensor(rows, device=device), torch.tensor(places, device=device), torch.tensor(weights)


def prefix_of(net: Network, site: str) -> int:
    """Tokens before the first place of a site."""
    return net.grid(site).prefix if len(net.map.info(site).axes) == 3 else 0


def centre_of(net: Network, site: str) -> int:
    """The position in the middle of a site's places."""
    grid = net.grid(site)
    return grid.prefix + (grid.height // 2) * grid.width + grid.width // 2


def with_centre(net: Network, unit: Unit) -> Unit:
    """The unit at the middle of its map alone: a neuron."""
    return replace(unit, position=centre_of(net, unit.site))


def latent(dictionary: Any, index: int) -> Unit:
    """The unit that a latent of a dictionary reads along: the direction that it writes, at the site that it reads.

    Raises:
        BadInput: if there is no such latent.
    """
    if not 0 <= index < len(dictionary.directions):
        raise BadInput(f"expected a latent below {len(dictionary.directions)}; got {index}")
    vector = np.asarray(dictionary.directions[index].detach().cpu(), dtype=np.float64)
    return Unit(str(dictionary.reads), vector=tuple(vector.tolist()), called=f"{dictionary.reads} latent {index}")


def _bound(net: Network, objective: Objective) -> Objective:
    """The objective with what it must know of the network."""
    if isinstance(objective, Sum):
        return Sum(tuple((w, _bound(net, part)) for w, part in objective.parts))
    if isinstance(objective, Product):
        return Product(_bound(net, objective.left), _bound(net, objective.right))
    if isinstance(objective, Term) and objective.reads is not None:
        net.map.resolve(objective.reads)
    if isinstance(objective, Activation) and objective.unit.position is None:
        return replace(objective, prefix=prefix_of(net, objective.unit.site))
    return objective
