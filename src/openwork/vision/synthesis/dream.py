"""DeepDream: a picture that excites a whole layer, or the units that are named, more and more.

Source: Mordvintsev, Olah and Tyka 2015, Inceptionism.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openwork.edit import Array
from openwork.errors import BadInput
from openwork.site import Site
from openwork.vision.synthesis.ascent import Drawing, Drawn, ascend, format_of
from openwork.vision.synthesis.colour import PLAIN
from openwork.vision.synthesis.making import Making, Target, given_picture
from openwork.vision.synthesis.parameterisation import Moved, Pixels
from openwork.vision.synthesis.robustness import Robustness, Still, Views, shrunk
from openwork.vision.synthesis.terms import Excitement

if TYPE_CHECKING:
    from openwork.network import Network

JITTER_ALONE = Robustness(jitter=8, scales=(1.0,), angles=(0,), jitter_after=0)


@dataclass(frozen=True)
class DeepDream(Making):
    """Steps along the gradient over its mean absolute value, in several sizes from small to large.

    Args:
        picture: (channel, y, x) in [0, 1], of the size that the network reads.
        octaves: sizes; more than one only for a network that reads images of any size.
        ratio: from one size to the next.
        steps: at each size.
        rate: of a step, before the sigmoid, a quarter of this in pixels where the picture is grey.
        views: shifts alone.
    """

    picture: Any
    octaves: int = 1
    ratio: float = 1.4
    steps: int = 20
    rate: float = 0.03
    views: Views = field(default=JITTER_ALONE)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "picture", Array.of(self.picture))
        if self.octaves < 1 or not self.ratio > 1:
            raise BadInput(f"expected an octave or more, and a ratio above 1; got {self.octaves} and {self.ratio}")

    def targets(self, net: Network, units: Any) -> list[Target]:
        """Sites without an index are excited as a whole."""
        found: list[Target] = []
        for one in [units] if isinstance(units, str | Site) or not isinstance(units, Sequence) else units:
            if isinstance(one, str | Site) and not Site.parse(one).index:
                paths = [site.path for site in net.map.resolve(one)]
                found += [Target(path, Excitement(path), Excitement(path)) for path in paths]
            else:
                found += super().targets(net, one)
        return found

    def drawing(self, net: Network) -> Drawing:
        pixels = given_picture(net, self.picture)
        return self._drawing(net, PLAIN.of(len(pixels)).components(pixels[None]))

    def _drawing(self, net: Network, given: Tensor) -> Drawing:
        size = (given.shape[-2], given.shape[-1])
        colour = PLAIN.of(format_of(net).channels)
        views = self.views if size == tuple(self.picture.shape[1:]) or self.octaves == 1 else Still()
        return Drawing(Moved(Pixels(0.0), given), colour, size, views, self.steps, self.rate, "ascent", 0)

    def draw(
        self, net: Network, targets: Sequence[Target], units: Sequence[int], seeds: Sequence[int],
        tick: Callable[[float], None],
    ) -> Drawn:  # fmt: skip
        pixels = given_picture(net, self.picture)
        colour = PLAIN.of(len(pixels))
        whole = (pixels.shape[1], pixels.shape[2])
        sizes = [(round(whole[0] / self.ratio**k), round(whole[1] / self.ratio**k)) for k in range(self.octaves)][::-1]
        if self.octaves > 1 and format_of(net).size is not None:
            raise BadInput(f"expected octaves=1 for {net.name}, which reads images of one size")
        if min(sizes[0]) < 2:
            raise BadInput(f"expected octaves of at least 2 x 2 pixels; the smallest of {self.octaves} is {sizes[0]}")
        objectives = [t.objective for t in targets]
        detail = torch.zeros(len(targets), len(pixels), *sizes[0])
        found: Drawn | None = None
        for number, size in enumerate(sizes):
            base = colour.components(shrunk(pixels[None], size).clamp(0, 1))
            given = base + torch.nn.functional.interpolate(detail, size, mode="bilinear", align_corners=False)
            drawing = replace(self._drawing(net, given), fixed_view=size)
            found = ascend(
                net, objectives, objectives, units, seeds, drawing,
                lambda share, n=number: tick((n + share) / len(sizes)),
            )  # fmt: skip
            detail = colour.components(found.pixels) - base
        assert found is not None
        return found
