"""What a unit of a picture network is: a channel of a map, a direction, a token's channel, a logit; and how it is read.

units_of(net, "blocks.2.resid_post[3,7]")            # two channels, at every place
units_of(net, Direction("blocks.2.resid_post", vector))
units_of(net, Unit("blocks.3.resid_post", channel=5, position=0))    # of the CLS token
units_of(net, "logits[2]")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.direction import Direction
from openwork.errors import BadInput
from openwork.network.grid import Grid
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

MAP, TOKENS, CHANNELS = 4, 3, 2
"""The numbers of axes of a map of channels, of tokens, and of what has no places."""


@dataclass(frozen=True)
class Unit:
    """One number at each place of a map, at one of its places, or of a whole image.

    Args:
        site: its base name, without an index.
        channel: which channel, unit or logit; None of a direction.
        vector: a direction over channels instead.
        position: the one place that is read, as positions of the site count; None for every place but the tokens that
            stand for none.
        called: a name for it.

    Raises:
        BadInput: if it has neither a channel nor a vector, or both.
    """

    site: str
    channel: int | None = None
    vector: tuple[float, ...] | None = None
    position: int | None = None
    called: str = ""

    def __post_init__(self) -> None:
        if (self.channel is None) == (self.vector is None):
            raise BadInput(f"expected a channel or a direction at {self.site}; got {self.channel} and {self.vector}")

    @property
    def name(self) -> str:
        """What it is called in results."""
        what = f"[{self.channel}]" if self.channel is not None else " along a direction"
        at = "" if self.position is None else f" at {self.position}"
        return self.called or f"{self.site}{what}{at}"

    def read(self, value: Tensor, axes: tuple[str, ...], prefix: int, width: int) -> Float[Tensor, "image y x"]:
        """Its activation at each of its places.

        Args:
            value: of its site: (image, channel, y, x), (image, position, channel) or (image, channel).
            axes: of the site.
            prefix: tokens before the first place.
            width: places in a row.
        """
        channels = value.movedim(channel_axis(axes), -1)
        if self.channel is not None:
            found = channels[..., self.channel]
        else:
            found = channels @ torch.tensor(self.vector, dtype=channels.dtype, device=channels.device)
        if found.ndim == 1:
            return found[:, None, None]
        if self.position is not None:
            return found.flatten(1)[:, self.position][:, None, None]
        if found.ndim == 3:
            return found
        found = found[:, prefix:]
        return found.reshape(len(found), -1, width)


def channel_axis(axes: tuple[str, ...]) -> int:
    """Which axis counts channels: the second of a map, else the last."""
    return 1 if len(axes) == MAP else len(axes) - 1


def units_of(net: Network, units: Any) -> tuple[Unit, ...]:
    """The units that are meant.

    Args:
        net: the network.
        units: a site or pattern with or without an index (every channel then), a `Direction`, a `Unit`, or several.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for an index out of range, a direction of another length, a site that has no channels (such as
            attention weights or heads), or no units.
    """
    if isinstance(units, str | Site | Direction | Unit) or not isinstance(units, Iterable):
        units = [units]
    found: list[Unit] = []
    for one in units:
        found += _units(net, one)
    if not found:
        raise BadInput("expected at least one unit, such as 'blocks.2.resid_post[3]'; got none")
    return tuple(dict.fromkeys(found))


def channels_of(net: Network, site: str) -> int:
    """How many channels a site has.

    Raises:
        BadInput: if it has none that are one number at a place.
    """
    info = net.map.info(site)
    if info.axes[0] != "batch" or not CHANNELS <= len(info.axes) <= MAP or {"head", "query"} & {*info.axes}:
        raise BadInput(f"expected a site with channels over places; {site} has the axes {info.axes}. Give a Direction")
    return info.shape[channel_axis(info.axes)]


def _units(net: Network, one: Any) -> list[Unit]:
    if isinstance(one, Unit):
        units = [one]
    elif isinstance(one, Direction):
        if len(one.array.shape) != 1:
            raise BadInput(f"expected one direction; got a subspace of shape {one.array.shape}")
        vector = np.asarray(one.array.numpy(), dtype=np.float64)
        called = one.origin and f"{one.site} along {one.origin}"
        units = [Unit(str(one.site), vector=tuple(vector.tolist()), called=called)]
    elif isinstance(one, str | Site):
        units = []
        for site in net.map.resolve(one):
            channels = site.index or range(channels_of(net, site.path))
            units += [Unit(site.path, channel) for channel in channels]
    else:
        raise BadInput(f"expected a site, a Direction or a Unit; got {type(one).__name__}")
    for unit in units:
        (site,) = net.map.resolve(unit.site)
        n = channels_of(net, site.path)
        if unit.channel is not None and not 0 <= unit.channel < n:
            raise BadInput(f"expected a channel below {n} of {site}; got {unit.channel}")
        if unit.vector is not None and len(unit.vector) != n:
            raise BadInput(f"expected a direction over the {n} channels of {site}; got {len(unit.vector)} numbers")
        info = net.map.info(site.path)
        places = int(np.prod(info.shape)) // (info.shape[0] * n)
        if unit.position is not None and not 0 <= unit.position < places:
            raise BadInput(f"expected a position below {places} of {site}; got {unit.position}")
    return units


def sites_of(units: Iterable[Unit]) -> list[str]:
    """Their sites, each once."""
    return list(dict.fromkeys(unit.site for unit in units))


def read_units(
    net: Network, units: Iterable[Unit], values: Mapping[str, Tensor], grids: Mapping[str, Grid]
) -> list[Float[Tensor, "image y x"]]:
    """The activation of each unit at each of its places."""
    return [
        unit.read(values[unit.site], net.map.info(unit.site).axes, grids[unit.site].prefix, grids[unit.site].width)
        for unit in units
    ]


def grid_of(net: Network, site: str, image: tuple[int, int]) -> Grid:
    """The grid of a site; where it has no places, as logits have none, one place that sees the whole image."""
    if "position" in net.map.info(site).axes or "y" in net.map.info(site).axes:
        return net.grid(site, image)
    middle = ((image[0] - 1) / 2, (image[1] - 1) / 2)
    whole = (float(image[0]), float(image[1]))
    return Grid(1, 1, 0, whole, middle, whole, image, True)


def box_of(unit: Unit, grid: Grid, place: int) -> tuple[int, int, int, int]:
    """What the place of a unit can see; a token that stands for no place sees the whole image."""
    position = grid.prefix + place if unit.position is None else unit.position
    return (0, 0, *grid.image) if position < grid.prefix else grid.box(position)
