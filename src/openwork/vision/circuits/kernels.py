"""Effective linear weights from the channels of one site to those of a later one, as kernels over places.

    found = kernels(net, "module:conv1.in", "module:layer2.out[3,7]", inputs)      # (out unit, in unit, dy, dx)

They are the gradients of a unit at the middle of its map, under backward rules that take a network's nonlinearities
out: batch norms, shortcuts, strides and poolings between the two sites are in them, and no matrix over all places is
ever made.

Source: Voss et al. 2021, Visualizing weights (Distill), the section on expanded weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.rule import AVERAGED, LINEARISED, Rule
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.run import Run

SLOPES: dict[str, tuple[Rule, ...]] = {"one": LINEARISED, "mean": AVERAGED}
"""What stands for an activation function: the identity, or its mean slope on the images of the call."""
MAP = ("batch", "channel", "y", "x")
HELD = ("norm", "pattern")
"""What rules hold at the values of each image, so that gradients differ between images."""


@dataclass(frozen=True, eq=False)
class Kernels:
    """Weights from the units of one site to those of a later one.

    Args:
        sender: the earlier site, without an index.
        receiver: the later one.
        in_units: of the sender.
        out_units: of the receiver.
        values: change of an out unit for each unit of change of an in unit, at one place.
        dy: places of the sender, counted downwards from the one under the out unit; from the top of the map where out
            units have no places.
        dx: likewise, to the right.
        at: (y, x) of the out units in the receiver, or None where it has no places.
        under: (y, x) of the place of the sender from which `dy` and `dx` count.
        clipped: whether the kernel reaches an end of the map of the sender, so that it may be a part of a larger one.
    """

    sender: str
    receiver: str
    in_units: tuple[int, ...]
    out_units: tuple[int, ...]
    values: Float[Tensor, "out_unit in_unit dy dx"]
    dy: tuple[int, ...]
    dx: tuple[int, ...]
    at: tuple[int, int] | None
    under: tuple[int, int]
    clipped: bool

    @property
    def excitation(self) -> Float[Tensor, "out_unit in_unit"]:
        """The sum of the positive weights."""
        return self.values.clamp_min(0).sum((2, 3))

    @property
    def inhibition(self) -> Float[Tensor, "out_unit in_unit"]:
        """The sum of the negative weights, as a positive number."""
        return (-self.values).clamp_min(0).sum((2, 3))

    @property
    def strength(self) -> Float[Tensor, "out_unit in_unit"]:
        """The length of each kernel."""
        return self.values.flatten(2).norm(dim=2)

    def read(self, value: Tensor) -> Float[Tensor, "image out_unit"]:
        """The out units in a value of the receiver, at the place whose kernels these are."""
        units = value[:, list(self.out_units)]
        return units if self.at is None else units[:, :, self.at[0], self.at[1]]


def kernels(
    net: Network,
    sender: str | Site,
    receiver: str | Site,
    inputs: Tensor,
    slopes: str = "mean",
    tick: Callable[[float], None] = lambda share: None,
) -> Kernels:
    """Find the kernels between two sites.

    Args:
        net: the network.
        sender: a map of channels; an index selects in units.
        receiver: a later map, or a site of one value a channel such as the logits; an index selects out units.
        inputs: what the network reads, (image, ...); slopes are averaged over them.
        slopes: ``mean`` for activation functions at their mean slope on these inputs, ``one`` for the identity.
        tick: told the share that is done.

    Returns:
        the kernels. Where norms or attention patterns are held at what each image makes of them, the mean over images.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for sites without channels, or where the receiver does not read the sender.
        SiteRefused: for a maximum that no average can stand for.
    """
    if slopes not in SLOPES:
        raise BadInput(f"expected slopes of {', '.join(SLOPES)}; got {slopes!r}")
    first, last = _one(net, sender, True), _one(net, receiver, False)
    out_units = last.index or tuple(range(net.parts(last.path)))
    in_units = first.index or tuple(range(net.parts(first.path)))
    at = _middle(net, last.path)
    found: list[Tensor] = []
    rows = len(inputs)
    done = 0
    while done < len(out_units):
        some = out_units[done : done + rows]
        grads, held = _gradients(net, first.path, last.path, at, inputs, some, slopes)
        if held:  # each image has kernels of its own
            some = out_units[done : done + 1]
            each = _gradients(net, first.path, last.path, at, inputs, some * rows, slopes)[0]
            grads = each.mean(0, keepdim=True)
        found.append(grads[: len(some), list(in_units)])
        done += len(some)
        tick(done / len(out_units))
    return _cropped(net, first.path, last.path, in_units, out_units, torch.cat(found), at)


def _one(net: Network, site: str | Site, places: bool) -> Site:
    found = net.map.resolve(site)
    if len(found) > 1:
        raise BadInput(f"expected one site; {site} names {len(found)}, from {found[0]} to {found[-1]}")
    axes = net.map.info(found[0].path).axes
    if axes != MAP and (places or len(axes) != 2):
        wanted = "a map of channels" if places else "a map of channels, or one value a channel"
        raise BadInput(f"expected {wanted}, with axes {MAP}; {found[0].path} has the axes {axes}")
    return found[0]


def _middle(net: Network, receiver: str) -> tuple[int, int] | None:
    info = net.map.info(receiver)
    return (info.shape[2] // 2, info.shape[3] // 2) if info.axes == MAP else None


def _gradients(
    net: Network,
    sender: str,
    receiver: str,
    at: tuple[int, int] | None,
    inputs: Tensor,
    units: Sequence[int],
    slopes: str,
) -> tuple[Float[Tensor, "row in_unit y x"], bool]:
    """Row i holds the gradient of ``units[i]`` at one place; and whether it depends on the image of that row."""
    rows = torch.arange(len(units))

    def metric(run: Run) -> Tensor:
        value = run[receiver]
        picked = value[rows, list(units)] if at is None else value[rows, list(units), at[0], at[1]]
        return torch.cat((picked, picked.new_zeros(len(inputs) - len(units))))

    run = net.run(inputs, keep=[sender, receiver], grads=metric, rules=SLOPES[slopes])
    return run.grads[sender][: len(units)], any(run.ruled.get(name) for name in HELD)


def _cropped(
    net: Network,
    sender: str,
    receiver: str,
    in_units: tuple[int, ...],
    out_units: tuple[int, ...],
    grads: Float[Tensor, "out_unit in_unit y x"],
    at: tuple[int, int] | None,
) -> Kernels:
    """The part of gradients that is not zero everywhere."""
    reached = grads.abs().amax((0, 1)) > 0
    if not bool(reached.any()):
        raise BadInput(f"expected a receiver that reads the sender; no weight leads from {sender} to {receiver}")
    height, width = reached.shape
    under, clipped = (0, 0), False
    (top, bottom), (left, right) = (0, height), (0, width)
    if at is not None:
        (top, bottom), (left, right) = _ends(reached.any(1)), _ends(reached.any(0))
        under = _under(net, sender, receiver, at)
        clipped = top == 0 or left == 0 or bottom == height or right == width
    return Kernels(
        sender, receiver, in_units, out_units, grads[:, :, top:bottom, left:right].detach(),
        tuple(range(top - under[0], bottom - under[0])), tuple(range(left - under[1], right - under[1])),
        at, under, clipped,
    )  # fmt: skip


def _ends(flags: Tensor) -> tuple[int, int]:
    """The first index that holds, and the one after the last."""
    held = flags.nonzero().flatten().tolist()
    return held[0], held[-1] + 1


def _under(net: Network, sender: str, receiver: str, at: tuple[int, int]) -> tuple[int, int]:
    """The place of the sender whose pixel is nearest to that of a place of the receiver."""
    early, late = net.grid(sender), net.grid(receiver)
    y, x = late.centre(at[0] * late.width + at[1])
    centres = torch.tensor([early.centre(p) for p in range(early.height * early.width)])
    nearest = int((centres - torch.tensor([y, x])).norm(dim=1).argmin())
    return nearest // early.width, nearest % early.width
