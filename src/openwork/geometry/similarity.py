"""How alike the layers of one network are, or those of two networks, on the same places of the same texts.

    similarity(net, texts)                                           # layer by layer
    similarity(net, texts, other=twin, method=Likeness("procrustes"))

Source: Kornblith et al. 2019 (CKA); Nguyen, Raghu and Kornblith 2021, Do wide and deep networks learn the same things?
(the unbiased estimate); Raghu et al. 2017 (SVCCA); Ding, Denain and Steinhardt 2021 (Procrustes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from openwork.errors import BadInput, UnknownName
from openwork.finding import Criteria
from openwork.geometry.moments import Moments
from openwork.geometry.observed import Observations, Seen
from openwork.geometry.resampling import ends, pseudo_values
from openwork.geometry.samples import Material, Places, Samples, Sampling
from openwork.geometry.shuffled import Blank
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

SITES = "blocks.*.resid_post"
Tick = Callable[[float], None]


@dataclass(frozen=True)
class Likeness:
    """How to measure how alike two representations are.

    Args:
        measure: ``cka`` (debiased; blind to rotation and scale, dominated by the large directions), ``svcca`` and
            ``pwcca`` (blind to any linear map of the principal subspace), or ``procrustes``: 1 minus half the
            Procrustes distance, so that 1 is the same and 0 unrelated for all four.
        variance: the share of the variance that SVCCA and PWCCA keep.
        groups: how many groups of texts the intervals rest on, at most.
        untrained: how many copies with shuffled weights of the other network are rivals of a claim.
        sampling: which places are looked at.
        standard: what a claim must meet.
        seed: of controls and intervals.
    """

    measure: str = "cka"
    variance: float = 0.99
    groups: int = 32
    untrained: int = 3
    sampling: Sampling = field(default_factory=Sampling)
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownName.among("measure of similarity", self.measure, MEASURES)
        if not 0 < self.variance <= 1 or self.groups < 2 or self.untrained < 0:
            raise BadInput(f"expected variance above 0 up to 1, 2 groups or more, no negative copies; got {self}")

    def of(self, moments: Moments) -> float:
        """The similarity of two representations."""
        return float(MEASURES[self.measure](self, moments))


MEASURES: dict[str, Callable[[Likeness, Moments], Tensor]] = {
    "cka": lambda method, moments: moments.cka(),
    "svcca": lambda method, moments: moments.svcca(method.variance),
    "pwcca": lambda method, moments: moments.pwcca(method.variance),
    "procrustes": lambda method, moments: 1 - moments.procrustes() / 2,
}
"""Name -> measure, 1 for the same and about 0 for unrelated."""


def similarity(
    net: Network,
    material: Material,
    sites: str | Site = SITES,
    other: Network | None = None,
    other_sites: str | Site | None = None,
    method: Likeness = Likeness(),
    *,
    tick: Tick = lambda share: None,
) -> Result:
    """Measure how alike each site of one network is to each of another, or of the same.

    Args:
        net: the network.
        material: texts, rows of token ids, tensors, or images; half of them are held out.
        sites: a site or pattern.
        other: another network; the same unless given.
        other_sites: its sites; those of `sites` unless given.
        method: how.
        tick: told the share that is done.

    Returns:
        a table with ``similarity`` and its jackknife ends by ``site`` and ``other_site``, over all texts. Two networks
        give one finding: the pair of sites that is most alike on find texts, measured on held-out ones; each
        example is a group of texts, the controls pair places of different texts, the rivals are copies of `other`
        with shuffled weights.

    Raises:
        BadInput: too few texts or samples, NaN, or networks whose tokens cannot be aligned.
        UnknownName: for a site or a measure that does not exist.

    Units:
        none.

    Source:
        Kornblith et al. 2019, section 6; Nguyen, Raghu and Kornblith 2021, section 3.
    """
    nets = [net] if other is None else [net, other]
    read = [sites, other_sites or sites]
    places = Places.of(nets, material, method.sampling, [read] if other is None else [[site] for site in read])
    mine = compact(places.read(net, sites))
    theirs = mine if other is None and other_sites is None else compact(
        places.read(other or net, other_sites or sites, len(nets) - 1)
    )  # fmt: skip
    pairs = _pairs(mine, theirs)
    table = _table(mine, theirs, pairs, method, tick)
    table.attrs.update(
        network=net.name, other=(other or net).name, unit="similarity", measure=method.measure,
        places=places.kind, n=len(mine),
    )  # fmt: skip
    settings = {
        **asdict(method),
        "sites": str(sites),
        "other_sites": str(other_sites or sites),
        "by_word": places.by_word,
    }
    findings = ()
    if other is not None:
        seen = _alike(places, mine, theirs, net, other, method)
        criteria = Criteria(
            method.standard.min_share, "similarity", method.standard.alpha, min_examples=method.standard.min_examples,
            needs_rival=bool(method.untrained),
        )  # fmt: skip
        findings = (Observations(nets, places, settings, method.seed).claim(seen, criteria),)
    return Result("similarity of representations", findings, table, settings, remarks(places, mine))


def compact(samples: Samples) -> Samples:
    """The same inner products in as few channels as there are samples: rotated, which no measure here sees."""
    values = {}
    for site in samples.sites:
        matrix = samples.matrix(site).double()
        matrix = matrix - matrix.mean(0)
        if matrix.shape[1] > len(matrix):
            left, singular, _ = torch.linalg.svd(matrix, full_matrices=False)
            matrix = left * singular
        values[site] = matrix
    return Samples(values, samples.text, samples.held)


def parts_of(a: Tensor, b: Tensor, groups: Sequence[np.ndarray]) -> list[Moments]:
    """The moments of each group of samples."""
    index = [torch.as_tensor(rows) for rows in groups]
    return [Moments.of(a[rows], b[rows]) for rows in index]


def remarks(places: Places, samples: Samples) -> tuple[str, ...]:
    """What a reader must know of the places that were compared."""
    said = []
    if places.by_word:
        said.append("the networks cut texts into different tokens: compared at the last tokens of words")
    most = max(value.shape[1] for value in samples.values.values())
    if len(samples) < 2 * most:
        said.append(
            f"{len(samples)} places for up to {most} dimensions: CKA is debiased for that, the other measures are not; "
            "compare with the controls, or read more texts"
        )
    return tuple(said)


def _pairs(mine: Samples, theirs: Samples) -> list[tuple[str, str]]:
    """All pairs of sites; those of one set of sites with itself once."""
    if mine is theirs:
        return [(a, b) for i, a in enumerate(mine.sites) for b in mine.sites[i:]]
    return [(a, b) for a in mine.sites for b in theirs.sites]


def _table(mine: Samples, theirs: Samples, pairs: Sequence[tuple[str, str]], method: Likeness, tick: Tick) -> Any:
    import xarray

    shape = len(mine.sites), len(theirs.sites)
    value, low, high = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    groups = mine.groups(method.groups)
    for done, (a, b) in enumerate(pairs):
        parts = parts_of(mine.values[a], theirs.values[b], groups)
        theta, pseudo = pseudo_values(parts, method.of)
        at = mine.sites.index(a), theirs.sites.index(b)
        value[at] = theta
        low[at], high[at] = ends(theta, pseudo)
        if mine is theirs:
            value[at[::-1]], low[at[::-1]], high[at[::-1]] = value[at], low[at], high[at]
        tick((done + 1) / len(pairs))
    axes = ("site", "other_site")
    coords = {"site": mine.sites, "other_site": theirs.sites}
    variables = {"similarity": (axes, value), "similarity_low": (axes, low), "similarity_high": (axes, high)}
    return xarray.Dataset(variables, coords)


def _alike(places: Places, mine: Samples, theirs: Samples, net: Network, other: Network, method: Likeness) -> Seen:
    """The pair of sites that is most alike on find texts, on held-out ones."""
    find = [s.split("find") for s in (mine, theirs)]
    values = {(a, b): method.of(Moments.of(find[0].values[a], find[1].values[b])) for a, b in _pairs(mine, theirs)}
    a, b = max(values, key=lambda pair: values[pair])
    held = [s.split("held-out") for s in (mine, theirs)]
    groups = held[0].groups(method.groups)
    x, y = held[0].values[a], held[1].values[b]
    _, effects = pseudo_values(parts_of(x, y, groups), method.of)
    rng = np.random.default_rng((method.seed, 1))
    count = Criteria(method.standard.min_share, "", method.standard.alpha).controls_needed
    controls = [method.of(Moments.of(x, y[torch.as_tensor(foreign(held[0].text, rng))])) for _ in range(count)]
    rivals = {}
    blank = Blank(other) if method.untrained else None
    for copy in range(method.untrained):
        assert blank is not None
        drawn = places.read(blank.shuffled(method.seed + copy), b, 1)
        unlearned = compact(drawn).split("held-out").values[b]
        rivals[f"shuffled weights {copy + 1}"] = pseudo_values(parts_of(x, unlearned, groups), method.of)[1]
    text = f"{a} of {net.name} and {b} of {other.name} are alike ({method.measure})"
    return Seen(text, effects, np.array(controls), places.shifted, rivals)


def foreign(text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each sample one of another text where there is any, each taken once: a rotation of shuffled texts."""
    order = np.concatenate([rng.permutation(np.flatnonzero(text == t)) for t in rng.permutation(np.unique(text))])
    counts = np.bincount(text)
    # rotating by the largest text takes every sample into another one, unless one text holds more than half of all
    least = int(counts.max())
    by = least if 2 * least >= len(order) else int(rng.integers(least, len(order) - least + 1))
    out = np.empty(len(order), dtype=np.int64)
    out[order] = np.roll(order, by)
    return out
