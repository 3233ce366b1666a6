"""Step 3: units and heads that are active together on real text, components that act alike on the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from openwork.edit import Array, Edit, Set
from openwork.errors import BadInput
from openwork.faithfulness.components import Component
from openwork.faithfulness.measure import Cell, Meter, Tick, set_to, silent
from openwork.site import Site
from openwork.studies.effects import EffectTable
from openwork.studies.grouping import Grouping, Shuffle, group, permute_each, shift_each
from openwork.studies.schema import Cluster, Clustering, Clusters, Control, Estimate
from openwork.studies.settings import StudySettings
from openwork.studies.texts import Texts

if TYPE_CHECKING:
    from openwork.network import Network

STABLE = 0.5
"""Least mean Jaccard index over resamples at which a cluster counts as stable (Hennig 2007)."""
SHOWN_TOKENS = 8
MEASURED = 12
"""Clusters of units, the largest first, whose effect on the task is measured."""


def find(
    net: Network,
    meter: Meter,
    texts: Texts,
    table: EffectTable,
    signature: np.ndarray,
    constants: dict[str, Tensor],
    settings: StudySettings,
    seed: int,
    tick: Tick = silent,
) -> Clusters:
    """Cluster units, heads and components, each against its own null.

    Args:
        net: the network.
        meter: on the find split; measures what knocking out a cluster of units or heads does.
        texts: real text, for co-activation.
        table: effects of components on the find split.
        signature: (component, role) attention scores; zeros for MLPs.
        constants: path -> mean value of heads and MLPs, for knocking clusters out.
        settings: `units`, `shuffles`, `resamples`, `alpha`.
        seed: of shuffles and resamples.
        tick: told the share that is done.
    """
    found = []
    units, activity, means = _units(net, texts, settings.units)
    rows = np.repeat(np.arange(len(texts.inputs)), [len(ids) - texts.begin for ids in texts.inputs.ids])
    words = [t for ids in texts.inputs.ids for t in net.tokens(list(ids))[texts.begin :]]
    if len(units) >= 4:
        names = [str(u) for u in units]
        grouping = _group(activity, shift_each, settings, seed, rows)
        groups = _members(grouping)
        effects = _unit_effects(meter, [[units[i] for i in g] for g in groups[:MEASURED]], means)
        by = "correlation of activations over the tokens of real text"
        found.append(_record("units", by, names, activity, grouping, settings, effects, words))
    tick(0.6)
    heads = [c for c in table.components if c.kind == "head"]
    if len(heads) >= 4:
        norms = _head_activity(net, texts, heads)
        grouping = _group(norms, shift_each, settings, seed, rows)
        by = "correlation of the norms of their outputs over the tokens of real text"
        effects = _component_effects(meter, [[heads[i] for i in g] for g in _members(grouping)], constants)
        found.append(_record("heads", by, [str(h) for h in heads], norms, grouping, settings, effects, words))
    tick(0.8)
    if len(table.components) >= 4:
        profile = _profiles(table, signature)
        grouping = _group(profile, permute_each, settings, seed, None)
        by = "correlation of effects on each example and of attention signatures"
        members = [[table.components[i] for i in g] for g in _members(grouping)]
        effects = _component_effects(meter, members, constants)
        names = [str(c) for c in table.components]
        found.append(_record("components", by, names, profile, grouping, settings, effects, None))
    tick(1.0)
    return Clusters(clusterings=found)


def component_clusters(clusters: Clusters, components: Sequence[Component]) -> dict[str, list[Component]]:
    """The clusters of heads and of components that are interesting, as components."""
    named = {str(c): c for c in components}
    return {
        f"{clustering.of} {cluster.name}": [named[m] for m in cluster.members]
        for clustering in clusters.clusterings
        if clustering.of != "units"
        for cluster in clustering.clusters
        if cluster.interesting
    }


def _group(
    matrix: np.ndarray, shuffle: Shuffle, settings: StudySettings, seed: int, rows: np.ndarray | None
) -> Grouping:
    return group(
        matrix,
        shuffle,
        np.random.default_rng(seed),
        shuffles=settings.shuffles,
        resamples=settings.resamples,
        rows=rows,
    )


def _units(net: Network, texts: Texts, most: int) -> tuple[list[Site], np.ndarray, dict[str, np.ndarray]]:
    """The units of largest variance of each block, their activations (unit, token), and the mean of every unit."""
    paths = [f"blocks.{layer}.mlp.hidden" for layer in range(net.n_blocks)]
    paths = [path for path in paths if path in net.sites]
    if not paths:
        return [], np.empty((0, 0)), {}
    run = net.run(texts.inputs, keep=paths)
    share = max(1, most // len(paths))
    sites, rows, means = [], [], {}
    for path in paths:
        value = run[path][:, texts.begin :].float().cpu().numpy()
        if value.ndim != 3:
            raise BadInput(f"expected {path} to have axes (batch, position, unit); got shape {value.shape}")
        flat = value.reshape(-1, value.shape[-1]).T
        means[path] = flat.mean(1)
        # larger variance first, then the lower number: no tie is left to chance
        order = np.lexsort((np.arange(len(flat)), -flat.var(1)))[:share]
        sites += [Site(path, (int(i),)) for i in sorted(order)]
        rows.append(flat[sorted(order)])
    return sites, np.concatenate(rows), means


def _head_activity(net: Network, texts: Texts, heads: Sequence[Component]) -> np.ndarray:
    paths = sorted({h.site.path for h in heads})
    run = net.run(texts.inputs, keep=paths)
    norms = {path: run[path][:, texts.begin :].float().norm(dim=-1).cpu().numpy() for path in paths}
    return np.stack([norms[h.site.path][:, :, h.index].reshape(-1) for h in heads])


def _profiles(table: EffectTable, signature: np.ndarray) -> np.ndarray:
    """(component, feature): effects on each example and attention scores, both blocks of equal weight."""
    effects = table.values.transpose(1, 0, 2).reshape(len(table.components), -1)
    return np.concatenate([_scaled(effects), _scaled(signature)], axis=1)


def _scaled(block: np.ndarray) -> np.ndarray:
    """Columns with mean 0; the whole block with sum of squares 1."""
    centred = block - block.mean(0)
    size = np.linalg.norm(centred)
    return centred / size if size > 0 else centred


def _members(grouping: Grouping) -> list[np.ndarray]:
    return [np.flatnonzero(grouping.labels == k) for k in range(len(grouping.cohesion))]


def _component_effects(
    meter: Meter, groups: Sequence[Sequence[Component]], constants: dict[str, Tensor]
) -> list[float]:
    """What the metric loses on the find split when all components of a cluster are set to their means."""
    return _losses(meter, [set_to(members, constants) for members in groups])


def _unit_effects(meter: Meter, groups: Sequence[Sequence[Site]], means: dict[str, np.ndarray]) -> list[float]:
    """What the metric loses on the find split when all units of a cluster are set to their mean on real text."""
    knocked = []
    for sites in groups:
        by_path: dict[str, list[int]] = {}
        for site in sites:
            by_path.setdefault(site.path, []).append(site.index[0])
        knocked.append(tuple(Set(Site(p, tuple(i)), value=Array.of(means[p][i])) for p, i in sorted(by_path.items())))
    return _losses(meter, knocked)


def _losses(meter: Meter, knocked: Sequence[tuple[Edit, ...]]) -> list[float]:
    sign = 1 if meter.metric.higher_is_better else -1
    values = sign * meter.measure([Cell(), *(Cell(edits) for edits in knocked)]).mean(1)
    return (values[0] - values[1:]).tolist()


def _record(
    of: str,
    by: str,
    names: list[str],
    matrix: np.ndarray,
    grouping: Grouping,
    settings: StudySettings,
    effects: Sequence[float],
    words: list[str] | None,
) -> Clustering:
    clusters = []
    for k, members in enumerate(_members(grouping)):
        p, stability = float(grouping.p_values[k]), float(grouping.stability[k])
        clusters.append(
            Cluster(
                name=f"{of[0].upper()}{k + 1}",
                members=[names[i] for i in members],
                cohesion=float(grouping.cohesion[k]),
                p_value=p,
                stability=stability,
                interesting=p <= settings.alpha and stability >= STABLE,
                effect=effects[k] if k < len(effects) else None,
                tokens=_peaks(matrix[members], words) if words else [],
            )
        )
    low, high = np.quantile(grouping.null, (0.025, 0.975))
    rand_low, rand_high = np.quantile(grouping.rand, (0.025, 0.975))
    return Clustering(
        of=of,  # type: ignore[arg-type]
        by=by,
        n_items=matrix.shape[0],
        n_observations=matrix.shape[1],
        n_clusters=len(clusters),
        statistic=grouping.statistic,
        null=Control(
            name="shuffled activations",
            value=float(grouping.null.mean()),
            low=float(low),
            high=float(high),
            n=len(grouping.null),
            p_value=grouping.p_value,
        ),
        p_value=grouping.p_value,
        stability=Estimate(
            value=float(grouping.rand.mean()), low=float(rand_low), high=float(rand_high), n=len(grouping.rand)
        ),
        interesting=grouping.p_value <= settings.alpha and any(c.interesting for c in clusters),
        clusters=clusters,
    )


def _peaks(activity: np.ndarray, words: list[str]) -> list[str]:
    """Different tokens at which the members are most active together."""
    scale = activity.std(1, keepdims=True)
    together = ((activity - activity.mean(1, keepdims=True)) / np.where(scale > 0, scale, 1)).mean(0)
    out: list[str] = []
    for place in np.argsort(-together, kind="stable"):
        if words[place] not in out:
            out.append(words[place])
        if len(out) == SHOWN_TOKENS:
            break
    return out
