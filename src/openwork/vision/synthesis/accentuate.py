"""Feature accentuation: a real picture, changed so that a unit answers more, in what it already has.

Source: Hamblin et al. 2024, Feature Accentuation: Revealing 'What' Features Respond to in Natural Images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openwork.edit import Array
from openwork.errors import BadInput
from openwork.vision.synthesis.ascent import Drawing, format_of
from openwork.vision.synthesis.colour import IMAGENET, Colour
from openwork.vision.synthesis.making import Making, Target, given_picture
from openwork.vision.synthesis.parameterisation import Fourier, Moved
from openwork.vision.synthesis.robustness import LUCID, Views
from openwork.vision.synthesis.terms import Likeness

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Accentuation(Making):
    """From a picture, by steps that are scaled by frequency, held to the picture by a penalty on its pixels.

    The paper and its code scale the gradients of the picture's Fourier coefficients and leave these unscaled. Under
    Adam, which divides every gradient by its own size, that would scale nothing, so here the coefficients are those of
    the picture plus scaled ones that begin at zero: each step is scaled, and the start is exact.

    Args:
        picture: (channel, y, x) in [0, 1], of the size that the network reads.
        penalty: on the mean squared difference from it, in units of the objective.
        decay: the power of the frequency that steps are divided by.
        colour: of the picture's components.
        views: what it must survive.
        steps: of Adam.
        rate: of Adam.
    """

    picture: Any
    penalty: float = 1.0
    decay: float = 1.5
    colour: Colour = IMAGENET
    views: Views = field(default=LUCID)
    steps: int = 128
    rate: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "picture", Array.of(self.picture))
        if self.penalty < 0:
            raise BadInput(f"expected a penalty of at least 0; got {self.penalty}")

    def drawing(self, net: Network) -> Drawing:
        pixels = given_picture(net, self.picture)
        colour = self.colour.of(format_of(net).channels)
        image = Moved(Fourier(self.decay, sd=0.0), colour.components(pixels[None])[0])
        size = (pixels.shape[1], pixels.shape[2])
        return Drawing(image, colour, size, self.views, self.steps, self.rate, redirected=0)

    def targets(self, net: Network, units: Any) -> list[Target]:
        found = super().targets(net, units)
        if not self.penalty:
            return found
        return [Target(t.name, t.own, t.objective + self.penalty * Likeness(self.picture)) for t in found]
