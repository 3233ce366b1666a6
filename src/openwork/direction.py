"""A direction or subspace at a site: where it lives, how long it is, where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openwork.edit import Add, Array, Project, SwapAlong
from openwork.errors import BadInput
from openwork.site import Site, Where


@dataclass(frozen=True)
class Direction:
    """A vector (channel,) or subspace (count, channel) at a site.

    Args:
        site: a `Site`: where it lives.
        array: an `Array`: its elements.
        origin: how it was found.
    """

    site: Any
    array: Any
    origin: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))
        object.__setattr__(self, "array", Array.of(self.array))
        if len(self.array.shape) not in (1, 2):
            raise BadInput(f"expected a direction of shape (channel,) or (count, channel); got {self.array.shape}")

    def add(self, scale: float, where: Where | None = None) -> Add:
        """The edit that adds `scale` times the vector."""
        return Add(self.site, where or Where(), vector=self.array, scale=scale)

    def project(self, keep: bool = False, where: Where | None = None) -> Project:
        """The edit that projects it out, or (`keep`) everything else."""
        return Project(self.site, where or Where(), directions=self.array, keep=keep)

    def swap(self, source: str = "clean", where: Where | None = None) -> SwapAlong:
        """The edit that swaps in the component of another run."""
        return SwapAlong(self.site, where or Where(), directions=self.array, source=source)
