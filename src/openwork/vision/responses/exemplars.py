"""Dataset examples: the images that a unit prefers, those it likes least, and a few from every interval between.

    exemplars(net, "blocks.2.resid_post[3,7]", pictures)
    exemplars(net, Direction("blocks.3.resid_post", v), pictures, Exemplars(pool="mean", split="held-out"))

Only the strongest examples mislead: a unit that answers to dogs' heads most may answer to much else at half its
strength. So examples are shown in even intervals of activation over the unit's whole range.

Source: Bills et al. 2023 and Bricken et al. 2023 (examples in intervals); Olah et al. 2017 (dataset examples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from openwork.errors import BadInput
from openwork.network.measure import Tick, silent
from openwork.pictures import Masked, Pictures
from openwork.results.result import Result
from openwork.task import split_rows
from openwork.vision.passes import passes
from openwork.vision.streams import Extremes, Spread
from openwork.vision.units import Unit, box_of, grid_of, read_units, sites_of, units_of

if TYPE_CHECKING:
    import xarray

    from openwork.network import Network

POOLS, SPLITS = ("max", "mean"), ("find", "held-out", "all")
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 64
"""Of the histogram that is kept; its edges are even over the unit's range."""


@dataclass(frozen=True)
class Exemplars:
    """Which examples to show.

    Args:
        top: how many of the strongest.
        bottom: how many of the weakest.
        intervals: how many even intervals of activation.
        each: images from each interval, drawn at random.
        pool: ``max`` or ``mean`` of a unit over its places makes the activation of an image.
        split: the images that are looked at: those to find with, those held out, or all.
        held_out: which share of the corpus is held out.
        batch: images of one pass.
        seed: of the split and of what is drawn.
    """

    top: int = 9
    bottom: int = 9
    intervals: int = 6
    each: int = 3
    pool: str = "max"
    split: str = "find"
    held_out: float = 0.5
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pool not in POOLS or self.split not in SPLITS:
            raise BadInput(f"expected pool of {POOLS} and split of {SPLITS}; got {self.pool!r} and {self.split!r}")
        if min(self.top, self.bottom, self.intervals, self.each, self.batch) < 1 or not 0 < self.held_out < 1:
            raise BadInput(f"expected one or more of everything, and a share of held-out images; got {asdict(self)}")

    def rows(self, n: int) -> Int[np.ndarray, " image"]:
        """The rows of a corpus of `n` images that are looked at."""
        held = split_rows(n, self.seed, self.held_out)
        if self.split == "all":
            return np.arange(n)
        return np.array([row for row in range(n) if (row in held) == (self.split == "held-out")], dtype=np.int64)


def exemplars(
    net: Network, units: Any, pictures: Pictures, method: Exemplars = Exemplars(), *, tick: Tick = silent
) -> Result:
    """Find dataset examples of units.

    The corpus is read twice, and never held: once for the strongest, the weakest and the range, once for the intervals
    within it. All counts and examples are exact; quantiles are exact to a thousandth of the unit's range. The images in
    an interval are a uniform sample of those that fall in it. Nothing depends on the batch size but the network's own
    rounding.

    Args:
        net: a network that reads images.
        units: see `openwork.vision.units_of`: channels, directions, tokens, logits.
        pictures: the corpus.
        method: which examples.
        tick: told the share that is done.

    Returns:
        no findings (`predicts` tests what examples show), and a table with the axes ``unit``, ``example`` (``shown``:
        strongest, interval i, weakest; the strongest first), ``map_y``, ``map_x``: ``row`` of the corpus (-1 where
        there are too few), ``activation``, ``activation_map`` over the unit's places (NaN beyond a smaller map),
        ``place`` (the number of the example's strongest place, row by row), ``box`` (what that place can see: top,
        left, bottom, right), ``picture`` (index into ``pixels``, -1 where there is none); ``count`` of images in each
        ``interval`` with its ``edge``\\ s, ``histogram``, ``quantile`` by ``share``, ``mean``; and ``pixels`` of every
        shown image as bytes.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for a network that reads no images, a corpus too small, or an activation that is not finite.
    """
    chosen = units_of(net, units)
    rows = method.rows(len(pictures))
    if len(rows) < max(method.top, method.bottom):
        raise BadInput(
            f"expected at least {max(method.top, method.bottom)} {method.split} images for as many examples; "
            f"{pictures.name} has {len(rows)}. Give more images, or ask for fewer examples"
        )
    reader = Reader(net, chosen, pictures, method)
    extremes = Extremes(len(chosen), method.top, method.bottom)
    for number, (values, some) in enumerate(reader.stream(rows), 1):
        extremes.add(values, some)
        tick(0.47 * min(1.0, number * method.batch / len(rows)))
    spread = Spread(extremes.low, extremes.high, method.intervals, method.each, method.seed)
    for number, (values, some) in enumerate(reader.stream(rows), 1):
        spread.add(values, some)
        tick(0.47 + 0.47 * min(1.0, number * method.batch / len(rows)))
    table = _table(reader, extremes, spread, method)
    tick(1.0)
    settings = {**asdict(method), "units": [unit.name for unit in chosen], "pictures": pictures.name,
                "digest": pictures.digest}  # fmt: skip
    flat = [u.name for u, low, high in zip(chosen, extremes.low, extremes.high, strict=True) if low == high]
    remarks = [f"{name} has the same activation on every image" for name in flat]
    return Result("dataset examples", (), table, settings, tuple(remarks))


class Reader:
    """Reads what units do on images.

    Args:
        net: the network.
        units: which.
        pictures: the corpus.
        method: how places are pooled, and the batch.
    """

    def __init__(self, net: Network, units: Sequence[Unit], pictures: Pictures, method: Exemplars):
        self.net, self.units, self.pictures, self.method = net, tuple(units), pictures, method
        self.sites = sites_of(units)
        size = tuple(pictures.pixels([0]).shape[-2:])
        self.grids = {site: grid_of(net, site, (int(size[0]), int(size[1]))) for site in self.sites}

    def maps(self, rows: Sequence[int]) -> Any:
        """For each batch: the rows, and each unit's activation at its places (image, y, x)."""
        for part in passes(self.net, self.pictures, self.sites, batch=self.method.batch, rows=rows):
            yield np.asarray(part.rows), read_units(self.net, self.units, part.values, self.grids)

    def stream(self, rows: Sequence[int] | Int[np.ndarray, " image"]) -> Any:
        """For each batch: activations (image, unit), one an image, and the rows.

        Raises:
            BadInput: if one is not finite.
        """
        for some, found in self.maps([int(row) for row in rows]):
            flat = [values.flatten(1).double().cpu().numpy() for values in found]
            pooled = np.stack([getattr(np, self.method.pool)(values, axis=1) for values in flat], 1)
            for unit, values in zip(self.units, flat, strict=True):
                wrong = ~np.isfinite(values).all(1)
                if wrong.any():
                    raise BadInput(
                        f"expected finite activations; {unit.name} is NaN or infinite on image "
                        f"{int(some[wrong.argmax()])} of {self.pictures.name}"
                    )
            yield pooled, some


def _table(reader: Reader, extremes: Extremes, spread: Spread, method: Exemplars) -> xarray.Dataset:
    import xarray

    n = len(reader.units)
    between = slice(None, None, -1)  # the strongest interval first
    rows = np.concatenate([extremes.strongest[1], spread.rows[:, between].reshape(n, -1), extremes.weakest[1]], 1)
    values = np.concatenate([extremes.strongest[0], spread.values[:, between].reshape(n, -1), extremes.weakest[0]], 1)
    names = [f"interval {k + 1}" for k in reversed(range(method.intervals)) for _ in range(method.each)]
    shown = ["strongest"] * method.top + names + ["weakest"] * method.bottom
    needed = sorted({int(row) for row in rows.ravel() if row >= 0})
    maps, place, box = _places(reader, rows, needed)
    index = {row: i for i, row in enumerate(needed)}
    picture = np.array([[index.get(int(row), -1) for row in some] for some in rows])
    coarse = spread.fine.reshape(n, BINS, -1).sum(-1)
    variables: dict[str, Any] = {
        "row": (("unit", "example"), rows),
        "activation": (("unit", "example"), values),
        "activation_map": (("unit", "example", "map_y", "map_x"), maps),
        "place": (("unit", "example"), place),
        "box": (("unit", "example", "end"), box),
        "picture": (("unit", "example"), picture),
        "count": (("unit", "interval"), spread.counts),
        "edge": (("unit", "interval_edge"), spread.edges),
        "histogram": (("unit", "bin"), coarse),
        "quantile": (("unit", "share"), spread.quantiles(np.array(SHARES))),
        "mean": (("unit",), extremes.mean),
        "pixels": (("shown_picture", "colour", "pixel_y", "pixel_x"), reader.pictures.pixels(needed).numpy()),
    }
    classes = _classes(reader.pictures, needed)
    if classes:
        variables["picture_class"] = (("shown_picture",), np.array(classes))
    coords = {
        "unit": [unit.name for unit in reader.units],
        "shown": ("example", shown),
        "end": ["top", "left", "bottom", "right"],
        "share": np.array(SHARES),
        "shown_picture": needed,
    }
    return xarray.Dataset(
        variables, coords, {"network": reader.net.name, "images": int(extremes.n), "pool": method.pool}
    )


def _places(
    reader: Reader, rows: Int[np.ndarray, "unit example"], needed: Sequence[int]
) -> tuple[Float[np.ndarray, "unit example y x"], Int[np.ndarray, "unit example"], Int[np.ndarray, "unit example 4"]]:
    """Of every shown image: the unit's map, its strongest place and what that can see."""
    sizes = [(1, 1) if u.position is not None else (reader.grids[u.site].height, reader.grids[u.site].width)
             for u in reader.units]  # fmt: skip
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    maps = np.full((*rows.shape, height, width), np.nan, dtype=np.float32)
    place = np.full(rows.shape, -1, dtype=np.int64)
    box = np.zeros((*rows.shape, 4), dtype=np.int64)
    for some, found in reader.maps(needed):
        for i, values in enumerate(found):
            local = values.float().cpu().numpy()
            for j, row in enumerate(some):
                for k in np.flatnonzero(rows[i] == row):
                    maps[i, k, : local.shape[1], : local.shape[2]] = local[j]
                    place[i, k] = int(local[j].argmax())
                    box[i, k] = box_of(reader.units[i], reader.grids[reader.units[i].site], int(place[i, k]))
    return maps, place, box


def _classes(pictures: Pictures, rows: Sequence[int]) -> list[str]:
    """The names of the classes of images, where the corpus has any."""
    if not isinstance(pictures, Masked) or not pictures.class_names:
        return []
    return [pictures.class_names[int(k)] for k in pictures.classes(rows)]
