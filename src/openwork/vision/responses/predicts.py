"""The exemplar test: do a unit's examples, or its picture, predict which of two other images activates it more?

    predicts(net, "blocks.2.resid_post[3,7]", pictures)
    predicts(net, "blocks.2.resid_post[3]", pictures, references={"blocks.2.resid_post[3]": picture}, judge=other)

A person, here replaced by a measure of likeness, sees what activates the unit most and least, and two new images, and
says which of these activates it more. Examples from which nobody can tell explain nothing, however clear they look.

Source: Borowski et al. 2021, Exemplary natural images explain CNN activations better than state-of-the-art feature
visualization; Zimmermann et al. 2023, Scale alone does not improve mechanistic interpretability in vision models;
Zimmermann et al. 2024, Measuring mechanistic interpretability at scale without humans (the automatic judge).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from openwork.errors import BadInput, UnknownName
from openwork.evidence import wilson_interval
from openwork.network.measure import Tick, silent
from openwork.pictures import Pictures
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.vision.responses.exemplars import Exemplars, Reader
from openwork.vision.responses.likeness import LOW_LEVEL, Features, Yardstick, as_pixels, judge_of
from openwork.vision.streams import Extremes, keys_of
from openwork.vision.units import Unit, channels_of, units_of

if TYPE_CHECKING:
    import xarray

    from openwork.network import Network

UNIT = "probability above chance"
SLOPE = 1.702
"""Of the logistic function that is nearest to the normal distribution."""
FEWEST = 3
"""Other units that a control needs; where there are fewer, random images stand in for their examples."""
POOL, DRAWS = 128, 64
"""Images of the find split by whose spread features are measured, and random sets of references drawn of them."""


@dataclass(frozen=True)
class Predicting:
    """How to test what examples show.

    Args:
        references: images of each side, strong and weak.
        pairs: of queries at each gap.
        gaps: how far apart the two queries of a pair lie in the order of held-out activations: 1 from the very ends,
            towards 0 both from the middle. The first is claimed.
        queries: held-out images that queries are taken from at most, drawn at random.
        others: units of the same site whose examples are the control, at most.
        site: of the judge, if it is a network; the last one before the logits unless given.
        pool: ``max`` or ``mean`` over places.
        held_out: which share of the corpus is held out.
        standard: what a claim must meet; ``min_share`` is the least probability above chance.
        batch: images of one pass.
        seed: of the split, of pairs and of controls.
    """

    references: int = 9
    pairs: int = 40
    gaps: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    queries: int = 4096
    others: int = 16
    site: str | None = None
    pool: str = "max"
    held_out: float = 0.5
    standard: Standard = field(default_factory=Standard)
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.references, self.pairs - 1, self.others) < 1 or self.queries < 2 * self.pairs:
            raise BadInput(f"expected references, two or more pairs and as many queries; got {asdict(self)}")
        if not self.gaps or not all(0 < gap <= 1 for gap in self.gaps) or len({*self.gaps}) < len(self.gaps):
            raise BadInput(f"expected different gaps above 0, up to 1; got {self.gaps}")

    def reading(self, split: str) -> Exemplars:
        """How a split is read."""
        return Exemplars(pool=self.pool, split=split, held_out=self.held_out, batch=self.batch, seed=self.seed)


def predicts(
    net: Network,
    units: Any,
    pictures: Pictures,
    method: Predicting = Predicting(),
    *,
    references: Mapping[str, Any] | None = None,
    judge: Network | str = LOW_LEVEL,
    tick: Tick = silent,
) -> Result:
    """Test whether references predict which of two held-out images activates a unit more.

    The judge picks the query that is more like the strong references than like the weak ones, in the mean cosine of
    its features; it never sees the unit. Of references that are given, there are no weak ones. How sure it is, the
    probability that it gives the right query, goes by how far apart the two lie on the scale of random pairs of find
    images; claims are of this probability. Pairs whose activations are equal have no answer and are left out; a judge
    that cannot tell counts half.

    Nothing in the network is edited: what is varied is the image, and the claim is of prediction, not of a cause.

    The control gives each pair the references of another unit of the same site, drawn anew for each pair and each
    control: examples that predict as well whosever they are say nothing of this unit. Of references that are given,
    those of the other entries; where there are fewer than three, random images of the find split.

    Args:
        net: a network that reads images.
        units: see `openwork.vision.units_of`; at most as many as can be looked at.
        pictures: the corpus: references are of its find split, queries held out.
        method: how.
        references: unit's name -> its own pictures (image, channel, y, x), such as a synthetic one, instead.
        judge: ``low-level`` statistics of pixels, ``untrained`` (this network, its weights in random order), or a
            network: another one, to be independent.
        tick: told the share that is done.

    Returns:
        a finding for each unit that can be tested, and a table with the axes ``unit``, ``gap``, ``pair``: ``accuracy``
        with ``accuracy_low`` and ``accuracy_high`` (Wilson; half answers count as wrong there), ``tested`` pairs,
        ``other_accuracy`` with other units' references, ``random_accuracy`` with random images, ``correct`` of each
        pair (NaN where it has no answer) with its ``probability``, ``query_row`` and ``query_activation`` by ``side``
        (strong, weak), and ``reference_row`` (-1 where references were given).

    Raises:
        BadInput: for a network that reads no images, a corpus smaller than its references and queries, references that
            are no images, or an activation that is not finite.
        UnknownName: for a site, or references of a unit that is not tested.

    Units:
        shares of pairs; in findings, the mean probability of the right query less the half that chance gives.

    Source:
        Zimmermann et al. 2024, section 3 (machine interpretability score), with a scale of its own.
    """
    chosen = units_of(net, units)
    given = _given(chosen, references)
    read = chosen if given else tuple(dict.fromkeys([*chosen, *_others(net, chosen, method)]))
    find, held = (method.reading(split).rows(len(pictures)) for split in ("find", "held-out"))
    held = np.sort(held[np.argsort(keys_of(held, method.seed), kind="stable")[: method.queries]])
    wanted = method.references * (0 if given else 2)
    if len(find) < wanted or len(held) < 2 * method.pairs:
        raise BadInput(
            f"expected {wanted} images for references and {2 * method.pairs} for queries, none in both; "
            f"{pictures.name} has {len(find)} to find with and {len(held)} held out. Give more images, or ask for "
            "fewer references or pairs"
        )
    name, features = judge_of(net, judge, method.site, method.seed)
    extremes = Extremes(len(read), method.references, method.references)
    if not given:
        reader = Reader(net, read, pictures, method.reading("find"))
        for number, (values, rows) in enumerate(reader.stream(find), 1):
            extremes.add(values, rows)
            tick(0.5 * min(1.0, number * method.batch / len(find)))
    reader = Reader(net, chosen, pictures, method.reading("held-out"))
    activations = np.concatenate([values for values, _ in reader.stream(held)])
    tick(0.7)
    pool = find[np.argsort(keys_of(find, method.seed + 1), kind="stable")[: max(POOL, 2 * method.references)]]
    scene = _Scene(pictures, features, pool)
    tests = []
    for i, unit in enumerate(chosen):
        if given:
            shown = {key: scene.yardstick(features(value)) for key, value in given.items()}
            own, others = axis(shown[unit.name]), [axis(one) for key, one in shown.items() if key != unit.name]
            count = len(shown[unit.name])
        else:
            here = [j for j, one in enumerate(read) if (one.site, one.position) == (unit.site, unit.position)]
            sides = (extremes.strongest[1], extremes.weakest[1])
            shown = {j: axis(*(scene.of(side[j]) for side in sides)) for j in here}
            own, others = shown[i], [one for j, one in shown.items() if j != i]
            count = 2 * method.references
        random = scene.random(count, not given, method.seed + i)
        tests.append(_test(activations[:, i], held, [own, *others, *random], scene, method, method.seed + i))
        tick(0.7 + 0.3 * (i + 1) / len(chosen))
    rows = None if given else np.stack([extremes.strongest[1], extremes.weakest[1]], 1)[: len(chosen)]
    table = _table(net, chosen, tests, rows, name, method)
    settings = {
        **asdict(method), "judge": name, "pictures": pictures.name, "digest": pictures.digest,
        "units": [unit.name for unit in chosen], "references": "given" if given else method.references,
    }  # fmt: skip
    findings, remarks = _findings(net, chosen, tests, settings, method, bool(given))
    if judge is net:
        remarks.append("the judge is the network itself, so it is no independent one")
    return Result("exemplar test", findings, table, settings, tuple(remarks))


Axis = Float[np.ndarray, " feature"]


def axis(strong: Float[np.ndarray, "image feature"], weak: Float[np.ndarray, "other feature"] | None = None) -> Axis:
    """Along which an image is the more like the strong references, and the less like the weak ones.

    The product with features of length one is the mean cosine to the strong references less that to the weak ones.
    """
    return strong.mean(0) if weak is None else strong.mean(0) - weak.mean(0)


class _Scene:
    """The judge's features of images of the corpus, each computed once.

    Args:
        pictures: the corpus.
        features: of the judge.
        pool: rows of find images that features are measured by.
    """

    def __init__(self, pictures: Pictures, features: Features, pool: Int[np.ndarray, " image"]):
        self.pictures, self.features = pictures, features
        self._known: dict[int, np.ndarray] = {}
        self.yardstick = Yardstick.of(self._raw(pool))
        self.pool = self.of(pool)

    def of(self, rows: Int[np.ndarray, " image"]) -> Float[np.ndarray, "image feature"]:
        """Of some rows, of length one."""
        return self.yardstick(self._raw(rows))

    def random(self, count: int, weak: bool, seed: int) -> list[Axis]:
        """Axes of random images of the pool, as many as there are references; half of them weak ones, if any are."""
        rng, out = np.random.default_rng(seed), []
        for _ in range(DRAWS):
            some = self.pool[rng.permutation(len(self.pool))[:count]]
            out.append(axis(some[: len(some) // 2], some[len(some) // 2 :]) if weak else axis(some))
        return out

    def _raw(self, rows: Int[np.ndarray, " image"]) -> Float[np.ndarray, "image feature"]:
        missing = sorted({int(row) for row in rows} - {*self._known})
        if missing:
            found = self.features(self.pictures.pixels(missing).float() / 255)
            self._known.update(zip(missing, found, strict=True))
        return np.stack([self._known[int(row)] for row in rows])


@dataclass(frozen=True, eq=False)
class _Test:
    """The answers for one unit: by its own references, by those of others, by random ones, in this order.

    Args:
        rows: (gap, pair, side) the queries.
        activations: likewise.
        probability: (gap, reference set, pair) of the right query; NaN where the activations are equal.
        others: how many other units there are.
    """

    rows: Int[np.ndarray, "gap pair side"]
    activations: Float[np.ndarray, "gap pair side"]
    probability: Float[np.ndarray, "gap set pair"]
    others: int

    @property
    def correct(self) -> Float[np.ndarray, "gap set pair"]:
        """1 where the right query is chosen, 0 where not, 0.5 where the judge cannot tell."""
        p = self.probability
        return np.where(np.isnan(p), np.nan, np.where(np.abs(p - 0.5) < 1e-9, 0.5, (p > 0.5).astype(float)))


def _test(
    activations: Float[np.ndarray, " image"], held: Int[np.ndarray, " image"], axes: Sequence[Axis], scene: _Scene,
    method: Predicting, seed: int,
) -> _Test:  # fmt: skip
    rng = np.random.default_rng(seed)
    order = np.argsort(activations, kind="stable")
    rows, values, found = [], [], []
    for gap in method.gaps:
        strong, weak = queries(len(order), method.pairs, gap)
        pairs = order[np.stack([strong, rng.permutation(weak)], 1)]
        both = activations[pairs]
        more, less = (scene.of(held[pairs[:, side]]) for side in (0, 1))
        told = np.stack([probabilities(one, more, less, scene.pool) for one in axes])
        rows.append(held[pairs])
        values.append(both)
        found.append(np.where(both[:, 0] == both[:, 1], np.nan, told))
    return _Test(np.stack(rows), np.stack(values), np.stack(found), len(axes) - 1 - DRAWS)


def queries(n: int, pairs: int, gap: float) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Places of strong and of weak queries in the ascending order of `n` activations; never the same image in both."""
    half = -(-n // 2)
    start = half + round(gap * (n - pairs - half))
    strong = np.arange(start, start + pairs)
    return strong, n - 1 - strong


def probabilities(
    along: Axis, more: Float[np.ndarray, "pair feature"], less: Float[np.ndarray, "pair feature"],
    pool: Float[np.ndarray, "image feature"],
) -> Float[np.ndarray, " pair"]:  # fmt: skip
    """The probability that a judge gives to the query which activates the unit more.

    Args:
        along: the axis of its references.
        more: features of length one of the queries that activate the unit more.
        less: of the others.
        pool: of images whose random pairs set the scale.

    Source:
        Zimmermann et al. 2024, equation 2, with the scale of random pairs in place of one fitted to people.
    """
    spread = np.sqrt(2) * (pool @ along).std()
    apart = (more - less) @ along
    return 1 / (1 + np.exp(-SLOPE * apart / spread)) if spread > 1e-12 else np.full(len(more), 0.5)


def _given(chosen: Sequence[Unit], references: Mapping[str, Any] | None) -> dict[str, Any]:
    """References as pixels; those of every unit that is tested must be there."""
    if references is None:
        return {}
    for unit in chosen:
        if unit.name not in references:
            raise UnknownName.among("references of a unit", unit.name, references)
    return {name: as_pixels(value, f"the references of {name}") for name, value in references.items()}


def _others(net: Network, chosen: Sequence[Unit], method: Predicting) -> list[Unit]:
    """Other channels of the sites of the units, at the same position."""
    rng, found = np.random.default_rng(method.seed), []
    for site, position in dict.fromkeys((unit.site, unit.position) for unit in chosen):
        channels = rng.permutation(channels_of(net, site))[: method.others + len(chosen)].tolist()
        units = [Unit(site, int(channel), position=position) for channel in channels]
        found += [unit for unit in units if unit not in chosen][: method.others]
    return found


def _findings(
    net: Network, chosen: Sequence[Unit], tests: Sequence[_Test], settings: dict[str, Any], method: Predicting,
    given: bool,
) -> tuple[tuple[Any, ...], list[str]]:  # fmt: skip
    criteria = replace(method.standard).criteria(1.0, UNIT)
    claims = Claims(net, {"pictures": settings["digest"], "units": settings["units"]}, settings, method.seed)
    candidates, remarks = [], []
    for i, (unit, test) in enumerate(zip(chosen, tests, strict=True)):
        own = test.probability[0, 0]
        told = ~np.isnan(own)
        if told.sum() < 2:
            remarks.append(f"{unit.name} is equally active on nearly all held-out images: nothing can be predicted")
            continue
        enough = test.others >= FEWEST
        sets = slice(1, 1 + test.others) if enough else slice(1 + test.others, None)
        rivals = test.probability[0, sets][:, told]
        kind = "references of other units" if enough else "random images as references"
        drawn = np.random.default_rng(method.seed + i).integers(
            0, len(rivals), (criteria.controls_needed, rivals.shape[1])
        )
        controls = np.take_along_axis(rivals, drawn, 0).mean(1) - 0.5
        what = "pictures made for" if given else "dataset examples of"
        text = f"{what} {unit.name} predict which of two held-out images activates it more"
        anew = f"{kind}, drawn anew for each pair"
        candidates.append(Candidate(text, own[told] - 0.5, controls, anew, limits=(-0.5, 0.5)))
    return claimed(claims, criteria, candidates), remarks


def _table(
    net: Network, chosen: Sequence[Unit], tests: Sequence[_Test], rows: np.ndarray | None, judge: str,
    method: Predicting,
) -> xarray.Dataset:  # fmt: skip
    import xarray

    correct = np.stack([test.correct[:, 0] for test in tests])
    tested = (~np.isnan(correct)).sum(-1)
    ends = np.full((2, *tested.shape), np.nan)
    for place in np.ndindex(*tested.shape):
        if tested[place]:
            found = wilson_interval(int((correct[place] == 1).sum()), int(tested[place]))
            ends[0][place], ends[1][place] = found.low, found.high
    accuracy = _mean(correct)
    here = ("unit", "gap")
    variables: dict[str, Any] = {
        "accuracy": (here, accuracy),
        "accuracy_low": (here, np.fmin(ends[0], accuracy)),
        "accuracy_high": (here, np.fmax(ends[1], accuracy)),
        "tested": (here, tested),
        "other_accuracy": (here, np.stack([_over(test, slice(1, 1 + test.others)) for test in tests])),
        "random_accuracy": (here, np.stack([_over(test, slice(1 + test.others, None)) for test in tests])),
        "probability": ((*here, "pair"), np.stack([test.probability[:, 0] for test in tests])),
        "correct": ((*here, "pair"), correct),
        "query_row": ((*here, "pair", "side"), np.stack([test.rows for test in tests])),
        "query_activation": ((*here, "pair", "side"), np.stack([test.activations for test in tests])),
    }
    if rows is not None:
        variables["reference_row"] = (("unit", "side", "reference"), rows)
    coords = {"unit": [unit.name for unit in chosen], "gap": np.array(method.gaps), "side": ["strong", "weak"]}
    return xarray.Dataset(variables, coords, {"network": net.name, "judge": judge})


def _over(test: _Test, sets: slice) -> np.ndarray:
    """The accuracy of some sets of references at each gap."""
    return _mean(test.correct[:, sets].reshape(len(test.rows), -1))


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, without NaN; NaN of nothing."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(-1) / np.maximum(count, 1), np.nan)
