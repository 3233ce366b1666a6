"""Where units are active and what is there: intersection over union of many units with many concepts.

Maps are enlarged to the masks' resolution by bilinear interpolation between the centres of their places. Only maps
that have a place above the threshold are: interpolation never exceeds what it interpolates.

Source: Bau et al. 2017, Network Dissection, section 2.3, equation 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.network.grid import Grid

AT_ONCE = 16_000_000
"""Pixels of enlarged maps that are held at once."""


@dataclass(frozen=True)
class Concepts:
    """The concepts of all categories, one after the other.

    Args:
        categories: category -> its concepts.
    """

    categories: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if not any(self.categories.values()):
            raise BadInput(
                "expected pictures with masks of concepts; these have none. Give a corpus that says what each pixel "
                "shows, such as worlds.shapes or photographs with --masks"
            )

    def __len__(self) -> int:
        return sum(map(len, self.categories.values()))

    @property
    def names(self) -> list[str]:
        """Each concept with its category, e.g. ``part wheel``."""
        return [f"{category} {name}" for category, names in self.categories.items() for name in names]

    @property
    def category(self) -> Int[np.ndarray, " concept"]:
        """Which category each concept is of."""
        return np.repeat(np.arange(len(self.categories)), [len(names) for names in self.categories.values()])

    def checked(self, masks: Mapping[str, Tensor], size: tuple[int, int]) -> list[Int[Tensor, "image pixel"]]:
        """The masks of some images in the order of the categories, one row an image.

        Raises:
            BadInput: if a category is missing, a mask is of another size, or an id names no concept.
        """
        flat = []
        for category, names in self.categories.items():
            if category not in masks:
                raise BadInput(f"expected masks of {category}; got those of {sorted(masks)}")
            mask = masks[category]
            if tuple(mask.shape[1:]) != size:
                raise BadInput(f"expected masks of {category} of the images' size {size}; got {tuple(mask.shape[1:])}")
            low, high = (int(v) for v in torch.aminmax(mask))
            if low < 0 or high > len(names):
                raise BadInput(
                    f"expected ids of {category} from 0 (unlabelled) to {len(names)}; got {low} to {high}. Id k stands "
                    "for the k-th name"
                )
            flat.append(mask.reshape(len(mask), -1).long())
        return flat


def enlarging(grid: Grid, size: tuple[int, int]) -> tuple[Float[Tensor, "y row"], Float[Tensor, "x column"]]:
    """The matrices of bilinear interpolation from the places of a map to pixels.

    A pixel between the centres of two places mixes them by its distances; beyond the first or last centre it has the
    value of that place.

    Args:
        grid: where the places lie.
        size: (height, width) in pixels.
    """
    rows, columns = (
        _mixing(offset + stride * np.arange(count), pixels)
        for offset, stride, count, pixels in zip(grid.offset, grid.stride, (grid.height, grid.width), size, strict=True)
    )
    return rows, columns


def _mixing(centres: Float[np.ndarray, " place"], pixels: int) -> Float[Tensor, "pixel place"]:
    each = [np.interp(np.arange(pixels), centres, unit) for unit in np.eye(len(centres))]
    return torch.tensor(np.stack(each, 1), dtype=torch.float32)


def enlarged(maps: Float[Tensor, "*map row column"], mixing: tuple[Tensor, Tensor]) -> Float[Tensor, "*map y x"]:
    """Maps at the resolution of the masks."""
    down, across = (m.to(maps) for m in mixing)
    return down @ maps @ across.T


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixels of some images.

    Args:
        both: (image, unit, concept) active and labelled so.
        active: (image, unit) active at all.
        area: (image, concept) labelled so.
        labelled: (image, category) whether the image carries labels of the category.
    """

    both: Int[Tensor, "image unit concept"]
    active: Int[Tensor, "image unit"]
    area: Int[Tensor, "image concept"]
    labelled: Bool[Tensor, "image category"]


def counts(
    maps: Float[Tensor, "image unit row column"],
    thresholds: Float[Tensor, " unit"],
    masks: list[Int[Tensor, "image pixel"]],
    concepts: Concepts,
    mixing: tuple[Tensor, Tensor],
) -> Counts:
    """Count active pixels by concept.

    Args:
        maps: of some images.
        thresholds: a pixel is active above its unit's.
        masks: of the same images, one tensor a category; see `Concepts.checked`.
        concepts: which there are.
        mixing: see `enlarging`.
    """
    n, units = maps.shape[:2]
    sizes = [len(names) for names in concepts.categories.values()]
    live = (maps.amax((2, 3)) > thresholds).nonzero()
    pixels = mixing[0].shape[0] * mixing[1].shape[0]
    active = torch.zeros(n, units, dtype=torch.long)
    tables = [torch.zeros(n * units * (size + 1), dtype=torch.long) for size in sizes]
    for some in live.split(max(1, AT_ONCE // pixels)):
        image, unit = some.unbind(1)
        above = (enlarged(maps[image, unit], mixing) > thresholds[unit, None, None]).flatten(1)
        active[image, unit] = above.sum(1)
        pair, pixel = above.nonzero(as_tuple=True)
        base = (image * units + unit)[pair]
        for table, mask, size in zip(tables, masks, sizes, strict=True):
            table += torch.bincount(base * (size + 1) + mask[image[pair], pixel], minlength=len(table))
    both = [t.view(n, units, size + 1)[..., 1:] for t, size in zip(tables, sizes, strict=True)]
    area = []
    for mask, size in zip(masks, sizes, strict=True):
        offset = torch.arange(n)[:, None] * (size + 1)
        area.append(torch.bincount((mask + offset).flatten(), minlength=n * (size + 1)).view(n, size + 1)[:, 1:])
    labelled = torch.stack([a.sum(1) > 0 for a in area], 1)
    return Counts(torch.cat(both, 2), active, torch.cat(area, 1), labelled)


class Overlap:
    """Adds up counts over a corpus: intersection over union of every unit with every concept, with its interval.

    Activations count only in images that carry labels of the concept's category. Memory does not grow with the corpus.

    Args:
        units: how many.
        concepts: which there are.
    """

    def __init__(self, units: int, concepts: Concepts):
        shape = (units, len(concepts))
        self.concepts = concepts
        self.both, self.either = torch.zeros(shape, dtype=torch.double), torch.zeros(shape, dtype=torch.double)
        self._squares = torch.zeros((3, *shape), dtype=torch.double)
        self.images = torch.zeros(len(concepts.categories), dtype=torch.long)

    def add(self, found: Counts) -> None:
        """Take in the counts of some images."""
        both, either = pairs(found, self.concepts)
        self.both += both.sum(0)
        self.either += either.sum(0)
        self._squares += torch.stack(((both * both).sum(0), (both * either).sum(0), (either * either).sum(0)))
        self.images += found.labelled.sum(0)

    @property
    def iou(self) -> Float[np.ndarray, "unit concept"]:
        """Of every unit with every concept; 0 where neither occurs."""
        return (self.both / self.either.clamp_min(1)).numpy()

    @property
    def error(self) -> Float[np.ndarray, "unit concept"]:
        """The standard error of `iou` over labelled images, as that of a ratio of means (NaN for fewer than two)."""
        n = self.images[torch.as_tensor(self.concepts.category)].double()
        ratio = self.both / self.either.clamp_min(1)
        square = self._squares[0] - 2 * ratio * self._squares[1] + ratio**2 * self._squares[2]
        error = (square.clamp_min(0) * n / (n - 1).clamp_min(1)).sqrt() / self.either.clamp_min(1)
        return torch.where(n > 1, error, float("nan")).numpy()


def pairs(found: Counts, concepts: Concepts) -> tuple[Tensor, Tensor]:
    """Intersection and union of each image, unit and concept; both 0 in images without labels of the category."""
    counted = found.labelled[:, torch.as_tensor(concepts.category)]
    both = found.both.double()
    either = found.active[:, :, None] * counted[:, None] + found.area[:, None] - found.both
    return both, either.double()


def influences(both: Float[np.ndarray, " image"], either: Float[np.ndarray, " image"]) -> Float[np.ndarray, " image"]:
    """What each image makes of a ratio of sums: values whose mean is the ratio and whose spread is its error's.

    Source: the linearisation of a ratio, Cochran 1977, Sampling Techniques, section 6.4.
    """
    total = either.sum()
    if not total:
        return np.zeros_like(both)
    ratio = both.sum() / total
    return ratio + (both - ratio * either) / either.mean()
