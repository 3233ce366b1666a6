"""How representations drift over the checkpoints of a training or a fine-tuning, and what appears, moves and vanishes.

    drift([ow.open(f"py-attn2@{step}") for step in zoo.checkpoints("py-attn2")], texts)

Source: Raghu et al. 2017, section 4.1 (similarity to the last checkpoint); Björck and Golub 1973 (angles between
subspaces); Li et al. 2016 (matched features).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from openwork.errors import BadInput
from openwork.finding import Criteria
from openwork.geometry.fates import EARLIER, LATER, fates
from openwork.geometry.features import KINDS, Features, features, likeness, matched
from openwork.geometry.moments import Moments
from openwork.geometry.observed import Observations, Seen
from openwork.geometry.resampling import ends, pseudo_values
from openwork.geometry.samples import Material, Places, Samples, Sampling
from openwork.geometry.shuffled import Blank
from openwork.geometry.similarity import compact, parts_of
from openwork.geometry.spectra import Covariance
from openwork.geometry.universality import Match
from openwork.metrics.alignment import principal_angles
from openwork.metrics.spectrum import effective_rank
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

TO = ("first", "previous", "last")
ABSENT = "absent"
"""Of a part that does not vary: there is nothing that could be kept or appear."""
UPDATES = "random updates of every tensor by the same norm"
Tick = Callable[[float], None]


@dataclass(frozen=True)
class Drifting:
    """How to follow representations.

    Args:
        subspace: how many principal directions the angles between subspaces are of.
        kind: of features: ``parts`` (heads or units) or ``directions``.
        most: features, at most.
        quantile: two features are the same if they are more alike than this quantile of features matched with copies of
            the last checkpoint whose weights are shuffled.
        untrained: how many such copies.
        updates: how many random updates are controls of the largest change.
        groups: how many groups of texts the intervals rest on, at most.
        sampling: which places are looked at.
        standard: what a claim must meet.
        seed: of controls and intervals.
    """

    subspace: int = 8
    kind: str = "parts"
    most: int = 256
    quantile: float = 0.95
    untrained: int = 3
    updates: int = 20
    groups: int = 32
    sampling: Sampling = field(default_factory=Sampling)
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        least = min(self.subspace, self.most, self.untrained, self.updates, self.groups - 1)
        if self.kind not in KINDS or not 0 < self.quantile < 1 or least < 1:
            raise BadInput(
                f"expected kind of {KINDS}, a quantile between 0 and 1, and counts of at least 1; got {self}"
            )


def drift(
    nets: Sequence[Network],
    material: Material,
    sites: str | Site = "blocks.*.resid_post",
    parts: str | Site = "blocks.*.attn.z",
    method: Drifting = Drifting(),
    *,
    names: Sequence[str] | None = None,
    tick: Tick = lambda share: None,
) -> Result:
    """Follow the representations of a network from checkpoint to checkpoint.

    Args:
        nets: the checkpoints, earliest first; or a network and what it was fine-tuned to.
        material: texts or rows of token ids; half of them are held out.
        sites: whose representations are compared.
        parts: whose heads or units are followed.
        method: how.
        names: of the checkpoints; those of the networks unless given.
        tick: told the share that is done.

    Returns:
        a table by ``stage``, a checkpoint, and ``site``: ``cka_first``, ``cka_previous`` and ``cka_last`` with ends,
        ``procrustes_…`` (0 to 2) and ``angle_…`` (mean principal angle of the first principal directions, radians)
        to the same three, and ``effective_rank``; how many parts were ``kept``, ``moved``, ``merged`` or ``vanished``
        since the previous checkpoint, and how many ``split`` or ``appeared``; ``own``, how alike each part is to itself
        at the previous checkpoint; by ``part``, its ``fate`` from the first to the last checkpoint and its ``origin``
        seen from the last. The finding is about the largest change from one checkpoint to the next on find texts: it is
        more than random updates of the weights by the same norms make.

    Raises:
        BadInput: fewer than two checkpoints, networks of different shapes, too few texts, or NaN.
        UnknownName: for a site that does not exist.

    Units:
        CKA: none; angles: radians.

    Source:
        Raghu et al. 2017; Ding, Denain and Steinhardt 2021; Li et al. 2016.
    """
    named = _names(nets, names)
    places = Places.of(nets, material, method.sampling, [[sites, parts]] * len(nets))
    if places.by_word:
        raise BadInput("expected checkpoints that read the same tokens; theirs differ: compare two with match()")
    read = []
    for number, net in enumerate(nets):
        read.append(places.read(net, sites, number))
        tick(0.3 * (number + 1) / len(nets))
    shapes = [{site: value.shape for site, value in samples.values.items()} for samples in read]
    if any(shape != shapes[0] for shape in shapes):
        raise BadInput(f"expected checkpoints of one network; values at {sites} have different shapes")
    small = [compact(samples) for samples in read]
    table = _representations(read, small, named, method)
    tick(0.5)
    followed, threshold = _followed(nets, places, parts, method)
    table = table.assign(_fates(followed, threshold, method))
    tick(0.7)
    table.attrs.update(network=nets[-1].name, unit="CKA", threshold=threshold, n=len(read[0]))
    settings = {**asdict(method), "sites": str(sites), "parts": str(parts), "checkpoints": named}
    seen = _largest(nets, places, small, str(sites), named, method)
    standard = method.standard
    criteria = Criteria(
        standard.min_share, "1 − CKA", standard.alpha, min_examples=standard.min_examples, needs_rival=False
    )
    finding = Observations(nets, places, settings, method.seed).claim(seen, criteria)
    tick(1.0)
    return Result("drift", (finding,), table, settings, _remarks(table, named))


def _names(nets: Sequence[Network], names: Sequence[str] | None) -> list[str]:
    if len(nets) < 2:
        raise BadInput(f"expected at least two checkpoints; got {len(nets)}")
    named = [net.name for net in nets] if names is None else list(names)
    if len(named) != len(nets):
        raise BadInput(f"expected a name for each of {len(nets)} checkpoints; got {len(named)}")
    if len({*named}) < len(named):
        named = [f"{i}: {name}" for i, name in enumerate(named)]
    return named


def _targets(step: int, count: int) -> dict[str, int]:
    return {"first": 0, "previous": max(0, step - 1), "last": count - 1}


def _representations(read: Sequence[Samples], small: Sequence[Samples], named: list[str], method: Drifting) -> Any:
    import xarray

    sites = read[0].sites
    shape = len(read), len(sites)
    kinds = [f"cka_{to}{end}" for to in TO for end in ("", "_low", "_high")]
    kinds += [f"{kind}_{to}" for kind in ("procrustes", "angle") for to in TO]
    out = {name: np.full(shape, np.nan) for name in [*kinds, "effective_rank"]}
    groups = read[0].groups(method.groups)
    for place, site in enumerate(sites):
        bases = [_basis(samples.matrix(site), method.subspace) for samples in read]
        known: dict[tuple[int, int], tuple[float, ...]] = {}
        for step in range(len(read)):
            values = small[step].values[site]
            out["effective_rank"][step, place] = float(effective_rank(Covariance.of(values).eigenvalues))
            for to, target in _targets(step, len(read)).items():
                pair = min(step, target), max(step, target)
                if pair not in known:
                    parts = parts_of(small[pair[0]].values[site], small[pair[1]].values[site], groups)
                    theta, pseudo = pseudo_values(parts, lambda m: float(m.cka()))
                    low, high = ends(theta, pseudo)
                    far = float(Moments.of(small[pair[0]].values[site], small[pair[1]].values[site]).procrustes())
                    angle = float(principal_angles(bases[pair[0]], bases[pair[1]]).mean())
                    known[pair] = float(theta), float(low), float(high), far, angle
                found = dict(zip((f"cka_{to}", f"cka_{to}_low", f"cka_{to}_high", f"procrustes_{to}", f"angle_{to}"),
                                 known[pair], strict=True))  # fmt: skip
                for name, value in found.items():
                    out[name][step, place] = value
    axes = ("stage", "site")
    return xarray.Dataset({name: (axes, value) for name, value in out.items()}, {"stage": named, "site": sites})


def _basis(matrix: torch.Tensor, count: int) -> torch.Tensor:
    """The first principal directions, as rows."""
    matrix = matrix.double()
    _, singular, right = torch.linalg.svd(matrix - matrix.mean(0), full_matrices=False)
    rank = int((singular > 1e-9 * singular[0]).sum())
    if not rank:
        raise BadInput("expected values that vary; one site has the same value at all places")
    return right[: min(count, rank)]


def _followed(
    nets: Sequence[Network], places: Places, parts: str | Site, method: Drifting
) -> tuple[list[Features], float]:
    """The same features in every checkpoint, and the likeness that features have without what was learned."""
    drawn = [places.read(net, parts, number) for number, net in enumerate(nets)]
    last = features(nets[-1], drawn[-1], method.kind, method.most)
    # units are followed in their places; directions are each checkpoint's own
    basis = last if method.kind == "parts" else None
    found = [features(net, own, method.kind, method.most, basis) for net, own in zip(nets, drawn, strict=True)]
    blank, control = Blank(nets[-1]), []
    for copy in range(method.untrained):
        values = places.read(blank.shuffled(method.seed + copy), parts, len(nets) - 1)
        control.append(Match.of(last, features(nets[-1], values, method.kind, method.most, basis), method.groups).held)
    return found, float(np.quantile(np.concatenate(control), method.quantile))


def _fates(followed: Sequence[Features], threshold: float, method: Drifting) -> dict[str, Any]:
    count = len(followed)
    numbers = {name: np.full(count, np.nan) for name in dict.fromkeys((*EARLIER, *LATER))}
    for step in range(1, count):
        earlier, later = _between(followed[step - 1], followed[step], threshold)
        for name in numbers:
            numbers[name][step] = (earlier if name in EARLIER else later).tolist().count(name)
    fate, origin = _between(followed[0], followed[-1], threshold)
    variables: dict[str, Any] = {name: ("stage", values) for name, values in numbers.items()}
    if len({features.names for features in followed}) == 1:
        own = [
            np.diagonal(likeness(followed[max(0, step - 1)].split(True), followed[step].split(True)))
            for step in range(count)
        ]
        variables["own"] = (("stage", "part"), np.array(own))
    variables["fate"] = ("earlier_part", fate)
    variables["origin"] = ("part", origin)
    variables["earlier_part"] = ("earlier_part", list(followed[0].names))
    variables["part"] = ("part", list(followed[-1].names))
    return variables


def _between(a: Features, b: Features, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Fates from one checkpoint to another: matched on find texts, told on held-out ones; still parts do not exist."""
    first, second = a.split(False), b.split(False)
    alive = first.alive, second.alive
    there = [np.flatnonzero(x) for x in alive]
    rows, columns = matched(likeness(first, second)[np.ix_(*there)])
    values = likeness(a.split(True), b.split(True))
    values[~alive[0]] = values[:, ~alive[1]] = -1.0
    earlier, later = fates(values, there[0][rows], there[1][columns], threshold)
    earlier[~alive[0]] = later[~alive[1]] = ABSENT
    return earlier, later


def _largest(
    nets: Sequence[Network], places: Places, small: Sequence[Samples], sites: str, named: list[str], method: Drifting
) -> Seen:
    """The largest change from one checkpoint to the next on find texts, on held-out ones."""
    find = [s.split("find") for s in small]
    change = {
        (step, site): 1 - float(Moments.of(find[step].values[site], find[step + 1].values[site]).cka())
        for step in range(len(nets) - 1) for site in small[0].sites
    }  # fmt: skip
    step, site = max(change, key=lambda place: change[place])
    held = [small[i].split("held-out") for i in (step, step + 1)]
    groups = held[0].groups(method.groups)
    x, y = (h.values[site] for h in held)
    _, effects = pseudo_values(parts_of(x, y, groups), lambda m: 1 - float(m.cka()))
    blank, controls = Blank(nets[step]), []
    for draw in range(method.updates):
        moved = blank.moved(nets[step + 1], method.seed + draw)
        values = compact(places.read(moved, site, step)).split("held-out").values[site]
        controls.append(1 - float(Moments.of(x, values).cka()))
    text = f"from {named[step]} to {named[step + 1]}, {site} changed more than weights moved at random would change it"
    return Seen(text, effects, np.array(controls), UPDATES)


def _remarks(table: Any, named: list[str]) -> tuple[str, ...]:
    counts = {name: table["fate"].values.tolist().count(name) for name in EARLIER}
    new = {name: table["origin"].values.tolist().count(name) for name in LATER[2:]}
    said = ", ".join(f"{count} {name}" for name, count in {**counts, **new}.items())
    return (
        f"parts from {named[0]} to {named[-1]}: {said}; two are the same above a likeness of "
        f"{table.attrs['threshold']:.2f}, which matches with shuffled weights seldom reach",
    )
