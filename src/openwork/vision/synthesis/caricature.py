"""Inversion: what a layer keeps of a picture. Caricature: the same, with what it makes most of exaggerated.

Source: Mahendran and Vedaldi 2015, Understanding deep image representations by inverting them; Lucid's caricatures.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from openwork.edit import Array
from openwork.errors import BadInput
from openwork.site import Site
from openwork.vision.synthesis.ascent import Drawing, Watching, format_of, size_of
from openwork.vision.synthesis.colour import IMAGENET, Colour
from openwork.vision.synthesis.making import Making, Target, given_picture
from openwork.vision.synthesis.parameterisation import Fourier, Parameterisation
from openwork.vision.synthesis.robustness import Robustness, Still, Views
from openwork.vision.synthesis.terms import Matching, TotalVariation
from openwork.vision.units import channel_axis

if TYPE_CHECKING:
    from openwork.network import Network

BARELY = Robustness(jitter=2, scales=(1.0,), angles=(0,), jitter_after=0)
"""Places matter here, so pictures hardly move."""


@dataclass(frozen=True)
class _Matched(Making):
    """A picture from noise whose activations go with those of a given one, at whole sites.

    Args:
        picture: (channel, y, x) in [0, 1], of the size that the network reads.
        image: what is optimised.
        colour: of the picture made.
        views: what it must survive.
        steps: of Adam.
        rate: of Adam.
        smooth: the weight of total variation, which is taken off.
    """

    picture: Any
    image: Parameterisation = field(default_factory=Fourier)
    colour: Colour = IMAGENET
    views: Views = field(default=BARELY)
    steps: int = 512
    rate: float = 0.05
    smooth: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "picture", Array.of(self.picture))
        if self.smooth < 0:
            raise BadInput(f"expected a weight of at least 0; got {self.smooth}")

    @property
    @abstractmethod
    def how(self) -> Literal["caricature", "inversion"]:
        """What is made large."""

    def drawing(self, net: Network) -> Drawing:
        colour = self.colour.of(format_of(net).channels)
        return Drawing(self.image, colour, size_of(net), self.views, self.steps, self.rate)

    def targets(self, net: Network, units: Any) -> list[Target]:
        """One target a site; sites stand here without an index."""
        given = [units] if isinstance(units, str | Site) or not isinstance(units, Sequence) else units
        paths: list[str] = []
        for one in given:
            if not isinstance(one, str | Site) or Site.parse(one).index:
                raise BadInput(f"expected whole sites to match, such as 'blocks.2.resid_post'; got {one}")
            paths += [site.path for site in net.map.resolve(one)]
        if not paths:
            raise BadInput("expected at least one site to match; got none")
        pixels = given_picture(net, self.picture)[None]
        with torch.no_grad():
            seen = Watching(net, tuple(dict.fromkeys(paths)))(pixels)
        found = []
        for path in paths:
            value = seen[path].movedim(channel_axis(net.map.info(path).axes), 1)
            maps = value.flatten(2) if value.ndim > 2 else value[..., None]
            own = Matching(path, Array.of(maps[0]), self.how)
            objective = own - self.smooth * TotalVariation() if self.smooth else own
            found.append(Target(f"{path} {self.how}", own, objective))
        return found


@dataclass(frozen=True)
class Caricature(_Matched):
    """Dot product times cosine with the activations of a picture: more of what the layer sees in it.

    Args: see `_Matched`.
    """

    @property
    def how(self) -> Literal["caricature", "inversion"]:
        return "caricature"


@dataclass(frozen=True)
class Inversion(_Matched):
    """The activations of a picture again: what the layer keeps of it.

    Args: see `_Matched`.
    """

    views: Views = field(default_factory=Still)
    smooth: float = 0.01

    @property
    def how(self) -> Literal["caricature", "inversion"]:
        return "inversion"
