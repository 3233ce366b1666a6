"""How often a study supports a circuit where there is none: nulls that pass the gate, and the share of false support.

Five kinds, each on a network with induction planted by hand, so that the accuracy gate is passed:

- spread: every head does an (unequal) share of the work, judged with both ablations: with one, no circuit of at most
  half of them is faithful; with the other, any is;
- effects permuted: the effects found on the find split are dealt to other components of the same kind;
- labels permuted: the find split's answers are dealt to other examples, the held-out ones are not;
- random circuit: two random heads of each block are proposed.

Run ``python bench/nulls.py --nulls 15`` for the table; the exit code is 1 if the share of false support exceeds alpha.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from openwork.evidence import wilson_interval
from openwork.faithfulness import Component, Judge, Meter, components_of
from openwork.faithfulness.measure import mean_values
from openwork.faithfulness.planted import Plant, PlantedInduction
from openwork.network import Network
from openwork.network import open as open_network
from openwork.studies import StudySettings, candidates, effects, gate, validate
from openwork.task import Task
from openwork.tasks.examples import Example, assemble

VOCABULARY, SPAN, HEADS = 64, 8, 8
SETTINGS = StudySettings(batch_tokens=16384)


@dataclass(frozen=True)
class Outcome:
    """What the study said of one null.

    Args:
        kind: of null.
        seed: of network, examples and study.
        verdict: supported, rejected, inconclusive, or "no candidate".
        faithfulness: held-out faithfulness of the circuit, None without one.
        random_p: p-value against random circuits, None without a circuit.
        size: components of the circuit.
    """

    kind: str
    seed: int
    verdict: str
    faithfulness: float | None
    random_p: float | None
    size: int


def induction_task(seed: int, n: int = 2 * SETTINGS.examples) -> Task:
    """A B … A predicts B, on repeated random tokens of a vocabulary without text."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(n):
        *span, wrong = (int(t) for t in rng.choice(VOCABULARY, SPAN + 1, replace=False))
        k = int(rng.integers(1, SPAN - 1))
        broken = [*span[: k + 1], wrong, *span[k + 2 :]]
        clean, corrupted = ((*first, *span[: k + 1]) for first in (span, broken))
        groups = {"previous occurrence": (k,), "after previous occurrence": (k + 1,)}
        examples.append(Example(tuple(clean), tuple(corrupted), span[k + 1], wrong, groups))
    return assemble("repeats", examples, seed, 1 / VOCABULARY, "A B … A predicts B, in random tokens")


def planted(seed: int, plant: Plant) -> Network:
    """An opened network with induction planted in it."""
    network = PlantedInduction(VOCABULARY, plant, context=4 * SPAN, seed=seed).eval()
    example = {"input_ids": torch.arange(2 * SPAN)[None] % VOCABULARY}
    return open_network(network, example=example)


def spread(seed: int) -> tuple[Network, Task, Task]:
    """Every head of block 0 is a previous-token head and every head of block 1 an induction head."""
    everywhere = Plant(tuple(range(HEADS)), tuple(range(HEADS)), HEADS, noise=0.02, uneven=0.5)
    task = induction_task(seed)
    return planted(seed, everywhere), task, task


def local(seed: int) -> tuple[Network, Task, Task]:
    """One previous-token and one induction head, at random places."""
    rng = np.random.default_rng(seed)
    plant = Plant((int(rng.integers(HEADS)),), (int(rng.integers(HEADS)),), HEADS)
    task = induction_task(seed)
    return planted(seed, plant), task, task


def relabelled(seed: int) -> tuple[Network, Task, Task]:
    """As `local`, with the labels of the task that is used for finding dealt to other examples."""
    net, task, _ = local(seed)
    order = np.random.default_rng(seed).permutation(len(task))
    return net, task, task.with_answers([task.answer[i] for i in order], [task.wrong[i] for i in order])


def permuted(table: effects.EffectTable, rng: np.random.Generator) -> effects.EffectTable:
    """The effects dealt to other components of the same kind."""
    to = list(range(len(table.components)))
    for kind in ("head", "mlp"):
        places = [i for i, c in enumerate(table.components) if c.kind == kind]
        for place, other in zip(places, rng.permutation(places), strict=True):
            to[place] = int(other)
    named = {str(c): str(table.components[to.index(i)]) for i, c in enumerate(table.components)}
    records = [e.model_copy(update={"site": named[e.site]}) for e in table.effects.components]
    return replace(table, values=table.values[:, to], effects=table.effects.model_copy(update={"components": records}))


def random_nodes(components: Sequence[Component], rng: np.random.Generator) -> tuple[Component, ...]:
    """Two heads of each block."""
    blocks = [[c for c in components if c.kind == "head" and c.layer == layer] for layer in (0, 1)]
    return tuple(sorted(block[i] for block in blocks for i in rng.permutation(len(block))[:2]))


MAKERS = {"spread": spread, "spread, corrupted": spread, "labels permuted": relabelled}


def outcome(kind: str, seed: int, settings: StudySettings = SETTINGS) -> Outcome:
    """Run the deciding steps of a study (gate, effects, candidates, validation) on one null.

    Raises:
        AssertionError: if the network does not pass the gate: then it would be no test of what comes after.
    """
    rng = np.random.default_rng(seed)
    net, task, found_on = MAKERS.get(kind, local)(seed)
    if kind == "spread, corrupted":
        settings = replace(settings, ablation="corrupted")
    assert gate.check(net, task, settings, seed).passed, f"{kind} {seed} does not pass the gate"
    components = components_of(net)
    swept = min(settings.examples, settings.sweep_examples)
    find = effects.with_positions(gate.examples_of(found_on, "find", swept), seed)
    meter = Meter(net, find, task.metric, settings.batch_tokens)
    whole = gate.examples_of(task, "find", settings.examples)
    means = mean_values(net, whole.corrupted, components)
    honest = Meter(net, whole, task.metric, settings.batch_tokens)
    held_out = Meter(net, gate.examples_of(task, "held-out", settings.examples), task.metric, settings.batch_tokens)
    table = effects.measure(net, meter, components, means, settings.alpha, seed)
    if kind == "effects permuted":
        table = permuted(table, rng)
    most = candidates.largest(components, settings)
    proposed = candidates.propose(table, {}, most)
    judge = Judge(honest, components, settings.ablation, means)
    if kind == "random circuit":
        nodes = random_nodes(components, rng)
    elif not proposed:
        return Outcome(kind, seed, "no candidate", None, None, 0)
    else:
        chosen = candidates.choose(judge, table, proposed, settings, seed)
        named = {str(c): c for c in components}
        nodes = tuple(named[n.site] for c in chosen.candidates if c.selected for n in c.nodes)
    hypotheses = validate.rivals(net, judge, table, nodes)
    result, _, _ = validate.validate(
        kind, nodes, judge, Judge(held_out, components, settings.ablation, means), hypotheses, settings, seed
    )
    return Outcome(kind, seed, result.verdict, result.faithfulness.value, result.random.p_value, len(nodes))


KINDS = ("spread", "spread, corrupted", "effects permuted", "labels permuted", "random circuit")


def survey(nulls: int, kinds: Sequence[str] = KINDS, tell: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """`nulls` nulls of each kind."""
    found = []
    for seed in range(nulls):
        for kind in kinds:
            found.append(outcome(kind, seed))
            if tell is not None:
                tell(found[-1])
    return found


def main() -> int:
    """Print the table; 1 if false support is more frequent than alpha."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nulls", type=int, default=15, help="of each kind")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    with torch.no_grad():
        found = survey(options.nulls, tell=lambda o: print(o, file=sys.stderr))
    wrong = sum(o.verdict == "supported" for o in found)
    share = wilson_interval(wrong, len(found))
    alpha = SETTINGS.random_p
    if options.json:
        print(json.dumps({"alpha": alpha, "false_support": asdict(share), "nulls": [asdict(o) for o in found]}))
    else:
        for kind in KINDS:
            verdicts = [o.verdict for o in found if o.kind == kind]
            counts = ", ".join(f"{v}: {verdicts.count(v)}" for v in sorted(set(verdicts)))
            print(f"{kind:<18}{len(verdicts):>4} nulls   {counts}")
        print(f"false support {wrong} of {len(found)}: {share} at alpha {alpha} in {time.perf_counter() - start:.0f} s")
    return int(wrong / len(found) > alpha)


if __name__ == "__main__":
    sys.exit(main())
