"""Step 4: candidate circuits from effects and clusters, chosen on the find split alone, and the edges between nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openwork.faithfulness.circuits import Judge
from openwork.faithfulness.components import Component, count_alike, smallest_p
from openwork.faithfulness.measure import Cell, Tick, patch, silent
from openwork.studies.effects import METHODS, EffectTable
from openwork.studies.estimates import estimate, p_values, q_values
from openwork.studies.schema import Candidate, Candidates, EdgeRecord, NodeRecord
from openwork.studies.settings import StudySettings

Circuit = tuple[Component, ...]
WORTH = 0.01
"""A node that adds less than this to the faithfulness is pruned."""
LOGITS = "logits"


@dataclass(frozen=True)
class Hypothesis:
    """A circuit before it is judged.

    Args:
        name: short.
        how: how it came about.
        nodes: its components.
    """

    name: str
    how: str
    nodes: Circuit


def propose(table: EffectTable, clusters: Mapping[str, Iterable[Component]], most: int) -> list[Hypothesis]:
    """Nested sets of the strongest components by each measure of effect, and the clusters with significant members.

    Only components with a significant positive effect are proposed: where nothing has an effect there is no candidate.

    Args:
        table: effects on the find split.
        clusters: name -> components that belong together.
        most: largest size.
    """
    out: list[Hypothesis] = []
    known: set[frozenset[Component]] = set()
    help_any = set().union(*(table.significant(method) for method in METHODS))

    def add(name: str, how: str, nodes: Iterable[Component]) -> None:
        circuit = frozenset(nodes)
        if 0 < len(circuit) <= most and circuit not in known:
            known.add(circuit)
            out.append(Hypothesis(name, how, tuple(sorted(circuit))))

    for method in METHODS:
        mean, chosen = table.mean(method), table.significant(method)
        ranked = sorted(chosen, key=lambda c: (-mean[c], c))
        for size in sizes(min(len(ranked), most)):
            add(f"top {size} by {method}", f"the {size} largest significant effects of {method}", ranked[:size])
    best = {c: max(table.mean(method)[c] for method in METHODS) for c in table.components}
    ranked = sorted(help_any, key=lambda c: (-best[c], c))
    for size in sizes(min(len(ranked), most)):
        add(f"top {size} by any effect", f"the {size} components whose largest effect is largest", ranked[:size])
    for name, members in clusters.items():
        helping = set(members) & help_any
        add(f"cluster {name}", f"the members of {name} that have a significant effect", helping)
    return out


def sizes(most: int) -> list[int]:
    """Sizes of nested sets: every one up to 6, then every second."""
    return [size for size in range(1, most + 1) if size <= 6 or size % 2 == 0]


def choose(
    judge: Judge,
    table: EffectTable,
    proposed: Sequence[Hypothesis],
    settings: StudySettings,
    seed: int,
    tick: Tick = silent,
) -> Candidates:
    """Judge the hypotheses on the find split, grow and prune the best, choose one, and measure its edges.

    Chosen is the smallest whose faithfulness reaches the target, and of which there are enough circuits of the same
    profile for the p-value that is wanted; if none reaches it, the most faithful.

    Args:
        judge: on the find split.
        table: effects on the find split.
        proposed: from `propose`.
        settings: `find_faithfulness`, `largest_share`, `random_p`, `alpha`.
        seed: of the intervals.
        tick: told the share that is done.
    """
    if not proposed:
        return Candidates(
            candidates=[], selected=None, edges=[], reason="no component has a significant effect on the find split"
        )
    most = largest(judge.components, settings)
    faith = _alone(judge, proposed, lambda s: tick(0.4 * s))
    refined = _refined(judge, proposed, faith, table, settings, lambda s: tick(0.4 + 0.3 * s))
    pool = list(proposed) + [h for h in refined if h.nodes not in {p.nodes for p in proposed}]
    faith |= _alone(judge, [h for h in pool if h.nodes not in faith])
    chosen, reason = _select(pool, faith, judge.components, settings, most)
    shown = _shown(pool, faith, chosen)
    completeness = 1 - judge.removed([h.nodes for h in shown], lambda s: tick(0.7 + 0.1 * s)).mean(1)
    score = {c: max(table.mean(m)[c] for m in METHODS) for c in table.components}
    return Candidates(
        candidates=[
            Candidate(
                name=h.name,
                how=h.how,
                nodes=[node_record(c, score[c]) for c in h.nodes],
                faithfulness=faith[h.nodes],
                completeness=float(complete),
                selected=h.nodes == chosen.nodes,
            )
            for h, complete in zip(shown, completeness, strict=True)
        ],
        selected=chosen.name,
        edges=edges(judge, chosen.nodes, settings.alpha, seed, lambda s: tick(0.8 + 0.2 * s)),
        reason=reason,
    )


def largest(components: Sequence[Component], settings: StudySettings) -> int:
    """The most components that may call themselves a circuit."""
    return max(1, int(len(components) * settings.largest_share))


def node_record(component: Component, score: float) -> NodeRecord:
    """A component as the node of a recorded circuit."""
    return NodeRecord(
        site=str(component),
        kind=component.kind,
        layer=component.layer,
        index=component.index if component.kind == "head" else None,
        score=score,
    )


def edges(judge: Judge, nodes: Circuit, alpha: float, seed: int, tick: Tick = silent) -> list[EdgeRecord]:
    """What of each node's effect passes through each later node, and what reaches the logits past all of them.

    The sender is ablated the way the judge ablates. The edge's score is what is regained by holding the receiver at its
    clean value meanwhile; the edge to the logits is what is still lost when all other nodes are held.

    Args:
        judge: on the find split.
        nodes: the circuit.
        alpha: false-discovery rate.
        seed: of the intervals.
        tick: told the share that is done.
    """
    pairs = [(a, b) for a in nodes for b in nodes if _feeds(a, b)]
    sent = [Cell(judge.without([a])) for a in nodes]
    held = [Cell(judge.without([a]) + patch([b], "clean")) for a, b in pairs]
    direct = [Cell(judge.without([a]) + patch([b for b in nodes if _feeds(a, b)], "clean")) for a in nodes]
    sign = 1 if judge.meter.metric.higher_is_better else -1
    values = sign * judge.meter.measure([*sent, *held, *direct], tick)
    n, full = len(nodes), sign * judge.full
    lost = dict(zip(nodes, values[:n], strict=True))
    scores = [values[n + i] - lost[a] for i, (a, _) in enumerate(pairs)]
    scores += [full - value for value in values[n + len(pairs) :]]
    names = [(str(a), str(b)) for a, b in pairs] + [(str(a), LOGITS) for a in nodes]
    p = p_values(np.stack(scores))
    q = q_values(p)
    return [
        EdgeRecord(
            sender=sender,
            receiver=receiver,
            score=estimate(scores[i], seed),
            p_value=float(p[i]),
            q_value=float(q[i]),
            significant=bool(q[i] <= alpha),
        )
        for i, (sender, receiver) in enumerate(names)
    ]


def _feeds(sender: Component, receiver: Component) -> bool:
    """Whether the sender's output is there before the receiver reads (heads before the MLP of their block)."""
    if sender.layer != receiver.layer:
        return sender.layer < receiver.layer
    return sender.kind == "head" and receiver.kind == "mlp"


def _alone(judge: Judge, hypotheses: Sequence[Hypothesis], tick: Tick = silent) -> dict[Circuit, float]:
    if not hypotheses:
        return {}
    values = judge.alone([h.nodes for h in hypotheses], tick).mean(1)
    return {h.nodes: float(v) for h, v in zip(hypotheses, values, strict=True)}


def _refined(
    judge: Judge,
    proposed: Sequence[Hypothesis],
    faith: dict[Circuit, float],
    table: EffectTable,
    settings: StudySettings,
    tick: Tick,
) -> list[Hypothesis]:
    """The best hypothesis, its nodes ranked anew by what each is worth within it, as nested sets."""
    best = min(proposed, key=lambda h: (abs(1 - faith[h.nodes]), len(h.nodes)))
    out: list[Hypothesis] = []
    for round_ in (1, 2):
        nodes = best.nodes
        if len(nodes) < 2:
            break
        less = [tuple(c for c in nodes if c != gone) for gone in nodes]
        without = judge.alone(less, lambda s, r=round_: tick((r - 1 + s) / 2)).mean(1)
        worth = dict(zip(nodes, faith[nodes] - without, strict=True))
        ranked = sorted(nodes, key=lambda c: (-worth[c], c))
        how = f"the nodes of '{best.name}' that are worth most within it"
        made = [
            Hypothesis(f"{best.name}, pruned to {k}", how, tuple(sorted(ranked[:k]))) for k in range(2, len(ranked))
        ]
        worthy = tuple(sorted(c for c in nodes if worth[c] >= WORTH))
        if worthy and worthy != nodes:
            made.append(Hypothesis(f"{best.name}, pruned", how, worthy))
        faith |= _alone(judge, [h for h in made if h.nodes not in faith])
        out += made
        reached = [h for h in (*made, best) if faith[h.nodes] >= settings.find_faithfulness]
        smaller = min(reached, key=lambda h: len(h.nodes), default=best)
        if smaller.nodes == best.nodes:
            break
        best = smaller
    return out


def _select(
    pool: Sequence[Hypothesis],
    faith: dict[Circuit, float],
    components: Sequence[Component],
    settings: StudySettings,
    most: int,
) -> tuple[Hypothesis, str]:
    fits = [h for h in pool if len(h.nodes) <= most]
    testable = [
        h for h in fits if smallest_p(count_alike(h.nodes, components), settings.random_circuits) <= settings.random_p
    ]
    among = testable or fits
    high = 2 - settings.find_faithfulness
    reached = [h for h in among if settings.find_faithfulness <= faith[h.nodes] <= high]
    if reached:
        chosen = min(reached, key=lambda h: (len(h.nodes), abs(1 - faith[h.nodes])))
        reason = f"the smallest that reaches a faithfulness of {settings.find_faithfulness:g} on the find split"
    else:
        chosen = min(among, key=lambda h: (abs(1 - faith[h.nodes]), len(h.nodes)))
        reason = f"none reaches a faithfulness of {settings.find_faithfulness:g} on the find split; this comes closest"
    if not testable:
        reason += f"; none has enough others of its layer profile to be tested at p ≤ {settings.random_p:g}"
    return chosen, reason


def _shown(
    pool: Sequence[Hypothesis], faith: dict[Circuit, float], chosen: Hypothesis, most: int = 12
) -> list[Hypothesis]:
    """The chosen one and the most faithful of each size."""
    best: dict[int, Hypothesis] = {}
    for h in pool:
        size = len(h.nodes)
        if size not in best or abs(1 - faith[h.nodes]) < abs(1 - faith[best[size].nodes]):
            best[size] = h
    others = [h for _, h in sorted(best.items()) if h.nodes != chosen.nodes]
    clusters = [h for h in pool if h.name.startswith("cluster") and h not in others and h.nodes != chosen.nodes]
    return [chosen, *others, *clusters][:most]
