"""Where the positions of a site lie in the image, and what each of them sees."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from openwork.errors import BadInput
from openwork.network.follow import Follower, Following
from openwork.network.lie import Lie
from openwork.network.session import Session, Stop

if TYPE_CHECKING:
    from openwork.network.network import Network

ROWS = 2
"""Rows of the pass that is followed: an axis of one row could not be told from other axes of length one."""


@dataclass(frozen=True)
class Grid:
    """The places of a site in the image. A position is ``prefix + y * width + x``.

    Pixel 0 is centred at 0 and reaches from -0.5 to 0.5; pairs are (y, x).

    Args:
        height: places in a column.
        width: places in a row.
        prefix: positions before the first place, such as a class token.
        stride: pixels from one place to the next.
        offset: the centre of the first place.
        field: how many pixels a place can see at most, centred on it; all of the image where something global came in
            between, such as attention.
        image: (height, width) of the image in pixels.
        everywhere: whether a place may see the whole image.
    """

    height: int
    width: int
    prefix: int
    stride: tuple[float, float]
    offset: tuple[float, float]
    field: tuple[float, float]
    image: tuple[int, int]
    everywhere: bool = False

    def __len__(self) -> int:
        """The number of places."""
        return self.height * self.width

    def place(self, position: int) -> tuple[int, int]:
        """Row and column of a position.

        Raises:
            BadInput: if no place has it.
        """
        number = position - self.prefix
        if not 0 <= number < len(self):
            raise BadInput(
                f"expected a position from {self.prefix} to {self.prefix + len(self) - 1}; got {position}"
                + (f" (the first {self.prefix} lie nowhere in the image)" if position < self.prefix else "")
            )
        return divmod(number, self.width)

    def centre(self, position: int) -> tuple[float, float]:
        """The pixel (y, x) that a place is centred on."""
        place = self.place(position)
        return (self.offset[0] + self.stride[0] * place[0], self.offset[1] + self.stride[1] * place[1])

    def box(self, position: int) -> tuple[int, int, int, int]:
        """The pixels that a place can see: rows from `top` to before `bottom`, columns likewise.

        Returns:
            (top, left, bottom, right), clipped to the image.
        """
        if self.everywhere:
            self.place(position)
            return (0, 0, *self.image)
        return self._clipped(position, self.field)

    def cell(self, position: int) -> tuple[int, int, int, int]:
        """The pixels nearer to this place than to any other, as `box` gives them; of a patch token, its patch."""
        return self._clipped(position, self.stride)

    def _clipped(self, position: int, size: tuple[float, float]) -> tuple[int, int, int, int]:
        ends = []
        for centre, extent, whole in zip(self.centre(position), size, self.image, strict=True):
            first = _up(centre - extent / 2)
            last = _up(centre + extent / 2)
            ends.append((min(max(first, 0), whole), max(min(last, whole), 0)))
        (top, bottom), (left, right) = ends
        return top, left, max(bottom, top), max(right, left)

    def positions(self, mask: Bool[Tensor, "y x"]) -> list[int]:
        """The positions whose cell lies mostly in a mask of pixels.

        Args:
            mask: of the image's size.

        Raises:
            BadInput: if it is of another size.
        """
        if tuple(mask.shape) != tuple(self.image):
            raise BadInput(f"expected a mask of {self.image[0]} x {self.image[1]} pixels; got {tuple(mask.shape)}")
        sums = torch.zeros(self.image[0] + 1, self.image[1] + 1, dtype=torch.long)
        sums[1:, 1:] = mask.long().cpu().cumsum(0).cumsum(1)
        # a cell is its row's span of pixels by its column's
        top, bottom = torch.tensor([self.cell(self.prefix + y * self.width)[::2] for y in range(self.height)]).T
        left, right = torch.tensor([self.cell(self.prefix + x)[1::2] for x in range(self.width)]).T
        inside = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
        mostly = 2 * inside > (bottom - top)[:, None] * (right - left)
        return [self.prefix + int(place) for place in mostly.flatten().nonzero()]


def _up(edge: float) -> int:
    """The first pixel whose centre is not before an edge."""
    return -int(-(edge) // 1)


def find_grid(net: Network, site: str, image: tuple[int, int] | None = None) -> Grid:
    """See `Network.grid`."""
    size, kwargs = _image_of(net, image)
    key = (site, size)
    if key not in net.grids:
        lie = _lie(net, site, kwargs)
        if lie is None or not lie.placed:
            raise BadInput(
                f"expected a site whose places lie in the image; those of {site}, which has axes "
                f"{net.map.info(site).axes}, cannot be told"
            )
        net.grids[key] = _grid(lie, size)
    return net.grids[key]


def _grid(lie: Lie, image: tuple[int, int]) -> Grid:
    assert lie.y is not None
    assert lie.x is not None
    field = image if lie.whole else (float(lie.y.field), float(lie.x.field))
    stride, offset = (float(lie.y.stride), float(lie.x.stride)), (float(lie.y.offset), float(lie.x.offset))
    return Grid(*lie.size, lie.prefix, stride, offset, (float(field[0]), float(field[1])), image, lie.whole)


def _image_of(net: Network, image: tuple[int, int] | None) -> tuple[tuple[int, int], Mapping[str, Any]]:
    """An image of a size and the arguments with it."""
    main = net.preparer.main
    value = net.example.get(main)
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != 4:
        raise BadInput(f"expected a network that reads images; {net.name} reads {main}")
    named = net.preparer.axes or ("batch", "channel", "y", "x")
    axes = (named.index("y"), named.index("x"))
    if image is None:
        image = net.images.size if net.images is not None and net.images.size is not None else None
    size = (value.shape[axes[0]], value.shape[axes[1]]) if image is None else (int(image[0]), int(image[1]))
    shape = [ROWS if i == 0 else n for i, n in enumerate(value.shape)]
    shape[axes[0]], shape[axes[1]] = size
    others = {k: v for k, v in net.example.items() if k != main and not isinstance(v, Tensor)}
    return size, {**others, main: torch.zeros(shape, dtype=value.dtype, device=value.device)}


def _lie(net: Network, site: str, kwargs: Mapping[str, Any]) -> Lie | None:
    """How the tensor of a site lies, from one pass that is followed; heads' tensors lie as their block's stream."""
    found: list[Lie | None] = []
    follower = Follower(net.root, kwargs)

    def see(value: Tensor) -> None:
        found.append(follower.of(value))
        raise Stop

    with Session(net.root, ROWS) as session, torch.no_grad():
        session.enter(Following(follower))
        net.map.port(site).attach(session, see, writes=False)
        session.install()
        try:
            with contextlib.suppress(Stop):
                net.root(**kwargs)
        except (RuntimeError, ValueError, IndexError) as error:
            size = tuple(kwargs[net.preparer.main].shape)
            raise BadInput(f"{net.name} takes no images of {size} ({type(error).__name__}: {error})") from error
    lie = found[0] if found else None
    info = net.map.info(site)
    if lie is not None and lie.placed:
        return lie
    stream = f"{site.rpartition('.attn.')[0]}.resid_pre"
    if ".attn." in site and stream in net.map.sites and info.shape[0] == net.map.rows:
        axis = next((i for i, a in enumerate(info.axes) if a in ("position", "query")), None)
        beside = net.map.info(stream)
        if (
            axis is not None
            and "position" in beside.axes
            and info.shape[axis] == beside.shape[beside.axes.index("position")]
        ):
            found_stream = _lie(net, stream, kwargs)
            return None if found_stream is None else found_stream.globally()
    return lie
