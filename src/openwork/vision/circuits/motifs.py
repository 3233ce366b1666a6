"""Equivariant families: units that compute the same at other angles, or mirrored.

    families(net, pictures, "module:layer1.out")                       # by their kernels on pixels
    families(net, pictures, "blocks.2.resid_post", method=Matching(angles=8, mirrors=False))

Kernels are matched with turned and mirrored ones; how alike they must be is what random kernels of the same spectrum
reach. A family is claimed if its units answer to turned held-out images as one another, against random units.

Source: Olah et al. 2020, Naturally occurring equivariance in neural networks (Distill).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.finding import Finding
from openwork.pictures import Pictures
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.circuits.kernels import MAP, SLOPES, kernels
from openwork.vision.circuits.turns import Turn, agreement, framed, likeness, same_spectrum, turned, turns
from openwork.vision.corpora import Split, claims_about
from openwork.vision.halves import halves, read

if TYPE_CHECKING:
    from openwork.network import Network

CONTROL = "random units of the same layer under the same turns"


@dataclass(frozen=True)
class Matching:
    """How families are found and tested.

    Args:
        angles: even steps of a full turn.
        mirrors: whether mirrored kernels match too.
        least: the least cosine of two members, should random kernels reach less.
        alpha: accepted rate of any match among random kernels of the same spectra.
        draws: random sets of kernels that this is read off.
        slopes: see `kernels`.
        images: of each half, at most.
        claims: how many families, the largest first, are claimed on held-out images.
        standard: what a claim must meet; its least share is the least correlation.
        seed: of the halves and of everything random.
    """

    angles: int = 16
    mirrors: bool = True
    least: float = 0.8
    alpha: float = 0.05
    draws: int = 40
    slopes: str = "mean"
    images: int = 32
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        turns(self.angles, self.mirrors)
        if self.slopes not in SLOPES:
            raise BadInput(f"expected slopes of {', '.join(SLOPES)}; got {self.slopes!r}")
        if not 0 < self.least < 1 or not 0 < self.alpha < 1 or self.draws < 2 or self.images < 2 or self.claims < 0:
            raise BadInput(f"expected 0 < least, alpha < 1, draws and images from 2, claims from 0; got {self}")


@dataclass(frozen=True)
class Family:
    """Units that are turned copies of one another.

    Args:
        units: of the site, the one most like all others first.
        turns: what the first one's kernel must be turned by to be like each.
    """

    units: tuple[int, ...]
    turns: tuple[Turn, ...]

    def __str__(self) -> str:
        return ", ".join(f"{unit} ({turn})" for unit, turn in zip(self.units, self.turns, strict=True))


def families(
    net: Network,
    pictures: Pictures,
    site: str | Site,
    sender: str | Site | None = None,
    method: Matching = Matching(),
    *,
    held_out: Pictures | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Result:
    """Find families of turned or mirrored units by their kernels, and claim them on turned held-out images.

    Args:
        net: the network.
        pictures: images; slopes are averaged over one half, the other one is turned.
        site: of the units; an index selects among them.
        sender: where kernels begin; its channels must not change when an image is turned, as colours do not. The pixels
            unless given.
        method: how.
        held_out: images that nothing is found on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a finding for each of the largest families; and a table: ``kernel`` (unit, in_unit, dy, dx), ``family`` (unit),
        -1 for none, ``angle`` and ``mirrored`` (unit) relative to its family's first, ``likeness`` (unit, other) of the
        best turn, ``round`` (unit) for those that no turn changes, ``agreement`` (claim, held_out_image) and
        ``agreement_control`` (claim, control).

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for a site without places, or too few images.

    Units:
        of the claims, a correlation of maps.

    Source:
        Olah et al. 2020; surrogates: Theiler et al. 1992.
    """
    split = halves(pictures, held_out, method.images, method.seed)
    first = pixels_site(net) if sender is None else sender
    found = kernels(net, first, site, read(net, split.find, split.find_rows), method.slopes, lambda s: tick(0.3 * s))
    if found.at is None:
        raise BadInput(f"expected units with places, whose maps turn with the image; {found.receiver} has none")
    frames, ways = framed(found), turns(method.angles, method.mirrors)
    like = likeness(frames, ways)
    limit = threshold(frames, ways, method)
    still = unturned(like, ways, limit)
    groups = grouped(like, ways, limit, still)
    tick(0.5)
    settings = {
        "sender": found.sender, "site": found.receiver, "pictures": pictures.name, **asdict(method),
    }  # fmt: skip
    claims = claims_about(net, split, settings, method.seed)
    chosen = groups[: method.claims]
    findings, held = _claims(
        net, Site(found.receiver, found.out_units), chosen, split, method, claims, lambda s: tick(0.5 + s / 2)
    )
    table = _table(found, like, groups, still, limit).assign(held)
    table.attrs.update(
        network=net.name, unit="correlation", sender=found.sender, site=found.receiver, threshold=limit,
        families=len(groups),
    )  # fmt: skip
    remarks = [] if groups else [f"no two units are turned copies of one another by a cosine of {limit:.2f}"]
    if found.clipped:
        remarks.append(f"the kernels reach an end of the map of {found.sender}: parts of larger ones were compared")
    tick(1.0)
    return Result("equivariant families", findings, table, settings, (*remarks, *split.remarks))


def pixels_site(net: Network) -> str:
    """The site that holds what the network reads: the input of its first module that has a map of the image's size.

    Raises:
        BadInput: if there is none.
    """
    value = net.example.get(net.preparer.main)
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    for name, info in net.map.modules.items():
        if name.endswith(".in") and tuple(info.shape) == shape and info.axes == MAP:
            return name
    raise BadInput(f"expected a network whose first module reads a map of pixels; {net.name} has none. Name the sender")


def threshold(frames: Float[Tensor, "unit channel y x"], ways: Sequence[Turn], method: Matching) -> float:
    """The cosine that random kernels of the same spectra seldom reach in any pair, or the least that was asked for."""
    generator = torch.Generator().manual_seed(method.seed)
    most = []
    for _ in range(method.draws):
        found = likeness(same_spectrum(frames.cpu(), generator), ways).amax(0)
        most.append(float(found.fill_diagonal_(-1).max()) if len(found) > 1 else -1.0)
    return max(method.least, float(np.quantile(most, 1 - method.alpha)))


def unturned(like: Float[Tensor, "turn unit other"], ways: Sequence[Turn], limit: float) -> Bool[np.ndarray, " unit"]:
    """Units that every rotation leaves as they are; any two of these would match at any angle."""
    rotations = [i for i, way in enumerate(ways) if not way.mirrored]
    return (like[rotations].diagonal(dim1=1, dim2=2).amin(0) >= limit).cpu().numpy()


def grouped(
    like: Float[Tensor, "turn unit other"], ways: Sequence[Turn], limit: float, still: Bool[np.ndarray, " unit"]
) -> list[Family]:
    """Families: every two members match by some turn, and not all of them without any; larger ones first."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    units = np.flatnonzero(~still)
    if len(units) < 2:
        return []
    best = like.amax(0).cpu().numpy()
    both = np.minimum(best, best.T)[np.ix_(units, units)]
    distance = np.clip(1 - both, 0, 2)
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance, checks=False), "complete"), 1 - limit, "distance")
    found = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            continue
        order = members[np.argsort(-both[np.ix_(members, members)].mean(1), kind="stable")]
        named = [int(units[m]) for m in order]
        # of turns that fit as well, the first: none before any, rotations before mirrorings
        by = [ways[int((like[:, named[0], u] >= like[:, named[0], u].max() - 1e-4).nonzero()[0])] for u in named]
        if any(turn != ways[0] for turn in by):
            found.append(Family(tuple(named), (ways[0], *by[1:])))
    return sorted(found, key=lambda family: (-len(family.units), family.units))


def _claims(
    net: Network,
    site: Site,
    chosen: Sequence[Family],
    split: Split,
    method: Matching,
    claims: Claims,
    tick: Callable[[float], None],
) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    """The findings about some families, and the numbers behind them."""
    if not chosen:
        return (), {}
    ways = list(dict.fromkeys(turn for family in chosen for turn in family.turns[1:]))
    held = {way: _turned_maps(net, split, site, way) for way in _told(ways, tick)}
    criteria = method.standard.criteria(1.0, "correlation")
    random = np.random.default_rng(method.seed)
    count = len(site.index)
    candidates = []
    for family in chosen:
        own = np.mean([held[t][:, family.units[0], u] for u, t in _others(family)], axis=0)
        related = {unit for other in chosen for unit in other.units}
        free = [u for u in range(count) if u not in related]
        pool = free if len(free) >= 2 else list(range(count))
        controls = []
        for _ in range(criteria.controls_needed):
            start = int(random.choice(pool))
            rest = [int(u) for u in random.choice([p for p in pool if p != start], len(family.units) - 1)]
            pairs = zip(rest, family.turns[1:], strict=True)
            controls.append(float(np.mean([held[t][:, start, u].mean() for u, t in pairs])))
        names = Family(tuple(site.index[u] for u in family.units), family.turns)
        text = f"channels {names} of {site.path} answer to turned images as the first of them to images as they are"
        candidates.append(Candidate(text, own, np.array(controls), CONTROL))
    table = {
        "agreement": (("claim", "held_out_image"), np.stack([c.effects for c in candidates])),
        "agreement_control": (("claim", "control"), np.stack([c.controls for c in candidates])),
        "claim": [c.text for c in candidates],
    }
    return claimed(claims, criteria, candidates), table


def _told(ways: Sequence[Turn], tick: Callable[[float], None]) -> Any:
    for number, way in enumerate(ways, 1):
        yield way
        tick(number / len(ways))


def _others(family: Family) -> list[tuple[int, Turn]]:
    return list(zip(family.units[1:], family.turns[1:], strict=True))


def _turned_maps(net: Network, split: Split, site: Site, way: Turn) -> Float[np.ndarray, "image unit other"]:
    """How maps of images, turned, agree with maps of the turned images, within what both saw whole."""
    grid = net.grid(site.path)
    middle = tuple(grid.offset[i] + grid.stride[i] * (n - 1) / 2 for i, n in enumerate((grid.height, grid.width)))
    inputs = read(net, split.held, split.held_rows)
    plain, after = (
        net.run(given, keep=site.path, until=site.path)[site.path][:, list(site.index)].float().cpu()
        for given in (inputs, turned(inputs, way, (middle[0], middle[1]), "reflection"))
    )
    whole = min(grid.image) / 2 - max(grid.field) / 2
    radius = max(whole / max(grid.stride), 0.35 * min(grid.height, grid.width))
    return agreement(turned(plain, way), after, radius)


def _table(found: Any, like: Tensor, groups: Sequence[Family], still: np.ndarray, limit: float) -> Any:
    import xarray

    n = len(found.out_units)
    family, angle, mirrored = np.full(n, -1), np.full(n, np.nan), np.zeros(n, dtype=bool)
    for number, group in enumerate(groups):
        for unit, turn in zip(group.units, group.turns, strict=True):
            family[unit], angle[unit], mirrored[unit] = number, turn.angle, turn.mirrored
    names = list(found.out_units)
    return xarray.Dataset(
        {
            "kernel": (("unit", "in_unit", "dy", "dx"), found.values.float().cpu().numpy()),
            "family": ("unit", family),
            "angle": ("unit", angle),
            "mirrored": ("unit", mirrored),
            "round": ("unit", still),
            "likeness": (("unit", "other"), like.amax(0).cpu().numpy()),
        },
        {"unit": names, "other": names, "in_unit": list(found.in_units), "dy": list(found.dy), "dx": list(found.dx)},
    )
