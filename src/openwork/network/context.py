"""What edits at one site can look at while a network runs, and the ledger of what they reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from openwork.edit import Edit
from openwork.network.layout import Layout, RegionGroups, place_axes
from openwork.network.session import Session
from openwork.site import Where

if TYPE_CHECKING:
    from openwork.network.grid import Grid
    from openwork.network.network import Network


@dataclass(eq=False)
class SourceRun:
    """The values of another run: base site name -> tensor, with the layout of its rows."""

    values: Mapping[str, Tensor]
    layout: Layout


@dataclass(eq=False)
class Ledger:
    """How often an edit fired and how many rows it reached."""

    edit: Edit
    site: str
    fired: int = 0
    rows: int = 0


@dataclass(eq=False)
class Context:
    """What edits at one site can look at.

    Args:
        session: the session, for the decoding step.
        layout: the layout of the batch that runs; None where positions are not those of the inputs.
        axes: the site's axes.
        part_axis: the axis that an index selects on.
        sources: the source runs by name.
        surrogates: the surrogates by name.
        site: the base name of the site.
        inputs: the layout of the inputs, for the regions of images.
        grid: of the site, for images of the inputs' size.
    """

    session: Session
    layout: Layout | None
    axes: tuple[str, ...]
    part_axis: int
    sources: Mapping[str, SourceRun]
    surrogates: Mapping[str, Callable[[Tensor], Tensor]]
    site: str
    inputs: Layout | None = None
    grid: Callable[[], Grid] | None = None
    reads: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[tuple[Where, int, int], Tensor | None] = field(default_factory=dict)

    @classmethod
    def at(
        cls,
        net: Network,
        session: Session,
        site: str,
        layout: Layout,
        sources: Mapping[str, SourceRun],
        surrogates: Mapping[str, Callable[[Tensor], Tensor]],
    ) -> Context:
        """What edits at a site of a network can look at, for inputs of a layout."""
        info = net.map.info(site)
        image = next(((mask.shape[1], mask.shape[2]) for mask in layout.regions.values()), None)
        return cls(
            session, net.map.layout_at(site, layout), info.axes, info.part_axis, sources, surrogates, site, layout,
            lambda: net.grid(site, image),
        )  # fmt: skip

    def column_axis(self) -> int | None:
        """The axis that `Where.positions` selects on, once `flat` has made one of rows and columns."""
        return self.places[0] if self.places else None

    busy: bool = False

    def __post_init__(self) -> None:
        self.foreign = self.layout is None
        self.places = place_axes(self.axes)

    def flat(self, value: Tensor) -> Tensor:
        """The value with one axis of positions."""
        return value.flatten(self.places[0], self.places[-1]) if len(self.places) > 1 else value

    def columns(self, value: Tensor) -> int:
        """The number of positions of a value."""
        return math.prod(value.shape[axis] for axis in self.places)

    def see(self, value: Tensor) -> None:
        """Take the layout from the value where the inputs' does not hold."""
        if self.layout is None:
            self.layout = self.own_layout(value, self.inputs)

    def own_layout(self, value: Tensor, inputs: Layout | None) -> Layout:
        """The layout of a value of the site whose positions are not those of the inputs."""
        layout = Layout.full(value.shape[0], self.columns(value))
        if inputs is not None and inputs.regions and self.grid is not None:
            layout.groups = RegionGroups(inputs.regions, self.grid, value.shape[0])
        return layout

    @property
    def rows(self) -> Layout:
        """The layout of the site's positions."""
        assert self.layout is not None
        return self.layout

    def mask(self, where: Where, size: int, step: int) -> Tensor | None:
        """`Layout.mask`, computed once."""
        key = (where, size, step)
        if key not in self.masks:
            self.masks[key] = self.rows.mask(*key)
        return self.masks[key]
