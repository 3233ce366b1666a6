"""Images that networks look at, and where in them networks are compared.

A place is a point of the image, in shares of its height and width. So maps of any grid, tokens of patches, and images
of several sizes meet there: each site is read at the place whose cell holds the point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from openwork.errors import BadInput
from openwork.network.image_format import needs_images
from openwork.pictures import ImageFormat, Pictures
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

Patterns = Sequence[str | Site]
Points = Float[np.ndarray, "image place 2"]


@dataclass(frozen=True, eq=False)
class Views:
    """The same images as each of several networks reads them.

    Args:
        corpora: one for each network: image i of each shows the same, at the size that the network reads.
    """

    corpora: tuple[Pictures, ...]

    def __post_init__(self) -> None:
        counts = [len(corpus) for corpus in self.corpora]
        if not counts or len({*counts}) > 1:
            raise BadInput(f"expected a corpus for each network, with the same images; got {counts} images")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.corpora[0])

    @property
    def digests(self) -> list[str]:
        """A sha256 of each corpus."""
        return [corpus.digest for corpus in self.corpora]

    def size(self, number: int) -> tuple[int, int]:
        """(height, width) in pixels of what a network reads."""
        height, width = self.corpora[number].pixels([0]).shape[-2:]
        return height, width

    def encoded(self, form: ImageFormat, rows: Sequence[int], number: int) -> Float[Tensor, "image channel y x"]:
        """Some images as a network reads them."""
        return form.encode(self.corpora[number].pixels(list(rows)).float() / 255)


def views_of(material: Any, nets: Sequence[Network]) -> Views | None:
    """The images that are meant for networks, or None where the material is something else.

    Args:
        material: a corpus that all networks read, or `Views` with one for each.
        nets: the networks.

    Raises:
        BadInput: if there are not as many corpora as networks, or a network reads no images.
    """
    if isinstance(material, Views):
        found = material
    elif hasattr(material, "pixels") and hasattr(material, "digest"):
        found = Views((material,) * len(nets))
    else:
        return None
    if len(found.corpora) != len(nets):
        raise BadInput(f"expected a corpus for each of {len(nets)} networks; got {len(found.corpora)}")
    for net in nets:
        needs_images(net)
    return found


def grids(net: Network, patterns: Patterns, image: tuple[int, int]) -> Mapping[str, Grid | None]:
    """Site -> its places in the image, or None where it has one value for all of it.

    Args:
        net: the network.
        patterns: sites or patterns.
        image: (height, width) in pixels.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for a site with places of which it cannot be told where they lie.
    """
    names = dict.fromkeys(name for pattern in patterns for name in net.select(pattern))
    return {name: _grid(net, name, image) for name in names}


def _grid(net: Network, site: str, image: tuple[int, int]) -> Grid | None:
    info = net.map.info(Site.parse(site).path)
    extents = dict(zip(info.axes, info.shape, strict=True))
    if "position" not in extents and not {"y", "x"} <= {*extents}:
        return None
    if extents.get("y") == extents.get("x") == 1:
        return None
    return net.grid(site, image)


def points(among: Sequence[Grid], images: int, most: int, seed: int) -> Points:
    """Points of images: the middles of some cells, chosen at random, of the coarsest grid.

    So no site is read twice at one place of an image, which would be counted as if two places were alike; and finer
    maps are read where the coarsest one looks.

    Args:
        among: the grids of all sites that are read.
        images: how many.
        most: points in each, at most.
        seed: of the choice.

    Returns:
        (y, x) as shares of height and width.

    Raises:
        BadInput: if no cell of that grid lies in the image.
    """
    grid = min(among, key=len)
    cells = np.array([grid.cell(grid.prefix + place) for place in range(len(grid))])
    middles = centres(grid)[(cells[:, 2] > cells[:, 0]) & (cells[:, 3] > cells[:, 1])]
    if not len(middles):
        raise BadInput(f"expected a site with places in the image; none of {grid} lies there")
    draws = (np.random.default_rng((seed, image)).permutation(len(middles)) for image in range(images))
    return np.array([middles[np.sort(drawn[:most])] for drawn in draws])


def positions(grid: Grid, at: Float[np.ndarray, "*place 2"]) -> Int[np.ndarray, " *place"]:
    """The position whose cell holds each point; beyond the outermost cells the nearest one.

    Args:
        grid: of the site.
        at: (y, x) as shares of height and width.
    """
    pixel = np.floor(at * np.array(grid.image))
    place = np.floor((pixel - np.array(grid.offset)) / np.array(grid.stride) + 0.5).astype(np.int64)
    row, column = (np.clip(place[..., i], 0, n - 1) for i, n in enumerate((grid.height, grid.width)))
    return grid.prefix + row * grid.width + column


def centres(grid: Grid) -> Float[np.ndarray, "place 2"]:
    """The middle of each place's cell, as shares of height and width."""
    middle = np.array([grid.centre(grid.prefix + place) for place in range(len(grid))])
    return np.clip((middle + 0.5) / np.array(grid.image), 0.0, np.nextafter(1.0, 0.0))


def laid_out(value: Tensor, axes: Sequence[str]) -> Float[Tensor, "image position *channel"]:
    """The value of a site by image and position; all other axes in their order.

    Args:
        value: of the site.
        axes: of the site, images first; a map's position is its flat index, and what has no places has one.
    """
    if "position" in axes:
        return value.movedim(axes.index("position"), 1)
    if "y" in axes and "x" in axes:
        return value.movedim((axes.index("y"), axes.index("x")), (1, 2)).flatten(1, 2)
    return value[:, None]


def laid_back(value: Tensor, like: Tensor, axes: Sequence[str]) -> Tensor:
    """The inverse of `laid_out`, for a value of this shape."""
    if "position" in axes:
        return value.movedim(1, axes.index("position"))
    if "y" in axes and "x" in axes:
        at = axes.index("y"), axes.index("x")
        return value.unflatten(1, (like.shape[at[0]], like.shape[at[1]])).movedim((1, 2), at)
    return value[:, 0]
