"""What a picture is to do, as data: objectives that add up, are weighted, and read many units in one forward pass.

    Activation(unit) - 0.1 * TotalVariation()
    Activation(first) + 2 * Activation(second)
    Activation(unit) + 10 * Diversity("blocks.1.resid_post")     # over the variants of a unit

Source: Olah, Mordvintsev and Schubert 2017, Feature Visualization, and its library's objectives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from openwork.edit import Array
from openwork.errors import BadInput
from openwork.vision.units import Unit, channel_axis

if TYPE_CHECKING:
    from openwork.network import Network

LEAST_COSINE, TINY = 0.1, 1e-8
"""Below this the cosine no longer weakens a direction: Lucid's constant."""


class Objective(ABC):
    """What is made large, one number a picture. Objectives add up and can be multiplied."""

    @abstractmethod
    def terms(self) -> Iterator[Term]:
        """Everything that is measured."""

    @abstractmethod
    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        """The objective from the values of its terms."""

    def at(self, variant: int, variants: int) -> Objective:
        """The objective of one of several variants of a unit's picture."""
        return self

    def weights(self) -> list[tuple[float, Term]] | None:
        """Its terms with their weights, or None if it is no weighted sum."""
        return None

    def __add__(self, other: Objective) -> Objective:
        return Sum(((1.0, self), (1.0, _objective(other))))

    def __sub__(self, other: Objective) -> Objective:
        return Sum(((1.0, self), (-1.0, _objective(other))))

    def __neg__(self) -> Objective:
        return Sum(((-1.0, self),))

    def __mul__(self, other: Objective | int | float) -> Objective:
        return Product(self, other) if isinstance(other, Objective) else Sum(((float(other), self),))

    def __rmul__(self, other: int | float) -> Objective:
        return Sum(((float(other), self),))


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum.

    Args:
        parts: weights and objectives.
    """

    parts: tuple[tuple[float, Objective], ...]

    def __post_init__(self) -> None:
        flat: list[tuple[float, Objective]] = []  # sums of hundreds must not become towers of hundreds
        for weight, part in self.parts:
            flat += [(weight * w, p) for w, p in part.parts] if isinstance(part, Sum) else [(weight, part)]
        object.__setattr__(self, "parts", tuple(flat))

    def terms(self) -> Iterator[Term]:
        for _, part in self.parts:
            yield from part.terms()

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return torch.stack([weight * part.total(value) for weight, part in self.parts]).sum(0)

    def at(self, variant: int, variants: int) -> Objective:
        return Sum(tuple((weight, part.at(variant, variants)) for weight, part in self.parts))

    def weights(self) -> list[tuple[float, Term]] | None:
        out: list[tuple[float, Term]] = []
        for weight, part in self.parts:
            inner = part.weights()
            if inner is None:
                return None
            out += [(weight * w, term) for w, term in inner]
        return out


@dataclass(frozen=True)
class Product(Objective):
    """One objective times another.

    Args:
        left: one.
        right: the other.
    """

    left: Objective
    right: Objective

    def terms(self) -> Iterator[Term]:
        yield from self.left.terms()
        yield from self.right.terms()

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return self.left.total(value) * self.right.total(value)

    def at(self, variant: int, variants: int) -> Objective:
        return Product(self.left.at(variant, variants), self.right.at(variant, variants))


@dataclass(frozen=True)
class Interpolation(Objective):
    """From one objective to another over the variants of a picture, of which the first and the last have one alone.

    Args:
        start: what the first variant is of.
        end: what the last variant is of.
    """

    start: Objective
    end: Objective

    def at(self, variant: int, variants: int) -> Objective:
        share = variant / max(1, variants - 1)
        return (1 - share) * self.start + share * self.end

    def terms(self) -> Iterator[Term]:
        yield from self.start.terms()
        yield from self.end.terms()

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return 0.5 * (self.start.total(value) + self.end.total(value))


@dataclass(frozen=True)
class Rows:
    """Which pictures of a batch are variants of one unit.

    Args:
        unit: (row,) the number of each one's unit.
    """

    unit: tuple[int, ...]

    def groups(self) -> list[list[int]]:
        """The rows of each unit."""
        found: dict[int, list[int]] = {}
        for row, unit in enumerate(self.unit):
            found.setdefault(unit, []).append(row)
        return list(found.values())


Maps = Float[Tensor, "row channel place"]


class Term(Objective):
    """Something that is measured; those of one `kind` are measured together."""

    @property
    @abstractmethod
    def reads(self) -> str | None:
        """The site that it reads; None for the picture itself."""

    @property
    def kind(self) -> Hashable:
        """Equal for terms that can be measured together."""
        return self

    @abstractmethod
    def together(self, terms: Sequence[Any], values: Tensor, rows: Rows) -> Float[Tensor, " row"]:
        """The values of terms of this kind, one a row.

        Args:
            terms: one a row.
            values: (row, channel, place) of the site, tokens before the first place included; or the pictures.
            rows: which of them belong together.
        """

    def terms(self) -> Iterator[Term]:
        yield self

    def total(self, value: Callable[[Term], Tensor]) -> Tensor:
        return value(self)

    def weights(self) -> list[tuple[float, Term]] | None:
        return [(1.0, self)]


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


@dataclass(frozen=True)
class _Together:
    """Terms that are measured at once: which rows they are of, and where their values go."""

    terms: tuple[Term, ...]
    rows: Int[Tensor, " term"]
    whole: bool
    units: Rows


class Objectives:
    """The objectives of a batch, measured with one gather a kind of term.

    Args:
        net: the network.
        objectives: one a row.
        units: the number of each row's unit.
    """

    def __init__(self, net: Network, objectives: Sequence[Objective], units: Sequence[int]):
        self.net, self.objectives = net, [_bound(net, o) for o in objectives]
        groups: dict[Hashable, list[tuple[int, Term]]] = {}
        for row, objective in enumerate(self.objectives):
            for term in dict.fromkeys(objective.terms()):
                groups.setdefault(term.kind, []).append((row, term))
        self.sites = tuple(dict.fromkeys(t.reads for o in self.objectives for t in o.terms() if t.reads is not None))
        device = net.device
        self.groups: list[_Together] = []
        self.place: dict[tuple[int, Term], int] = {}
        for members in groups.values():
            layers: list[list[tuple[int, Term]]] = []  # a kind may occur several times in one row
            for row, term in members:
                layer = next((x for x in layers if x[-1][0] != row), None)
                layer.append((row, term)) if layer is not None else layers.append([(row, term)])
            for layer in layers:
                for row, term in layer:
                    self.place[row, term] = len(self.place)
                numbers = [row for row, _ in layer]
                self.groups.append(
                    _Together(
                        tuple(term for _, term in layer),
                        torch.tensor(numbers, device=device),
                        numbers == list(range(len(objectives))),
                        Rows(tuple(units[row] for row in numbers)),
                    )
                )
        self._weights = self._linear(device)

    def __call__(self, values: Mapping[str, Tensor], pixels: Tensor) -> Float[Tensor, " row"]:
        """One number a row.

        Args:
            values: of the sites, as the network gives them; one row each.
            pixels: (row, channel, y, x), the pictures.
        """
        maps = {site: self.map(values[site], site) for site in self.sites}
        found = []
        for group in self.groups:
            reads = group.terms[0].reads
            value = pixels if reads is None else maps[reads]
            given = value if group.whole else value[group.rows]
            found.append(group.terms[0].together(group.terms, given, group.units))
        each = torch.cat(found)
        if self._weights is not None:
            rows, places, weights = self._weights
            return each.new_zeros(len(self.objectives)).index_add(0, rows, each[places] * weights.to(each))
        return torch.stack([
            o.total(lambda term, row=row: each[self.place[row, term]]) for row, o in enumerate(self.objectives)
        ])  # fmt: skip

    def map(self, value: Tensor, site: str) -> Maps:
        """(row, channel, place) of a site's value."""
        moved = value.movedim(channel_axis(self.net.map.info(site).axes), 1)
        return moved.flatten(2) if moved.ndim > 2 else moved[..., None]

    def _linear(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor] | None:
        """Row, place and weight of every term, where all objectives are weighted sums."""
        rows, places, weights = [], [], []
        for row, objective in enumerate(self.objectives):
            parts = objective.weights()
            if parts is None:
                return None
            for weight, term in parts:
                rows.append(row)
                places.append(self.place[row, term])
                weights.append(weight)
        return torch.tensor(rows, device=device), torch.tensor(places, device=device), torch.tensor(weights)


def prefix_of(net: Network, site: str) -> int:
    """Tokens before the first place of a site."""
    return net.grid(site).prefix if len(net.map.info(site).axes) == 3 else 0


def centre_of(net: Network, site: str) -> int:
    """The position in the middle of a site's places."""
    grid = net.grid(site)
    return grid.prefix + (grid.height // 2) * grid.width + grid.width // 2


def with_centre(net: Network, unit: Unit) -> Unit:
    """The unit at the middle of its map alone: a neuron."""
    return replace(unit, position=centre_of(net, unit.site))


def latent(dictionary: Any, index: int) -> Unit:
    """The unit that a latent of a dictionary reads along: the direction that it writes, at the site that it reads.

    Raises:
        BadInput: if there is no such latent.
    """
    if not 0 <= index < len(dictionary.directions):
        raise BadInput(f"expected a latent below {len(dictionary.directions)}; got {index}")
    vector = np.asarray(dictionary.directions[index].detach().cpu(), dtype=np.float64)
    return Unit(str(dictionary.reads), vector=tuple(vector.tolist()), called=f"{dictionary.reads} latent {index}")


def _bound(net: Network, objective: Objective) -> Objective:
    """The objective with what it must know of the network."""
    if isinstance(objective, Sum):
        return Sum(tuple((w, _bound(net, part)) for w, part in objective.parts))
    if isinstance(objective, Product):
        return Product(_bound(net, objective.left), _bound(net, objective.right))
    if isinstance(objective, Term) and objective.reads is not None:
        net.map.resolve(objective.reads)
    if isinstance(objective, Activation) and objective.unit.position is None:
        return replace(objective, prefix=prefix_of(net, objective.unit.site))
    return objective


def _objective(other: Any) -> Objective:
    if not isinstance(other, Objective):
        raise BadInput(f"expected an objective to add; got {other!r}. Weights multiply")
    return other
