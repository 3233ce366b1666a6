"""What can be measured of a network that sees a picture, or of the picture: the terms of objectives.

Source: Olah, Mordvintsev and Schubert 2017, Feature Visualization, and its library's objectives.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from openwork.edit import Array
from openwork.errors import BadInput
from openwork.vision.synthesis.objective import Rows, Term
from openwork.vision.units import Unit

LEAST_COSINE, TINY = 0.1, 1e-8
"""Below this the cosine no longer weakens a direction: Lucid's constant."""


@dataclass(frozen=True)
class Activation(Term):
    """The activation of a unit: the mean over its places, or what it is at its position.

    Args:
        unit: a channel; or a direction v, for which it is (a·v) max(0.1, cos(a, v))^power at each place.
        power: how strongly the angle counts for a direction.
        prefix: tokens before the first place; set by `bound`.

    Source:
        Lucid: channel, neuron and direction (dot times cosine) objectives.
    """

    unit: Unit
    power: float = 2.0
    prefix: int = 0

    @property
    def reads(self) -> str | None:
        return self.unit.site

    @property
    def kind(self) -> Hashable:
        return "activation", self.reads, self.unit.vector is None, self.unit.position is None, self.power

    def together(self, terms: Sequence[Activation], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        each = torch.arange(len(terms), device=values.device)
        if self.unit.position is None:
            values = values[..., self.prefix :]
        else:
            places = torch.tensor([t.unit.position for t in terms], device=values.device)
            values = values[each, :, places][..., None]
        if self.unit.vector is None:
            return values[each, torch.tensor([t.unit.channel for t in terms], device=values.device)].mean(-1)
        vectors = torch.tensor([t.unit.vector for t in terms]).to(values)
        dots = torch.einsum("rcp,rc->rp", values, vectors)
        norms = values.norm(dim=1) * vectors.norm(dim=1, keepdim=True)
        cosines = dots / norms.clamp_min(TINY)
        return (dots * cosines.clamp_min(LEAST_COSINE) ** self.power).mean(-1)


@dataclass(frozen=True)
class Excitement(Term):
    """The mean square of all activations of a site: what DeepDream makes large.

    Args:
        site: which.
    """

    site: str

    @property
    def reads(self) -> str | None:
        return self.site

    @property
    def kind(self) -> Hashable:
        return "excitement", self.site

    def together(self, terms: Sequence[Any], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        return values.flatten(1).square().mean(1)


@dataclass(frozen=True)
class Matching(Term):
    """How well all activations of a site go with those of a given picture.

    Args:
        site: which.
        target: (channel, place) of the given picture, an `Array`.
        how: ``caricature``: dot times cosine^power, which exaggerates what the picture has; ``inversion``: minus the
            squared distance over the squared norm of the target, 0 where they are equal.
        power: of the cosine.

    Source:
        Lucid, feature inversion and caricatures; Mahendran and Vedaldi 2015, equation 1.
    """

    site: str
    target: Any
    how: Literal["caricature", "inversion"] = "caricature"
    power: float = 4.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", Array.of(self.target))

    @property
    def reads(self) -> str | None:
        return self.site

    @property
    def kind(self) -> Hashable:
        return "matching", self.site, self.how, self.power, tuple(self.target.shape)

    def together(self, terms: Sequence[Matching], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        targets = torch.stack([torch.as_tensor(t.target.numpy()) for t in terms]).to(values).flatten(1)
        values = values.flatten(1)
        if self.how == "inversion":
            return -(values - targets).square().sum(1) / targets.square().sum(1).clamp_min(TINY)
        cosines = F.cosine_similarity(values, targets, dim=1, eps=TINY)
        # the target's own length leaves the scale; only the angle and the length of the picture's activations count
        dots = (values * targets).sum(1) / targets.norm(dim=1).clamp_min(TINY)
        return dots * cosines.clamp_min(LEAST_COSINE) ** self.power


@dataclass(frozen=True)
class Diversity(Term):
    """Minus the mean cosine between the Gram matrices of the variants of a unit's picture.

    Args:
        site: whose channels the Gram matrices are of.
    """

    site: str

    @property
    def reads(self) -> str | None:
        return self.site

    def together(self, terms: Sequence[Any], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        flat = F.normalize(torch.einsum("rcp,rdp->rcd", values, values).flatten(1), dim=1)
        out: list[Tensor] = [flat.new_zeros(())] * len(flat)
        for group in rows.groups():
            cosines = flat[group] @ flat[group].T
            mean = (cosines.sum(1) - cosines.diagonal()) / max(1, len(group) - 1)
            for place, row in enumerate(group):
                out[row] = -mean[place]
        return torch.stack(out)


@dataclass(frozen=True)
class Alignment(Term):
    """Minus the squared difference of neighbouring variants, so that they show the same things at the same places.

    Args:
        site: where they are compared.
        decay: how much less the next neighbour counts than the one before it.
    """

    site: str
    decay: float = 2.0

    @property
    def reads(self) -> str | None:
        return self.site

    def together(self, terms: Sequence[Any], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        flat = values.flatten(1)
        out: list[Tensor] = [flat.new_zeros(())] * len(flat)
        for group in rows.groups():
            apart = (flat[group][:, None] - flat[group][None]).square().mean(-1)
            steps = torch.arange(len(group), device=flat.device)
            far = (steps[:, None] - steps).abs()
            weight = torch.where(far > 0, self.decay ** (1.0 - far), 0.0).to(flat)
            for place, row in enumerate(group):
                out[row] = -(apart * weight)[place].sum()
        return torch.stack(out)


@dataclass(frozen=True)
class TotalVariation(Term):
    """The mean absolute difference of neighbouring pixels."""

    @property
    def reads(self) -> str | None:
        return None

    def together(self, terms: Sequence[Any], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        down, right = values.diff(dim=-2).abs(), values.diff(dim=-1).abs()
        return down.flatten(1).mean(1) + right.flatten(1).mean(1)


@dataclass(frozen=True)
class Distance(Term):
    """How far pixels are from a value: their mean absolute difference (power 1) or root mean square (power 2).

    Args:
        power: 1 or 2.
        of: the value.
    """

    power: int = 2
    of: float = 0.5

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise BadInput(f"expected power 1 or 2; got {self.power}")

    @property
    def reads(self) -> str | None:
        return None

    def together(self, terms: Sequence[Any], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        away = (values - self.of).flatten(1)
        return away.abs().mean(1) if self.power == 1 else (away.square().mean(1) + TINY).sqrt()


@dataclass(frozen=True)
class Likeness(Term):
    """Minus the mean squared difference of pixels from those of a given picture.

    Args:
        picture: (channel, y, x) in [0, 1], an `Array`.
    """

    picture: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "picture", Array.of(self.picture))

    @property
    def reads(self) -> str | None:
        return None

    @property
    def kind(self) -> Hashable:
        return "likeness", tuple(self.picture.shape)

    def together(self, terms: Sequence[Likeness], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        wanted = torch.stack([torch.as_tensor(t.picture.numpy()) for t in terms]).to(values)
        return -(values - wanted).square().flatten(1).mean(1)
