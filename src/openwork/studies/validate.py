"""Step 5: the chosen circuit on held-out examples, against random circuits and against simpler hypotheses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from openwork.evidence import Judgement, Measurement
from openwork.evidence import judge as judge_claim
from openwork.faithfulness.circuits import Judge, Table
from openwork.faithfulness.components import Component, count_alike, describe_profile, random_circuits
from openwork.faithfulness.measure import Tick, silent
from openwork.finding import Criteria
from openwork.studies.effects import METHODS, EffectTable
from openwork.studies.estimates import control, estimate, record
from openwork.studies.roles import patterns
from openwork.studies.schema import Control, Criterion, Rival, Validation
from openwork.studies.settings import StudySettings

if TYPE_CHECKING:
    from openwork.network import Network

UNIT = "of the gap between everything ablated and the whole network"
CONTROL = "random circuits of the same size and layer profile"
ABLATIONS = {
    "corrupted": "components outside the circuit carry their values in the corrupted run",
    "mean": "components outside the circuit carry their mean over the corrupted examples of the find split",
}
QUANTILES = (0.0, 0.5, 0.95, 0.99, 1.0)


def rivals(
    net: Network, find: Judge, table: EffectTable, circuit: Sequence[Component]
) -> dict[str, tuple[Component, ...]]:
    """Simpler hypotheses of at most the circuit's size, made on the find split.

    The single strongest component; the strongest of one block; the strongest MLPs; and, for each token group of the
    task, the heads that attend to it most from the answer's position, which is what looking at attention without
    intervening suggests.
    """
    size = len(circuit)
    strength = {c: max(table.mean(m)[c] for m in METHODS) for c in table.components}
    ranked = sorted(table.components, key=lambda c: (-strength[c], c))
    out: dict[str, tuple[Component, ...]] = {"the strongest component alone": tuple(ranked[:1])}
    for layer in sorted({c.layer for c in table.components}):
        out[f"the strongest of block {layer}"] = tuple([c for c in ranked if c.layer == layer][:size])
    out["MLPs only"] = tuple([c for c in ranked if c.kind == "mlp"][:size])
    heads = [c for c in table.components if c.kind == "head"]
    n_heads = sum(c.kind == "head" for c in circuit)
    if heads and n_heads:
        batch = find.meter.batch
        pattern = patterns(net, batch.clean, heads)
        for name, rows in batch.clean.groups.items():
            if name.startswith("study:") or name in ("last", "first") or not all(rows):
                continue
            seen = np.mean(
                [pattern[i, :, at, list(keys)].sum(0) for i, (at, keys) in enumerate(zip(batch.at, rows, strict=True))],
                axis=0,
            )
            best = sorted(range(len(heads)), key=lambda i: (-seen[i], i))[:n_heads]
            out[f"heads that look at '{name}'"] = tuple(heads[i] for i in best)
    own = frozenset(circuit)
    return {name: tuple(sorted(nodes)) for name, nodes in out.items() if nodes and frozenset(nodes) != own}


def validate(
    name: str,
    circuit: Sequence[Component],
    find: Judge,
    held_out: Judge,
    hypotheses: dict[str, tuple[Component, ...]],
    settings: StudySettings,
    seed: int,
    tick: Tick = silent,
) -> tuple[Validation, dict[str, np.ndarray], Judgement]:
    """Judge a circuit on the held-out split.

    A random circuit does as well when its faithfulness comes within `random_margin` of the circuit's. The rival to beat
    is the one that does best on the find split, so that no choice is made on held-out examples. Random circuits are
    measured on the first `sweep_examples`, and placed by their distance from the circuit on those.

    Args:
        name: of the circuit.
        circuit: its components.
        find: judge on the find split.
        held_out: judge on the held-out split.
        hypotheses: rivals, by name.
        settings: `random_circuits`, `random_p`, `random_margin`, `least_faithfulness`, `ablation`.
        seed: of the random circuits and the intervals.
        tick: told the share that is done.

    Returns:
        The record; arrays: f of the circuit and its rivals on each example, mean f of each random circuit; and the
        judgement that the record tells of.
    """
    criteria = Criteria(min_effect=settings.least_faithfulness, unit=UNIT, alpha=settings.random_p)
    names = list(hypotheses)
    on_find = find.alone([hypotheses[n] for n in names]).mean(1) if names else np.zeros(0)
    best = names[int(np.argmax(on_find))] if names else None
    drawn = random_circuits(circuit, held_out.components, settings.random_circuits, np.random.default_rng(seed))
    table = held_out.alone([circuit, *(hypotheses[n] for n in names)])
    own, rival_values = table[0], table[1:]
    sweep = held_out.on_first(settings.sweep_examples).alone([circuit, *drawn], lambda s: tick(0.95 * s))
    # random circuits are compared with the circuit on the examples that they share
    random_values = sweep[1:].mean(1) - sweep[0].mean() + own.mean()
    complete = 1 - held_out.removed([circuit])[0]
    judgement = judge_claim(
        own,
        criteria,
        "held-out",
        controls=random_values + settings.random_margin,
        control_kind=f"{CONTROL}, given {settings.random_margin:g} in advance,",
        rivals={best: rival_values[names.index(best)]} if best is not None else None,
        seed=seed,
    )
    measured = judgement.measurement
    assert measured.control is not None
    tick(1.0)
    result = Validation(
        circuit=name,
        ablation=ABLATIONS[settings.ablation],
        full=estimate(held_out.full, seed),
        empty=estimate(held_out.empty, seed),
        faithfulness=record(measured.effect),
        completeness=estimate(complete, seed),
        random=Control(
            name=CONTROL,
            value=float(random_values.mean()),
            low=measured.control.low - settings.random_margin,
            high=measured.control.high - settings.random_margin,
            n=measured.control.n,
            p_value=measured.control.p_value,
        ),
        random_quantiles={f"{q:g}": float(np.quantile(random_values, q)) for q in QUANTILES},
        n_distinct=len(set(drawn)),
        profile=f"{describe_profile(circuit)} ({count_alike(circuit, held_out.components)} circuits have it)",
        rivals=_rivals(own, rival_values, hypotheses, best, seed),
        detectable=measured.detectable,
        verdict=judgement.verdict.value,
        criteria=_criteria(judgement.measurement, criteria),
        reason="; ".join(judgement.reasons),
    )
    arrays = {
        "validation/circuit": own,
        "validation/rivals": rival_values,
        "validation/random": random_values,
    }
    return result, arrays, judgement


def _rivals(
    own: np.ndarray, values: Table, hypotheses: dict[str, tuple[Component, ...]], best: str | None, seed: int
) -> list[Rival]:
    out = []
    for i, (name, nodes) in enumerate(hypotheses.items()):
        test = control(name, values[i], own, seed)
        assert test.p_value is not None
        out.append(
            Rival(
                name=name,
                nodes=[str(c) for c in nodes],
                faithfulness=estimate(values[i], seed),
                difference=estimate(own - values[i], seed),
                p_value=test.p_value,
                best=name == best,
            )
        )
    return out


def _criteria(m: Measurement, c: Criteria) -> list[Criterion]:
    """The conditions of the verdict as a table; the verdict itself is `openwork.evidence.verdict`."""
    assert m.control is not None
    rows: Iterable[tuple[str, str, str, bool]] = [
        ("examples", f"at least {c.min_examples} held out", str(m.effect.n), m.effect.n >= c.min_examples),
        (
            "faithfulness",
            f"interval above {c.min_effect:g}, p ≤ {c.alpha:g}",
            f"{m.effect}, p = {m.p_value:.2g}",
            m.effect.low > c.min_effect and m.p_value <= c.alpha,
        ),
        (
            CONTROL,
            f"p ≤ {c.alpha:g} with {c.controls_needed} circuits",
            f"{m.control.exceeding} of {m.control.n} do as well, p = {m.control.p_value:.2g}",
            m.control.n >= c.controls_needed and m.control.p_value <= c.alpha,
        ),
    ]
    out = [Criterion(name=n, asked=a, found=f, passed=p) for n, a, f, p in rows]
    if m.rival is not None:
        found = f"{m.rival.name}: difference {m.rival.difference}, p = {m.rival.p_value:.2g}"
        beaten = m.rival.difference.low > 0 and m.rival.p_value <= c.alpha
        out.append(Criterion(name="best rival", asked=f"beaten, p ≤ {c.alpha:g}", found=found, passed=beaten))
    return out
