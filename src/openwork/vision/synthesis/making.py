"""What the ways of making a picture have in common: knobs, the unit's objective, and the drawing itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Array
from openwork.errors import BadInput
from openwork.results.claims import Standard
from openwork.vision.synthesis.ascent import Drawing, Drawn, ascend, size_of
from openwork.vision.synthesis.colour import IMAGENET, Colour
from openwork.vision.synthesis.objective import Objective, Sum
from openwork.vision.synthesis.parameterisation import Fourier, Parameterisation
from openwork.vision.synthesis.robustness import LUCID, Views
from openwork.vision.synthesis.terms import Activation
from openwork.vision.units import Unit, units_of

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Target:
    """What one picture is to show.

    Args:
        name: in results.
        own: what of the network it is about; what it reaches is measured in this.
        objective: the same and whatever else is asked of the picture.
    """

    name: str
    own: Objective
    objective: Objective


@dataclass(frozen=True)
class Picture:
    """One picture that is to be made.

    Args:
        target: what it shows.
        unit: the number of its target.
        variant: which of the target's pictures.
        name: in results.
        seed: of everything drawn for it.
    """

    target: Target
    unit: int
    variant: int
    name: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Making(ABC):
    """A way of making pictures, and how they are tested.

    Args:
        variants: pictures of each unit.
        tests: views, of kinds that no method optimises through, in which finished pictures are compared; 0 for none.
        standard: what the claim that a picture is its unit's must meet, in standard deviations over other pictures.
        memory: budget for what runs at once.
        seed: of everything drawn; each picture draws its own, whatever is made beside it.
    """

    variants: int = 1
    tests: int = 32
    standard: Standard = field(default_factory=lambda: Standard(min_share=0.5))
    memory: str | int = "2GiB"
    seed: int = 0

    def __post_init__(self) -> None:
        if getattr(self, "steps", 1) < 1 or not getattr(self, "rate", 1.0) > 0:
            raise BadInput(f"expected a step or more and a rate above 0; got {self}")
        if self.variants < 1 or self.tests < 0:
            raise BadInput(f"expected a variant or more and no negative number of tests; got {self}")

    @abstractmethod
    def drawing(self, net: Network) -> Drawing:
        """How they are made for this network."""

    def targets(self, net: Network, units: Any) -> list[Target]:
        """What to show: each unit, or each objective as it is."""
        found: list[Target] = []
        given = [units] if isinstance(units, Objective | str) or not isinstance(units, Sequence) else units
        for one in given:
            if isinstance(one, Objective):
                found.append(Target(_name(one), _own(one), one))
            else:
                found += [Target(u.name, Activation(u), Activation(u)) for u in units_of(net, one)]
        if not found:
            raise BadInput("expected at least one unit, such as 'blocks.2.resid_post[3]'; got none")
        return found

    def draw(
        self, net: Network, targets: Sequence[Target], units: Sequence[int], seeds: Sequence[int],
        tick: Callable[[float], None],
    ) -> Drawn:  # fmt: skip
        """Make a picture of each target; see `ascend`."""
        objectives, own = [t.objective for t in targets], [t.own for t in targets]
        same = all(a is b or a == b for a, b in zip(objectives, own, strict=True))
        return ascend(net, objectives, objectives if same else own, units, seeds, self.drawing(net), tick)

    def settings(self) -> dict[str, Any]:
        """The knobs as JSON values; arrays by their digests."""
        return {"method": type(self).__name__, **{f.name: _json(getattr(self, f.name)) for f in fields(self)}}


@dataclass(frozen=True)
class Ascent(Making):
    """From noise, through a parameterisation, seen through random shifts, scales and turns.

    Args:
        image: what is optimised.
        colour: of the pictures.
        views: what they must survive.
        steps: of Adam.
        rate: of Adam.
        redirected: for how many steps silent ReLUs pass gradients.
        alpha: whether to learn where the picture may be transparent; random backgrounds show through there, and the
            objective is multiplied by the mean transparency.
        also: what else is asked, added to each unit's objective: penalties of the picture, diversity of variants.
        size: (height, width) of the pictures; what the network reads unless given.

    Source:
        Olah, Mordvintsev and Schubert 2017; Lucid's `render_vis`: Adam 0.05, 512 steps, redirected for 16.
    """

    image: Parameterisation = field(default_factory=Fourier)
    colour: Colour = IMAGENET
    views: Views = LUCID
    steps: int = 512
    rate: float = 0.05
    redirected: int = 16
    alpha: bool = False
    also: Objective | None = None
    size: tuple[int, int] | None = None

    def drawing(self, net: Network) -> Drawing:
        size = self.size or size_of(net)
        if len(size) != 2 or min(size) < 2:
            raise BadInput(f"expected pictures of at least 2 x 2 pixels; got {size}")
        return Drawing(
            self.image, self.colour, size, self.views, self.steps, self.rate, "adam", self.redirected, self.alpha
        )

    def targets(self, net: Network, units: Any) -> list[Target]:
        found = super().targets(net, units)
        if self.also is None:
            return found
        return [Target(t.name, t.own, t.objective + self.also) for t in found]


def given_picture(net: Network, picture: Any) -> Float[Tensor, "channel y x"]:
    """A picture to begin with, checked.

    Args:
        net: the network.
        picture: an `Array`, tensor or array (channel, y, x) in [0, 1].

    Raises:
        BadInput: if it is none, or has another size than the network reads.
    """
    pixels = torch.as_tensor(Array.of(picture).numpy())
    channels, size = net.images.channels if net.images else 3, size_of(net)
    if pixels.ndim != 3 or len(pixels) != channels or tuple(pixels.shape[1:]) != size:
        raise BadInput(f"expected a picture ({channels}, {size[0]}, {size[1]}); got {tuple(pixels.shape)}")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise BadInput(f"expected pixels in [0, 1]; got {low:.3g} to {high:.3g}. Divide bytes by 255")
    return pixels


def _own(objective: Objective) -> Objective:
    """An objective without what it asks of pixels alone."""
    parts = objective.weights()
    if parts is None:
        return objective
    inside = [(weight, term) for weight, term in parts if term.reads is not None]
    if not inside:
        raise BadInput("expected an objective that reads the network; this one reads only pixels")
    if len(inside) == len(parts):
        return objective
    return inside[0][1] if len(inside) == 1 and inside[0][0] == 1 else Sum(tuple(inside))


def _name(objective: Objective) -> str:
    units = [term.unit for term in objective.terms() if isinstance(term, Activation)]
    others = [type(term).__name__ for term in objective.terms() if not isinstance(term, Activation)]
    names = [unit.name for unit in units] + others
    return " + ".join(names[:4]) + (f" + {len(names) - 4} more" if len(names) > 4 else "")


def _json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Array):
        return {"shape": list(value.shape), "sha256": value.digest}
    if isinstance(value, Unit):
        return value.name
    if hasattr(value, "__dataclass_fields__"):
        return {"kind": type(value).__name__, **{f.name: _json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    return str(value)
