"""Whether two networks have the same features: matched on some texts, tested on others, and put in each other's place.

    match(net, twin, texts, "blocks.*.attn.z")                              # heads
    match(net, twin, texts, "blocks.2.mlp.hidden")                          # units
    match(net, twin, texts, "blocks.2.resid_post", method=Matching("directions"))
    match(cnn, vit, pictures, "blocks.*.resid_post", "blocks.*.mlp.hidden")   # channels at the same points of images

Source: Li et al. 2016, Convergent learning (one-to-one matching by correlation); Gurnee et al. 2024, Universal neurons
(against networks without structure); Bansal et al. 2021 (stitching).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.errors import BadInput
from openwork.finding import Criteria
from openwork.geometry.features import KINDS, Features, Sums, features, likeness, matched, of_sums
from openwork.geometry.observed import Observations, Seen
from openwork.geometry.resampling import ends, pseudo_values
from openwork.geometry.samples import Material, Places, Sampling
from openwork.geometry.shuffled import Blank
from openwork.geometry.similarity import foreign
from openwork.geometry.transplant import Fits, Stage
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

SITES = "blocks.*.attn.z"
WRONG = "random matchings, fitted in the same way"
Tick = Callable[[float], None]


@dataclass(frozen=True)
class Matching:
    """How to match.

    Args:
        kind: ``parts``: heads, or units where a site has no heads; ``directions``: principal directions.
        most: features of each network, at most.
        quantile: a feature is universal if its likeness on held-out texts is above this quantile of that of features
            matched with copies whose weights are shuffled.
        untrained: how many such copies.
        groups: how many groups of texts the intervals rest on, at most.
        sampling: which places are looked at.
        standard: what a claim must meet.
        seed: of controls and intervals.
    """

    kind: str = "parts"
    most: int = 512
    quantile: float = 0.95
    untrained: int = 3
    groups: int = 32
    sampling: Sampling = field(default_factory=Sampling)
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not 0 < self.quantile < 1 or min(self.most, self.untrained, self.groups - 1) < 1:
            raise BadInput(
                f"expected kind of {KINDS}, a quantile in 0 to 1, a feature, a copy and 2 groups or more; got {self}"
            )


@dataclass(frozen=True, eq=False)
class Match:
    """Features of two networks matched on find texts, with how alike the pairs are on held-out ones.

    Args:
        rows: features of the first.
        columns: their counterparts.
        find: likeness on find texts.
        held: likeness on held-out texts.
        pseudo: (group, pair) jackknife values of the same.
    """

    rows: np.ndarray
    columns: np.ndarray
    find: Float[np.ndarray, " pair"]
    held: Float[np.ndarray, " pair"]
    pseudo: Float[np.ndarray, "group pair"]

    @classmethod
    def of(cls, a: Features, b: Features, groups: int) -> Match:
        """Match two networks' features; those that do not vary on find texts have no counterpart."""
        first, second = a.split(False), b.split(False)
        values = likeness(first, second)
        mine, theirs = np.flatnonzero(first.alive), np.flatnonzero(second.alive)
        if not len(mine) or not len(theirs):
            raise BadInput("expected features that vary on find texts; none does in one of the networks")
        i, j = matched(values[np.ix_(mine, theirs)])
        rows, columns = mine[i], theirs[j]
        x, y = a.split(True), b.split(True)
        parts = [Sums.of(x.take(r), y.take(r)) for r in x.samples.groups(groups)]
        held, pseudo = pseudo_values(parts, lambda s: of_sums(s, a.width == 1, a.signed)[rows, columns])
        return cls(rows, columns, values[rows, columns], held, pseudo)


def match(
    net: Network,
    other: Network,
    material: Material,
    sites: str | Site = SITES,
    other_sites: str | Site | None = None,
    method: Matching = Matching(),
    *,
    tick: Tick = lambda share: None,
) -> Result:
    """Match the features of two networks one to one, and test the matching by what it says of texts it has not seen.

    Args:
        net: the network.
        other: another: of another seed, another family, or a checkpoint.
        material: texts, rows of token ids, tensors, or images; half of them are held out.
        sites: where the features of `net` are read; those of several sites are matched together.
        other_sites: the same of `other`; those of `sites` unless given.
        method: how.
        tick: told the share that is done.

    Returns:
        a table by ``feature`` of `net`: ``counterpart``, ``likeness`` on held-out texts with ends, ``find_likeness``,
        ``control_likeness`` with the best copy, and ``universal``; and ``alike``, the likeness of all pairs on held-out
        texts, by ``feature`` and ``other_feature``. The first finding is about the mean likeness: its controls match on
        pairings of places of different texts, its rivals match with copies of `other` with shuffled weights. The
        second is an intervention, where both read the same tokens or images: how much less of the predictions is lost
        when the matched features carry what their counterparts tell instead of their mean; its controls are random
        matchings.

    Raises:
        BadInput: too few texts, NaN, features that do not vary, or heads against units.
        UnknownName: for a site that does not exist.

    Units:
        likeness: correlation for units and directions, debiased CKA for heads; loss: nats.

    Source:
        Li et al. 2016, section 3; matching by `scipy.optimize.linear_sum_assignment`.
    """
    there = str(other_sites or sites)
    places = Places.of([net, other], material, method.sampling, [[sites], [there]])
    a = features(net, places.read(net, sites), method.kind, method.most)
    b = features(other, places.read(other, there, 1), method.kind, method.most)
    if len(a.samples) != len(b.samples):
        raise BadInput(f"expected values at the same places; got {len(a.samples)} and {len(b.samples)}")
    found = Match.of(a, b, method.groups)
    blank = Blank(other)
    copies = []
    for copy in range(method.untrained):
        drawn = places.read(blank.shuffled(method.seed + copy), there, 1)
        copies.append(Match.of(a, features(other, drawn, method.kind, method.most), method.groups))
        tick(0.3 * (copy + 1) / method.untrained)
    threshold = float(np.quantile(np.concatenate([copy.held for copy in copies]), method.quantile))
    table = _table(a, b, found, copies, threshold)
    universal = int(table["universal"].sum())
    table.attrs.update(
        network=net.name, other=other.name, unit="likeness", threshold=threshold, universal=universal, n=len(a.samples),
        places=places.kind,
    )  # fmt: skip
    settings = {**asdict(method), "sites": str(sites), "other_sites": there, "by_word": places.by_word}
    observations = Observations([net, other], places, settings, method.seed)
    standard = method.standard
    criteria = Criteria(
        standard.min_share, "likeness", standard.alpha, min_examples=standard.min_examples, needs_rival=True
    )
    findings = [observations.claim(_alike(a, b, found, copies, places, net, other, method, criteria), criteria)]
    tick(0.6)
    remarks = _remarks(a, b, table, method)
    stage = Stage.of(net, other, places, Fits(a.split(False), b.split(False)))
    if stage.obstacle is not None:
        remarks += (f"{stage.obstacle}: features were compared, and not put in each other's place",)
    else:
        findings.append(_put_to_work(stage, found, observations, method, lambda share: tick(0.6 + 0.4 * share)))
    tick(1.0)
    return Result("universality", tuple(findings), table, settings, remarks)


def _alike(
    a: Features, b: Features, found: Match, copies: list[Match], places: Places, net: Network, other: Network,
    method: Matching, criteria: Criteria,
) -> Seen:  # fmt: skip
    rng = np.random.default_rng((method.seed, 4))
    first, second = (a.split(False), b.split(False)), (a.split(True), b.split(True))
    controls = []
    for _ in range(criteria.controls_needed):
        i, j = matched(likeness(*first, foreign(first[0].samples.text, rng)))
        controls.append(float(likeness(*second, foreign(second[0].samples.text, rng))[i, j].mean()))
    rivals = {f"shuffled weights {n + 1}": copy.pseudo.mean(1) for n, copy in enumerate(copies)}
    text = f"the {len(found.rows)} features of {net.name} have counterparts in {other.name}"
    return Seen(text, found.pseudo.mean(1), np.array(controls), f"matchings on {places.shifted}", rivals)


def _put_to_work(stage: Stage, found: Match, observations: Observations, method: Matching, tick: Tick) -> Any:
    pairs = list(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
    rng = np.random.default_rng((method.seed, 5))
    wrong = []
    for _ in range(method.standard.criteria(1.0, "nats").controls_needed):
        columns = rng.permutation(len(stage.fits.of))
        wrong.append([(i, int(columns[k % len(columns)])) for k, (i, _) in enumerate(pairs)])
    silent, right, *others = stage.divergences([(pairs, True), (pairs, False), *((w, False) for w in wrong)], tick)
    criteria = method.standard.criteria(float(silent.mean()), "nats")
    controls = np.array([float((silent - lost).mean()) for lost in others])
    text = (
        f"features of {stage.net.name} can be carried by their counterparts in {stage.other.name}: of "
        f"{silent.mean():.3g} nats that are lost when they carry their mean, so much less is"
    )
    return observations.claim(Seen(text, silent - right, controls, WRONG, intervened=True), criteria)


def _table(a: Features, b: Features, found: Match, copies: list[Match], threshold: float) -> Any:
    import xarray

    low, high = ends(found.held, found.pseudo)

    def spread(values: np.ndarray, fill: Any = np.nan) -> np.ndarray:
        out = np.full(len(a), fill, dtype=object if isinstance(fill, str) else None)
        out[found.rows] = values
        return out.astype(str) if isinstance(fill, str) else out

    control = np.full((len(copies), len(a)), np.nan)
    for own, copy in zip(control, copies, strict=True):
        own[copy.rows] = copy.held
    best = np.where(np.isnan(control).all(0), np.nan, np.nanmax(np.nan_to_num(control, nan=-np.inf), 0))
    variables: dict[str, Any] = {
        "counterpart": ("feature", spread(np.array(b.names)[found.columns], "")),
        "likeness": ("feature", spread(found.held)),
        "likeness_low": ("feature", spread(low)), "likeness_high": ("feature", spread(high)),
        "find_likeness": ("feature", spread(found.find)), "control_likeness": ("feature", best),
        "universal": ("feature", spread(found.held > threshold, False)),
        "alike": (("feature", "other_feature"), likeness(a.split(True), b.split(True))),
    }  # fmt: skip
    return xarray.Dataset(variables, {"feature": list(a.names), "other_feature": list(b.names)})


def _remarks(a: Features, b: Features, table: Any, method: Matching) -> tuple[str, ...]:
    said = [
        f"{table.attrs['universal']} of {len(a)} features are universal: more alike than {method.quantile:.0%} of "
        f"matches with copies whose weights are shuffled ({table.attrs['threshold']:.2f})"
    ]
    if len(a.maps) > 1:
        found = table["universal"].values
        own = np.array(a.sites)
        said.append(
            "universal by site: "
            + ", ".join(f"{site} {found[own == site].sum()} of {(own == site).sum()}" for site in a.maps)
        )
    dead = int((~a.alive).sum()), int((~b.alive).sum())
    if any(dead):
        said.append(f"{dead[0]} and {dead[1]} features of the two networks do not vary, and have no counterparts")
    return tuple(said)
