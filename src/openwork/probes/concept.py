"""Concept activation vectors: does a behaviour lean on a concept that examples define? With significance.

    concept(net, task, labelled, "blocks.*.resid_post", Concepts(where="last"))

A concept is a class of labelled places. Its vectors (CAVs) separate samples of it from random samples of all places. A
random concept is as many random places, with vectors made likewise. The TCAV score of a vector is the share of
examples whose metric rises along it.

Source: Kim et al. 2018, Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
Vectors, sections 3.2 (vectors), 3.4 (score) and 3.5 (significance).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.direction import Direction
from openwork.errors import BadInput, UnknownName
from openwork.evidence import benjamini_hochberg, wilson_interval
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.network.sweep import effects, plain
from openwork.probes.forms import Linear
from openwork.probes.labelled import YES_NO, Labelled
from openwork.probes.readers import fit
from openwork.probes.recording import record, require_vector
from openwork.probes.use import added
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Site, Where
from openwork.task import Batch, Task

if TYPE_CHECKING:
    from openwork.network import Network

KIND = "moves as far in random directions"
ROWS = 32
"""Examples of one backward pass."""


@dataclass(frozen=True)
class Concepts:
    """How to make and test concept vectors.

    Args:
        where: the token group or positions of the task at which the metric's derivative is taken; all unless given.
        examples: of a concept, and as many random ones, for each vector.
        vectors: of each concept, each with other random examples.
        answer: only examples whose right answer this is, so that the metric means one thing; all unless given.
        strength: inverse penalty of the classifier.
        claims: how many concepts and sites, those farthest from random ones on the find split, to claim.
        standard: what a claim must meet; 5 / alpha random concepts are made, and as many random directions.
        seed: of samples.

    Raises:
        BadInput: fewer than two examples or vectors.
    """

    where: Any = None
    examples: int = 40
    vectors: int = 10
    answer: int | None = None
    strength: float = 0.1
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.examples < 2 or self.vectors < 2 or self.claims < 0:
            raise BadInput(f"expected two examples and two vectors at least; got {self.examples} and {self.vectors}")


def concept(
    net: Network,
    task: Task,
    labelled: Labelled,
    sites: str | Site | Iterable[str | Site] = "blocks.*.resid_post",
    method: Concepts = Concepts(),
    *,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """TCAV scores of every concept at every site, their significance, and what moving along the best vectors does.

    Vectors are made of the find split of the labelled places alone; scores are of held-out examples of the task. Two
    tests, both two-sided and adjusted for all concepts and sites: ``p``, the t-test of the scores of the concept's
    vectors against those of all random ones, times the number of tests (as the paper has it; vectors share their
    examples, so it is too sure of itself), and ``q``, from the rank of the distance of the concept's mean score from
    one half among those of random concepts (Benjamini and Hochberg). A derivative only observes, so claims are about an
    intervention: moving along the mean vector by the distance between the concept's examples and the others changes the
    metric, more than moving as far in random directions; and it must stand out of random concepts as well.

    Args:
        net: the network.
        task: the behaviour.
        labelled: what defines the concepts: each class is one; of a label that is true or false, what is true.
        sites: sites or patterns with one vector a token.
        method: how.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        findings; a table with the axes ``site`` and ``concept``: ``tcav`` with ``tcav_low`` and ``tcav_high`` (Wilson,
        over examples), ``p``, ``q``, ``accuracy`` of the vectors on held-out places; mean scores ``random_tcav`` (site,
        random_concept); ``vector`` (site, concept, channel) the mean vectors of unit length, NaN beyond the width of a
        site; of claims ``effect`` (claim) with ``low`` and ``high``, and ``control_effect`` (claim, control).

    Raises:
        UnknownName: for a site or token group that does not exist.
        BadInput: for labels that are numbers, too few examples of a concept, or no example with that answer.
    """
    concepts = _concepts(labelled)
    patterns = [sites] if isinstance(sites, (str, Site)) else list(sites)
    task = _of_answer(task, method.answer)
    values = record(net, labelled, patterns, memory=memory, tick=lambda share: tick(0.2 * share))
    find, held = task.split("find"), task.split("held-out")
    sign = 1.0 if task.metric.higher_is_better else -1.0
    slopes = {side: _slopes(net, batch, task, list(values), Where.of(method.where), sign)
              for side, batch in (("find", find), ("held-out", held))}  # fmt: skip
    tick(0.5)
    criteria = method.standard.criteria(1.0, task.metric.unit)
    made = {site: _Vectors.of(labelled, concepts, x, method, criteria.controls_needed) for site, x in values.items()}
    tick(0.8)
    table, farness = _table(net, task, list(values), concepts, made, slopes)
    settings = _settings(method, task, labelled, patterns)
    order = sorted(np.ndindex(farness.shape), key=lambda place: -farness[place])[: method.claims]
    chosen = [(list(values)[i], concepts[j]) for i, j in order]
    claims = Claims(net, task, settings, method.seed)
    ranks = [float(table["rank_p"].to_numpy()[place]) for place in order]
    findings, more = _claims(net, task, chosen, ranks, made, Where.of(method.where), sign, method, claims, memory)
    told = "a random concept is as many random places as the smallest concept has, with vectors made likewise"
    return Result("concept vectors", findings, table.assign(more), settings, (labelled.about(), told))


def concept_direction(result: Result, site: str, name: str | None = None) -> Direction:
    """The vector of a concept at a site, of unit length, pointing towards the concept.

    Args:
        result: of `concept`.
        site: the site.
        name: the concept; the first unless given.

    Raises:
        BadInput: for the result of another method.
        UnknownName: for another site or concept.
    """
    if "vector" not in result.table or "concept" not in result.table.dims:
        raise BadInput(f"expected the result of concept vectors; got that of {result.method!r}")
    table = result.table["vector"]
    name = str(table.coords["concept"].values[0]) if name is None else name
    for axis, wanted in (("site", site), ("concept", name)):
        if wanted not in table.coords[axis].values:
            raise UnknownName.among(axis, wanted, map(str, table.coords[axis].values))
    vector = table.sel(site=site, concept=name).to_numpy()
    return Direction(site, vector[np.isfinite(vector)], f"concept {name}")


@dataclass(frozen=True, eq=False)
class _Vectors:
    """The vectors of one site.

    Args:
        own: concept -> (vector, channel) of unit length.
        random: (concept, vector, channel) of random concepts.
        step: concept -> distance between its mean and that of the others, along its mean vector.
        accuracy: concept -> balanced accuracy of its vectors on held-out places.
    """

    own: dict[str, Float[np.ndarray, "vector channel"]]
    random: Float[np.ndarray, "random vector channel"]
    step: dict[str, float]
    accuracy: dict[str, float]

    @classmethod
    def of(cls, labelled: Labelled, concepts: Sequence[str], x: np.ndarray, method: Concepts, count: int) -> _Vectors:
        rng = np.random.default_rng(method.seed)
        find, held = labelled.places("find"), labelled.places("held-out")
        n = method.examples
        if len(find) < 2 * n:
            raise BadInput(f"expected at least {2 * n} places to find with; got {len(find)}: ask for fewer examples")
        own, step, accuracy, size = {}, {}, {}, len(find)
        for name in concepts:
            is_concept = labelled.labels == labelled.classes.index(_class(labelled, name))
            inside, outside = find[is_concept[find]], find[~is_concept[find]]
            if len(inside) < n or len(outside) < n:
                raise BadInput(
                    f"expected {n} places of the concept {name!r} and as many others; got {len(inside)} and "
                    f"{len(outside)}: ask for fewer examples, or take more places"
                )
            pairs = [(rng.permutation(inside)[:n], rng.permutation(find)[:n]) for _ in range(method.vectors)]
            size = min(size, len(inside))
            own[name] = np.array([_vector(x[a], x[b], method) for a, b in pairs])
            mean = _unit(own[name].mean(0))
            step[name] = float(abs((x[inside].mean(0) - x[outside].mean(0)) @ mean))
            along = x @ mean
            middle = (along[inside].mean() + along[outside].mean()) / 2
            right = (along[held] > middle) == is_concept[held]
            accuracy[name] = float(np.mean([right[is_concept[held] == side].mean() for side in (True, False)]))
        random = []
        for _ in range(count):
            some = rng.permutation(find)[:size]
            pairs = [(rng.permutation(some)[:n], rng.permutation(find)[:n]) for _ in range(method.vectors)]
            random.append([_vector(x[a], x[b], method) for a, b in pairs])
        return cls(own, np.array(random), step, accuracy)


def _concepts(labelled: Labelled) -> list[str]:
    if labelled.numeric:
        raise BadInput(f"expected labels that are classes, each a concept; {labelled.name!r} is a number")
    return [labelled.name] if labelled.classes == YES_NO else list(labelled.classes)


def _class(labelled: Labelled, name: str) -> str:
    return YES_NO[1] if labelled.classes == YES_NO else name


def _vector(inside: np.ndarray, outside: np.ndarray, method: Concepts) -> Float[np.ndarray, " channel"]:
    """The normal of a linear classifier, of unit length, towards the first examples."""
    x = np.concatenate((inside, outside))
    y = np.repeat((1, 0), (len(inside), len(outside)))
    probe = fit(Linear(), x, y, np.zeros(len(y), dtype=int), classes=YES_NO, strength=method.strength)
    return _unit(probe.layers[0][0][:, 1])


def _unit(vector: np.ndarray) -> np.ndarray:
    size = float(np.linalg.norm(vector))
    return vector / size if size else vector


def _of_answer(task: Task, answer: int | None) -> Task:
    if answer is None:
        return task
    rows = [row for row in range(len(task)) if task.answer[row] == answer]
    held = frozenset(i for i, row in enumerate(rows) if row in task.held_out)
    if not 0 < len(held) < len(rows):
        known = sorted(set(task.answer))
        raise BadInput(
            f"expected examples on both sides of the split whose answer is {answer}; answers are {known[:10]}"
        )
    batch = task.batch(rows)
    return Task(
        task.name, batch.clean, batch.corrupted, batch.answer, batch.wrong, batch.at, task.metric, task.chance, held,
        task.description,
    )  # fmt: skip


def _slopes(
    net: Network, batch: Batch, task: Task, sites: Sequence[str], where: Where, sign: float
) -> dict[str, Float[np.ndarray, "example channel"]]:
    """The derivative of each example's metric by a shift of all the places that `where` selects."""
    for site in sites:
        require_vector(net, site)
    parts: dict[str, list[np.ndarray]] = {site: [] for site in sites}
    for start in range(0, len(batch), ROWS):
        rows = list(range(start, min(start + ROWS, len(batch))))
        some = _take(batch, rows)
        run = net.run(some.clean, keep=list(sites), grads=lambda run, some=some: some.measure(task.metric, run.logits))
        for site in sites:
            grad, axes = run.grads[site].detach(), run.axes(site)
            grad = grad.movedim(axes.index("channel"), -1).double().cpu().numpy()
            if "position" in axes:
                for i in range(len(rows)):
                    here = [p + run.layout.offsets[i] for p in run.layout.positions(where, i)]
                    parts[site].append(grad[i, here].reshape(-1, grad.shape[-1]).sum(0) * sign)
            else:
                parts[site] += [row.reshape(-1, grad.shape[-1]).sum(0) * sign for row in grad]
    return {site: np.array(rows) for site, rows in parts.items()}


def _take(batch: Batch, rows: Sequence[int]) -> Batch:
    def pick(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(values[r] for r in rows)

    return Batch(
        batch.clean.take(rows), batch.corrupted.take(rows), pick(batch.answer), pick(batch.wrong), pick(batch.at)
    )


def tcav(
    slopes: Float[np.ndarray, "example channel"], vectors: Float[np.ndarray, "vector channel"]
) -> Float[np.ndarray, " vector"]:
    """The share of examples whose metric rises along each vector.

    Source:
        Kim et al. 2018, equation 2.
    """
    return ((slopes @ vectors.T) > 0).mean(0)


def _table(
    net: Network, task: Task, sites: Sequence[str], concepts: Sequence[str], made: dict[str, _Vectors],
    slopes: dict[str, dict[str, np.ndarray]],
) -> tuple[Any, np.ndarray]:  # fmt: skip
    """The table, and how far each concept is from random ones on the find split."""
    import xarray
    from scipy import stats

    shape = (len(sites), len(concepts))
    names = ("tcav", "tcav_low", "tcav_high", "p", "rank_p", "accuracy")
    numbers = {name: np.full(shape, np.nan) for name in names}
    width = max(v.random.shape[-1] for v in made.values())
    vectors, farness = np.full((*shape, width), np.nan), np.zeros(shape)
    count = len(next(iter(made.values())).random)
    random = np.zeros((len(sites), count))
    for i, site in enumerate(sites):
        here = made[site]
        every = tcav(slopes["held-out"][site], here.random.reshape(-1, here.random.shape[-1]))
        random[i] = every.reshape(count, -1).mean(1)
        for j, name in enumerate(concepts):
            own, mean = here.own[name], _unit(here.own[name].mean(0))
            vectors[i, j, : len(mean)] = mean
            scores = tcav(slopes["held-out"][site], own)
            up = int((slopes["held-out"][site] @ mean > 0).sum())
            interval = wilson_interval(up, len(slopes["held-out"][site]))
            test: Any = stats.ttest_ind(scores, every, equal_var=False)
            p = float(test.pvalue) if np.isfinite(test.pvalue) else float(scores.mean() == every.mean())
            beyond = (np.abs(random[i] - 0.5) >= abs(scores.mean() - 0.5) - 1e-9).sum()
            values = (interval.estimate, interval.low, interval.high, min(1.0, p * farness.size),
                      (1 + beyond) / (1 + count), here.accuracy[name])  # fmt: skip
            for key, value in zip(names, values, strict=True):
                numbers[key][i, j] = value
            farness[i, j] = abs(tcav(slopes["find"][site], own).mean() - 0.5)
    numbers["q"] = benjamini_hochberg(numbers["rank_p"].ravel()).reshape(shape)
    variables: dict[str, Any] = {name: (("site", "concept"), array) for name, array in numbers.items()}
    variables["random_tcav"] = (("site", "random_concept"), random)
    variables["vector"] = (("site", "concept", "channel"), vectors)
    blocks = [Site.parse(site).block for site in sites]
    coords = {"site": list(sites), "concept": list(concepts),
              "layer": ("site", [-1 if block is None else block for block in blocks])}  # fmt: skip
    attrs = {"network": net.name, "metric": task.metric.name, "unit": task.metric.unit}
    return xarray.Dataset(variables, coords, attrs), farness


def _claims(
    net: Network, task: Task, chosen: Sequence[tuple[str, str]], ranks: Sequence[float], made: dict[str, _Vectors],
    where: Where, sign: float, method: Concepts, claims: Claims, memory: Any,
) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """What moving along each chosen vector does to held-out examples, against random vectors."""
    if not chosen:
        return (), {}
    rows, controls, texts = [], [], []
    criteria = method.standard.criteria(_scale(net, task), task.metric.unit)
    for site, name in chosen:
        here = made[site]
        mean, step = _unit(here.own[name].mean(0)), here.step[name]
        place = Direction(site, mean)
        rng = np.random.default_rng(method.seed)
        vectors = [mean, *rng.normal(size=(criteria.controls_needed, len(mean)))]
        cells = [(added(net, place, vector, s * step, where),) for vector in vectors for s in (1, -1)]
        on_find = sign * measure(net, task.split("find"), task.metric, cells[:2], memory=memory).values
        lean = 1.0 if (on_find[0] - on_find[1]).mean() >= 0 else -1.0
        values = sign * measure(net, task.split("held-out"), task.metric, cells, memory=memory).values
        half = (values[0::2] - values[1::2]) / 2
        rows.append(lean * half[0])
        # a random direction may point either way: the size of its effect is what chance reaches
        controls.append(np.abs(half[1:].mean(1)))
        texts.append(
            f"moving towards the concept {name} at {site} {'raises' if lean > 0 else 'lowers'} {task.metric.name}"
        )
    # every test must pass: that of the move, and that the score stands out of random concepts
    candidates = [
        Candidate(text, row, control, also=float(rank))
        for text, row, control, rank in zip(texts, rows, controls, ranks, strict=True)
    ]
    more: dict[str, Any] = {name: ("claim", values) for name, values in effects(np.array(rows)).items() if name != "p"}
    more["claimed_effect"] = (("claim", "held_out_example"), np.array(rows))
    more["control_effect"] = (("claim", "control"), np.array(controls))
    more["claim"] = ("claim", np.array([f"{name} at {site}" for site, name in chosen]))
    return claimed(claims, criteria, candidates, KIND), more


def _scale(net: Network, task: Task) -> float:
    """What an effect is a share of: the gap between clean and corrupted runs, or the mean size of the metric."""
    find = task.split("find")
    clean, corrupted = (plain(net, find, task.metric, side) for side in ("clean", "corrupted"))
    gap = float(abs((clean - corrupted).mean()))
    return gap or float(np.abs(clean).mean())


def _settings(method: Concepts, task: Task, labelled: Labelled, patterns: Sequence[Any]) -> dict[str, Any]:
    return {
        "where": str(Where.of(method.where)), "examples": method.examples, "vectors": method.vectors,
        "answer": method.answer, "strength": method.strength, "alpha": method.standard.alpha, "seed": method.seed,
        "task": task.name, "metric": task.metric.name, "label": labelled.name, "sites": [str(s) for s in patterns],
    }  # fmt: skip
