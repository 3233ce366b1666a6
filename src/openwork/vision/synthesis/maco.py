"""MACO: the phases of a picture are optimised, its magnitudes stay those of natural ones.

    visualise(net, "blocks.3.mlp.hidden[7]", Maco(Spectrum.of(pictures)))

Source: Fel et al. 2023, Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.vision.synthesis.ascent import Drawing, format_of, size_of
from openwork.vision.synthesis.making import Making
from openwork.vision.synthesis.objective import Rows
from openwork.vision.synthesis.parameterisation import Numbers, Parameterisation, Shape, picture_of
from openwork.vision.synthesis.robustness import Crops
from openwork.vision.synthesis.spectrum import Spectrum, shapes_spectrum

if TYPE_CHECKING:
    from openwork.network import Network

TINY = 1e-4


@dataclass(frozen=True)
class Phase(Parameterisation):
    """Phases on fixed magnitudes; the components are standardised.

    Args:
        spectrum: the magnitudes.
        sd: of the phases to begin with.
    """

    spectrum: Spectrum
    sd: float = 1.0

    def start(self, draws: Sequence[torch.Generator], rows: Rows, shape: Shape) -> Numbers:
        size = (shape.channels, shape.height, shape.width // 2 + 1)
        return {"phase": self.sd * torch.stack([torch.randn(size, generator=g) for g in draws])}

    def components(self, numbers: Mapping[str, Tensor], rows: Rows, shape: Shape) -> Float[Tensor, "row channel y x"]:
        return standardised(self.constrained(numbers["phase"], shape))

    def constrained(self, phase: Float[Tensor, "row channel fy fx"], shape: Shape) -> Float[Tensor, "row channel y x"]:
        """The components before they are standardised: their magnitudes are those of the spectrum, exactly."""
        magnitude = self.spectrum.at(shape.height, shape.width).to(phase)
        if len(magnitude) < shape.channels:  # alpha has none of its own
            magnitude = torch.cat([magnitude, magnitude[:1]])
        angle = real_phase(standardised(phase), shape.width)
        return picture_of(torch.polar(magnitude.expand_as(angle), angle), shape.height, shape.width)


def real_phase(phase: Float[Tensor, "row channel fy fx"], width: int) -> Float[Tensor, "row channel fy fx"]:
    """Phases that real pictures can have: odd in the frequency wherever a transform holds it and its negative.

    That is in the first column, and in the last one of even widths. Without it, the inverse transform would drop a part
    of these coefficients, and their magnitudes would change.
    """
    columns = [0] + [width // 2] * (width % 2 == 0 and width > 1)
    held = phase[..., columns]
    odd = (held - held.flip(-2).roll(1, -2)) / 2
    mask = torch.zeros(phase.shape[-1], dtype=torch.bool, device=phase.device)
    mask[columns] = True
    spread = torch.zeros_like(phase).index_copy(-1, torch.tensor(columns, device=phase.device), odd)
    return torch.where(mask, spread, phase)


def standardised(value: Float[Tensor, "row channel a b"]) -> Float[Tensor, "row channel a b"]:
    """Each row with mean 0 and standard deviation 1."""
    axes = tuple(range(1, value.ndim))
    centred = value - value.mean(axes, keepdim=True)
    return centred / (centred.std(axes, keepdim=True) + TINY)


@dataclass(frozen=True)
class Maco(Making):
    """Phases only, seen through random crops.

    Args:
        spectrum: the magnitudes; of the scenes of `worlds.shapes` unless given.
        views: how crops are drawn.
        steps: of the optimiser.
        rate: of NAdam.
        ratio: how many times larger the pictures are than what the network reads.
        redirected: see `Drawing`.

    Source:
        Fel et al. 2023, section 3 and appendix; Horama and Xplique: NAdam 1.0.
    """

    spectrum: Spectrum | None = None
    views: Crops = field(default_factory=Crops)
    steps: int = 256
    rate: float = 1.0
    ratio: float = 2.0
    redirected: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ratio > 0:
            raise BadInput(f"expected a ratio above 0; got {self.ratio}")

    def drawing(self, net: Network) -> Drawing:
        spectrum = self.spectrum or shapes_spectrum()
        channels = format_of(net).channels
        if spectrum.magnitude.shape[0] != channels:
            raise BadInput(
                f"expected a spectrum of {channels} channels; that of {spectrum.name} has "
                f"{spectrum.magnitude.shape[0]}. Make one with Spectrum.of(pictures)"
            )
        height, width = (round(n * self.ratio) for n in size_of(net))
        return Drawing(
            Phase(spectrum), spectrum.colour, (height, width), self.views, self.steps, self.rate, "nadam",
            self.redirected,
        )  # fmt: skip
