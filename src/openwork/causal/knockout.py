"""Attention knockout: which tokens must read which others, and where, for a behaviour to come about.

    knock_out(net, task, [("last", "copied")])                       # cut in a window that slides over the layers
    knock_out(net, task, method=Knockout(window=1, heads="each"))    # every pair of token groups, head by head
    net.generate(prompt, max_new_tokens=8, edits=cut(net, "last", "object", layers=range(4, 9)))

Source: Geva et al. 2023, Dissecting Recall of Factual Associations, section 5; Map the Flow (attention knockout in
video language models).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from openwork.causal.attention_edges import (
    Groups,
    attended,
    between,
    existing,
    layout_of,
    random_like,
    said,
    scores_of,
    visible,
)
from openwork.causal.candidates import settings_of, sign_of
from openwork.edit import KnockOut
from openwork.errors import BadInput
from openwork.finding import Finding
from openwork.network import measure
from openwork.network.layout import Layout
from openwork.network.measure import Tick, silent
from openwork.network.sweep import effects as cell_effects
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Site, Where
from openwork.task import Metric, Task
from openwork.tasks.metrics import PROBABILITY

if TYPE_CHECKING:
    from openwork.network import Network

SAME_QUERIES = "random attention edges of equal number, from the same queries as far as they have other keys"
CHUNK = 2
"""Random sets of edges that are measured together; each brings token groups of its own."""


@dataclass(frozen=True)
class Knockout:
    """How to cut attention.

    Args:
        window: how many layers to cut at once, centred on each layer in turn.
        heads: cut ``all`` heads of these layers at once, or ``each`` number of head on its own.
        reading: the ``probability`` of the right answer, or the metric of the ``task``.
        claims: how many of the strongest cuts on the find split to claim on the held-out one, one for each pair.
        standard: what a claim must meet; effects are measured against what there is to lose.
        seed: of the random edges.

    Raises:
        BadInput: a knob outside its range.
    """

    window: int = 9
    heads: Literal["all", "each"] = "all"
    reading: Literal["probability", "task"] = "probability"
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window < 1:
            raise BadInput(f"expected a window of at least one layer; got {self.window}")
        if self.heads not in ("all", "each") or self.reading not in ("probability", "task") or self.claims < 0:
            raise BadInput(
                "expected heads all or each, reading probability or task, and no negative number of claims; got "
                f"{self.heads!r}, {self.reading!r} and {self.claims!r}"
            )

    def metric(self, task: Task) -> Metric:
        """What is read off."""
        return PROBABILITY if self.reading == "probability" else task.metric

    def layers(self, centre: int, blocks: int) -> range:
        """The window around a layer, as far as there are layers.

        Source:
            Geva et al. 2023, section 5.1; an even window has one layer more before its centre than behind it.
        """
        return range(max(0, centre - self.window // 2), min(blocks, centre + (self.window + 1) // 2))


def cut(net: Network, queries: Any, keys: Any, layers: Iterable[int], heads: Iterable[int] = ()) -> list[KnockOut]:
    """The edits that keep some tokens from reading others.

    They hold at the prefill and at every cached step of ``net.generate(..., edits=...)``; ``"last"`` then is every
    token that is written.

    Args:
        net: the network.
        queries: the tokens that read: positions, a token group, or None for all.
        keys: the tokens that they no longer read.
        layers: in which blocks.
        heads: which heads of them; all unless given.

    Raises:
        BadInput: for layers or heads that do not exist, or none.
        SiteRefused: for scores that failed their certificate.
    """
    wanted, index = list(layers), tuple(heads)
    scores_of(net, ())
    beyond = [layer for layer in wanted if not 0 <= layer < net.n_blocks]
    if beyond or not wanted:
        raise BadInput(f"expected layers of the {net.n_blocks} blocks, at least one; got {beyond or wanted}")
    sites = scores_of(net, wanted)
    if not sites:
        raise BadInput(f"expected layers with attention; blocks {wanted} have none")
    # layers may have fewer heads than others; a head that none of them has is an error
    having = [path for path in sites if max(index, default=0) < net.parts(path.path)] or sites
    sites = [site for path in having for site in net.map.resolve(Site(path.path, index))]
    return [KnockOut(site, queries, keys=Where.of(keys)) for site in sites]


def knock_out(
    net: Network,
    task: Task,
    pairs: Sequence[tuple[Any, Any]] | None = None,
    method: Knockout = Knockout(),
    *,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Cut attention between token groups, window by window, and claim the cuts that matter most.

    Args:
        net: the network.
        task: the behaviour.
        pairs: (queries, keys): what reads, and what it no longer reads; positions, token groups, or None for all
            tokens. Every two different groups that the clean inputs name, and ``last``, unless given.
        method: how.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        the findings; and a table of the find split with the axes ``pair``, ``centre`` (the middle of the window),
        ``head`` if these are cut one by one, and ``example``: ``value`` of the reading; over examples ``effect`` (lost
        of it), ``low``, ``high`` and ``p``; ``percent``, the mean change of an example in per cent of its base, and
        ``percent_of_mean``, the change of the mean. ``edges`` (pair, example) counts what is cut in a layer. What was
        claimed has the axes ``claim``, ``held_out_example`` and ``control``.

    Raises:
        BadInput: for queries that see none of the keys in any example, no token groups, or inputs that are no tokens.
        UnknownName: for a token group that does not exist.
        SiteRefused: for a network without attention scores.

    Units:
        those of the reading; ``percent`` is 100 · (new - base) / base.

    Source:
        Geva et al. 2023, section 5.1; Map the Flow: change of the answer's probability in per cent.
    """
    import xarray

    find = task.split("find")
    layout, metric = layout_of(net, find), method.metric(task)
    named = _pairs(net, [layout, layout_of(net, task.split("held-out"))], pairs)
    cutting = [between(net, layout, q, k) for q, k in named]
    labels = [f"{said(q)} reads {said(k)}" for q, k in named]
    heads: list[tuple[int, ...]] = [()]
    if method.heads == "each":
        heads = [(head,) for head in range(max(net.parts(site) for site in scores_of(net, attended(net))))]
    centres = [c for c in range(net.n_blocks) if scores_of(net, method.layers(c, net.n_blocks))]
    windows = [method.layers(centre, net.n_blocks) for centre in centres]
    widest = [max(net.parts(site.path) for site in scores_of(net, window)) for window in windows]
    # a head that no layer of a window has leaves its places empty
    there = [(c, h) for c in range(len(centres)) for h in range(len(heads)) if max(heads[h], default=0) < widest[c]]
    places = [(p, c, h) for p in range(len(named)) for c, h in there]
    cells = [cut(net, *named[p], windows[c], heads[h]) for p, c, h in places]
    found = measure(net, find, metric, cells, memory=memory, tick=tick)
    reached = np.array([[bool(own.any()) for own in cutting[p]] for p, _, _ in places])
    lost = np.where(reached, sign_of(metric) * (found.base - found.values), np.nan)
    settings = settings_of(method, task=task.name, metric=metric.name, pairs=labels)
    claims = Claims(net, task, settings, method.seed)
    chosen = _best(lost, places, method)
    signs = [1.0 if np.nanmean(lost[i]) > 0 else -1.0 for i in chosen]
    stated = []
    for i, sign in zip(chosen, signs, strict=True):
        pair, centre, head = places[i]
        where = _place(windows[centre], heads[head])
        word = "is needed for" if sign > 0 else "stands in the way of"
        stated.append((named[pair], cells[i], f"{labels[pair]} in {where}, which {word} {task.name}"))
    findings, variables, remarks = _claimed(
        net, task, stated, signs, metric, float(np.abs(found.base).mean()), claims, method
    )
    axes = ("pair", "centre", "head")

    def laid_out(of_places: np.ndarray) -> np.ndarray:
        out = np.full((len(named), len(centres), len(heads), *of_places.shape[1:]), np.nan)
        out[tuple(np.transpose(places))] = of_places
        return out

    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(reached, found.values - found.base, np.nan)
        each = np.where(found.base == 0, np.nan, 100 * change / found.base)
        means = 100 * _mean(change) / _mean(np.where(reached, found.base, np.nan))
    summary = {**cell_effects(lost), "percent": _mean(each), "percent_of_mean": means}
    variables |= {name: (axes, laid_out(x)) for name, x in summary.items()}
    variables["value"] = ((*axes, "example"), laid_out(np.where(reached, found.values, np.nan)))
    variables["edges"] = (("pair", "example"), [[int(own.sum()) for own in one] for one in cutting])
    coords = {
        "pair": labels, "queries": ("pair", [said(q) for q, _ in named]), "keys": ("pair", [said(k) for _, k in named]),
        "centre": centres, "first_layer": ("centre", [w[0] for w in windows]),
        "last_layer": ("centre", [w[-1] for w in windows]), "head": [h[0] if h else -1 for h in heads],
        "example": np.arange(len(find)), "base": ("example", found.base),
    }  # fmt: skip
    attributes = {
        "metric": metric.name,
        "unit": metric.unit,
        "network": net.name,
        "window": method.window,
        "split": "find",
    }
    table = xarray.Dataset(variables, coords, attributes)
    if method.heads == "all":
        table = table.squeeze("head", drop=True)
    zero = int((found.base == 0).sum())
    if zero:
        remarks = (*remarks, f"{zero} of {len(find)} examples have a base of 0 and no change in per cent")
    return Result("attention knockout", findings, table, settings, remarks)


def _pairs(
    net: Network, layouts: Sequence[Layout], given: Sequence[tuple[Any, Any]] | None
) -> list[tuple[Where, Where]]:
    """Queries and keys as places, each of which has an edge in some example of both splits."""
    if given is not None:
        out = [(Where.of(q), Where.of(k)) for q, k in given]
        for queries, keys in out:
            for layout in layouts:
                existing(net, layout, queries, keys)
        if not out:
            raise BadInput("expected at least one pair of queries and keys; got none")
        return out
    names = list(dict.fromkeys([*layouts[0].groups, "last"]))
    both = [(Where(group=q), Where(group=k)) for q in names for k in names if q != k]
    out = [(q, k) for q, k in both if all(any(own.any() for own in between(net, x, q, k)) for x in layouts)]
    if not out:
        raise BadInput("expected inputs that name token groups, or pairs= of queries and keys; these name none")
    return out


def _best(
    lost: Float[np.ndarray, "cell example"], places: Sequence[tuple[int, int, int]], method: Knockout
) -> list[int]:
    """The strongest cell of each pair, the strongest pairs first; of equal ones the first."""
    mean = np.abs(_mean(lost))
    best: dict[int, int] = {}
    for number, (pair, _, _) in enumerate(places):
        if mean[number] > 0 and (pair not in best or mean[number] > mean[best[pair]] * (1 + 1e-6)):
            best[pair] = number
    return sorted(best.values(), key=lambda i: -mean[i])[: method.claims]


def _claimed(
    net: Network,
    task: Task,
    stated: Sequence[tuple[tuple[Where, Where], list[KnockOut], str]],
    signs: Sequence[float],
    metric: Metric,
    scale: float,
    claims: Claims,
    method: Knockout,
) -> tuple[tuple[Finding, ...], dict[str, Any], tuple[str, ...]]:
    """Claims about cuts on the held-out split, against random cuts of the same layers and heads."""
    if not stated:
        return (), {}, ("no cut changes the reading of any example",) if method.claims else ()
    batch = task.split("held-out")
    layout, turned = layout_of(net, batch), sign_of(metric)
    criteria = method.standard.criteria(scale, metric.unit)
    found = measure(net, batch, metric, [cell for _, cell, _ in stated])
    seen, random = visible(net, layout), np.random.default_rng(method.seed)
    candidates, all_effects, remarks, findings = [], [], [], []
    for number, ((queries, keys), cell, text) in enumerate(stated):
        own = between(net, layout, queries, keys)
        reached = np.array([bool(x.any()) for x in own])
        effect = signs[number] * turned * (found.base - found.values[number])
        all_effects.append(np.where(reached, effect, np.nan))
        controls: list[float] = []
        while len(controls) < criteria.controls_needed:
            groups, some = Groups(net.causal), []
            for _ in range(min(CHUNK, criteria.controls_needed - len(controls))):
                other = random_like(own, seen, random)
                if other is not None:
                    some.append(groups.cut(other, [edit.site for edit in cell]))
            if not some:
                break
            values = measure(net, groups.added_to(batch), metric, some)
            controls += list(np.abs((values.base - values.values)[:, reached].mean(1)))
        if controls:
            candidates.append(Candidate(text, effect[reached], np.array(controls)))
        else:
            remarks.append(f"{text}: there are too few other edges to compare with")
            findings.append(claims.claim(text, effect[reached], criteria, "held-out"))
    judged = claimed(claims, criteria, candidates, SAME_QUERIES) if candidates else ()
    padded = [c.controls for c in candidates]
    texts = [text for *_, text in stated]
    controls_of = {c.text: x for c, x in zip(candidates, padded, strict=True)}
    empty = np.full(criteria.controls_needed, np.nan)
    table = held_out_table(texts, all_effects, [controls_of.get(text, empty) for text in texts])
    return (*judged, *findings), table, tuple(remarks)


def _place(layers: range, heads: tuple[int, ...]) -> str:
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"
    return where + (f", head {heads[0]}" if heads else "")


def _mean(values: Float[np.ndarray, "cell example"]) -> Float[np.ndarray, " cell"]:
    """Over the examples that are not NaN; NaN where all are."""
    here: Bool[np.ndarray, "cell example"] = ~np.isnan(values)
    count = here.sum(-1)
    return np.where(count > 0, np.where(here, values, 0.0).sum(-1) / np.maximum(count, 1), np.nan)
