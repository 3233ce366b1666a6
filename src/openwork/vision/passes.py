"""A corpus of images on its way through a network, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from openwork.errors import BadInput, EditMissed
from openwork.network import Network
from openwork.network.grid import Grid
from openwork.network.image_format import needs_images
from openwork.network.session import Stop
from openwork.pictures import Pictures
from openwork.site import Site
from openwork.store.progress import Bar


@dataclass(frozen=True, eq=False)
class Pass:
    """What one batch of a corpus gives.

    Args:
        rows: of the corpus.
        pixels: their bytes (image, channel, y, x).
        values: site -> value, with the site's axes, on the network's device.
    """

    rows: tuple[int, ...]
    pixels: UInt8[Tensor, "image channel y x"]
    values: Mapping[str, Tensor]


def passes(
    net: Network,
    pictures: Pictures,
    sites: str | Site | Iterable[str | Site],
    batch: int = 64,
    rows: Sequence[int] | None = None,
) -> Iterator[Pass]:
    """Stream a corpus through a network.

    Nothing of a batch is held when the next one runs, so whoever reads this holds only what it reduces to. There is no
    graph of gradients, and a forward pass ends as soon as every site was seen.

    Args:
        net: reads images, and says what it wants of them.
        pictures: of the network's size.
        sites: sites or patterns.
        batch: how many images go through at once.
        rows: of the corpus, in this order; all of them unless given.

    Yields:
        one `Pass` a batch.

    Raises:
        BadInput: if the network takes no images or says nothing of what it wants of them, the images do not fit it, or
            the rows are none of the corpus.
        UnknownName: for a site that does not exist.
    """
    wanted = [sites] if isinstance(sites, (str, Site)) else list(sites)
    names = list(dict.fromkeys(str(site) for pattern in wanted for site in net.map.resolve(pattern)))
    needs_images(net)
    chosen = range(len(pictures)) if rows is None else list(rows)
    if batch < 1 or not names or not len(chosen):
        raise BadInput(f"expected sites, images and a batch of at least one; got {names}, {len(chosen)} and {batch}")
    if not all(0 <= row < len(pictures) for row in chosen):
        raise BadInput(f"expected rows of {pictures.name}, from 0 to {len(pictures) - 1}; got {list(chosen)!r:.80}")
    return _streamed(net, pictures, names, batch, chosen)


def _streamed(net: Network, pictures: Pictures, names: list[str], batch: int, chosen: Sequence[int]) -> Iterator[Pass]:
    with Bar(f"{len(chosen)} images of {pictures.name}", patience=1.0) as bar:
        for start in range(0, len(chosen), batch):
            some = tuple(chosen[start : start + batch])
            pixels = pictures.pixels(some)
            yield Pass(some, pixels, _seen(net, pixels, names))
            bar.tick(min(1.0, (start + batch) / len(chosen)))


def _seen(net: Network, pixels: Tensor, names: list[str]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> None:
        values[name] = value
        if len(values) == len(names):  # which of the sites is computed last, their names do not say
            raise Stop

    net.run(encoded(net, pixels), keep=names, to=see)
    missing = [name for name in names if name not in values]
    if missing:
        raise EditMissed(f"the site {missing[0]} never fired: these images do not go through it")
    return values


def encoded(net: Network, pixels: UInt8[Tensor, "image channel y x"]) -> Float[Tensor, "image channel y x"]:
    """What a network reads for the bytes of images, on its device and in its dtype.

    Raises:
        BadInput: if the network says nothing of what it wants of an image, or these are of another size.
    """
    values = needs_images(net).encode(pixels.to(net.device).float() / 255)
    return values.to(net.dtype)


def maps(value: Tensor, axes: Sequence[str], grid: Grid) -> Float[Tensor, "image channel y x"]:
    """The value of any site with places in the image as maps.

    Args:
        value: of the site.
        axes: of the site; whatever is neither image nor place becomes one axis of channels, such as (head, channel).
        grid: of the site; positions before its first place are left out.

    Raises:
        BadInput: if the value is not of this grid.
    """
    names = list(axes)
    if "batch" not in names or not ({"y", "x"} <= set(names) or "position" in names):
        raise BadInput(f"expected a site with images and places; got axes {tuple(names)}")
    flat = "position" in names
    places = [names.index("position")] if flat else [names.index("y"), names.index("x")]
    front = [names.index("batch")]
    rest = [i for i in range(value.ndim) if i not in (*front, *places)]
    moved = value.permute(*front, *rest, *places)
    if flat:
        count = moved.shape[-1]
        if count < grid.prefix + len(grid):
            raise BadInput(f"expected at least {grid.prefix + len(grid)} positions, as the grid has; got {count}")
        moved = moved[..., grid.prefix : grid.prefix + len(grid)]
    elif tuple(moved.shape[-2:]) != (grid.height, grid.width):
        raise BadInput(f"expected maps of {grid.height} x {grid.width} places; got {tuple(moved.shape[-2:])}")
    return moved.reshape(len(value), -1, grid.height, grid.width)
