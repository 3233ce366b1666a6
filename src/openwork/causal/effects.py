"""Direct, indirect and total effects of a part on the metric.

    effects(net, task)                       # of every head and MLP
    effects(net, task, "blocks.*.attn.z", Mediation(Replacing("resample")))

Source: Pearl 2001, Direct and indirect effects; Vig et al. 2020, Causal mediation analysis for interpreting neural NLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.causal.candidates import Gap, settings_of
from openwork.causal.controls import KIND, Twins
from openwork.causal.freezing import ablated_runs, held, later
from openwork.causal.parts import Components, Part, coordinates, parts_of
from openwork.causal.replacing import Replacement, Replacing
from openwork.errors import BadInput
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.network.sweep import effects as summary
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.task import Batch, Split, Task

if TYPE_CHECKING:
    from openwork.network import Network

TOTAL, DIRECT, REST, INDIRECT = range(4)
NAMES = ("total", "direct", "rest", "indirect")
WORDS = ("in total", "directly, with all later contributions frozen", "through later contributions")


@dataclass(frozen=True)
class Mediation:
    """How to take effects apart.

    Args:
        replacing: what an ablated part is replaced with.
        claims: how many parts, those with the largest total or direct effects on the find split, to make claims about.
        standard: what a claim must meet.
        seed: of control directions and intervals.
    """

    replacing: Replacing = field(default_factory=Replacing)
    claims: int = 2
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.claims < 0:
            raise BadInput(f"expected no negative number of claims; got {self.claims}")
        if "class" in self.replacing.by:
            raise BadInput("expected means over all examples or by position; means by class are for ablate alone")


def effects(
    net: Network,
    task: Task,
    components: Components = None,
    method: Mediation = Mediation(),
    *,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Take the effect of each part on the metric apart.

    - total: the metric lost when the part is ablated;
    - direct: what is lost when all later contributions are held at their unedited values, so that the ablation acts on
      the output alone, straight through the residual stream and the final norm;
    - rest: total − direct, what goes through later contributions, whatever interacts included;
    - indirect: what is lost when the part itself is as ever, and later contributions are as they are without it.

    What total − direct − indirect leaves is the ``interaction``; it is 0 where the output is linear.

    Args:
        net: the network.
        task: the behaviour; its clean inputs are edited.
        components: parts within a sub-layer each, as in `openwork.causal.parts.parts_of`.
        method: how.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        the findings, none where the network does not tell clean from corrupted; and a table with the axes
        ``component`` (with ``layer``, ``kind`` and ``index``) and ``example``: ``total``, ``direct``, ``rest``,
        ``indirect`` and ``interaction`` of each example, and of each their mean as ``mean_total`` with ``low_total``
        and ``high_total``, and so on. What was claimed has the axes ``claim``, ``held_out_example`` and ``control``.

    Raises:
        UnknownName: for a component that does not exist.
        BadInput: for a component outside the sub-layers, or if nothing is selected.
        SiteRefused: if a contribution of the network failed its certificate.

    Units:
        those of the metric; larger means that the part helps more.

    Source:
        Pearl 2001, equations 6 to 9; the direct effect by freezing what comes later: McGrath et al. 2023, section 2.
    """
    import xarray

    parts = parts_of(net, components)
    for part in parts:
        later(net, part)
    replacement = Replacement(net, task, parts, method.replacing)
    find = task.split("find")
    gap = Gap.of(net, find, task.metric)
    found = _measured(net, task, find, "find", parts, replacement, gap, memory, tick)
    largest = np.abs(found[[TOTAL, DIRECT]].mean(-1)).max(0)
    chosen = np.argsort(-largest, kind="stable")[: method.claims if gap.open else 0]
    settings = settings_of(
        method, components=[part.name for part in parts], task=task.name, metric=task.metric.name, scale=gap.of_what
    )
    claims = Claims(net, task, settings, method.seed)
    signs = np.where(found.mean(-1) < 0, -1.0, 1.0)[:, chosen]
    findings, of_claims = _claims(net, task, [parts[i] for i in chosen], signs, method, replacement, gap.scale, claims)
    values: dict[str, np.ndarray] = dict(zip(NAMES, found, strict=True))
    values["interaction"] = found[TOTAL] - found[DIRECT] - found[INDIRECT]
    variables: dict[str, Any] = {}
    for name, value in values.items():
        variables[name] = (("component", "example"), value)
        numbers = summary(value)
        variables |= {f"{k}_{name}": ("component", numbers[n]) for k, n in _NUMBERS.items()}
    coords = {**coordinates(parts), "example": np.arange(len(find)), "clean": ("example", gap.sign * gap.clean)}
    table = xarray.Dataset(variables, coords).assign(of_claims)
    table.attrs.update(metric=task.metric.name, unit=task.metric.unit, network=net.name, scale=gap.scale)
    return Result("direct and indirect effects", findings, table, settings, () if gap.open else (gap.closed,))


_NUMBERS = {"mean": "effect", "low": "low", "high": "high"}


def _measured(
    net: Network,
    task: Task,
    batch: Batch,
    split: Split,
    parts: Sequence[Part],
    replacement: Replacement,
    gap: Gap,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Float[np.ndarray, "effect part example"]:
    """Total, direct, rest and indirect effects, averaged over draws."""
    draws = replacement.replacing.draws
    sources = replacement.sources(split)
    out = np.zeros((len(NAMES), len(parts), len(batch)))
    for draw in range(draws):
        edits = [replacement.edits(part, draw) for part in parts]
        cells = [*edits, *((*own, *held(later(net, part))) for part, own in zip(parts, edits, strict=True))]
        values = gap.sign * measure(net, batch, task.metric, cells, sources=sources, memory=memory).values
        out[[TOTAL, DIRECT]] += gap.clean - values.reshape(2, len(parts), -1)
        number = 0
        given = list(zip(parts, edits, strict=True))
        for group in ablated_runs(net, batch.clean, given, sources):
            acting = [(name, sites) for name, (part, _) in group.items() if (sites := later(net, part))]
            lost: dict[str, np.ndarray] = {}
            if acting:
                runs = {name: run for name, (_, run) in group.items()}
                cells = [held(sites, name) for name, sites in acting]
                found = measure(net, batch, task.metric, cells, sources=runs, memory=memory)
                lost = {name: gap.clean - gap.sign * row for (name, _), row in zip(acting, found.values, strict=True)}
            for name in group:
                out[INDIRECT, number] += lost.get(name, 0.0)  # the last contribution has none after it
                number += 1
            tick((draw * len(parts) + number) / (draws * len(parts)))
    out /= draws
    out[REST] = out[TOTAL] - out[DIRECT]
    return out


def _claims(
    net: Network,
    task: Task,
    parts: Sequence[Part],
    signs: Float[np.ndarray, "effect part"],
    method: Mediation,
    replacement: Replacement,
    scale: float,
    claims: Claims,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Three claims about each part on the held-out split, and the numbers behind them."""
    if not parts:
        return (), {}
    batch = task.split("held-out")
    gap = Gap.of(net, batch, task.metric)
    found = _measured(net, task, batch, "held-out", parts, replacement, gap)
    criteria = method.standard.criteria(scale, task.metric.unit)
    sources, draws = replacement.sources("held-out"), replacement.replacing.draws
    share = -(-criteria.controls_needed // draws)
    candidates, rows, controls = [], [], []
    for number, part in enumerate(parts):
        frozen = held(later(net, part))
        means: list[np.ndarray] = []
        for draw in range(draws):
            seed = (method.seed * 1009 + number) * 1009 + draw
            twins = Twins(net, batch, "clean", replacement.edits(part, draw), sources, seed=seed)
            total, direct = (gap.clean - gap.sign * twins.measure(task.metric, share, [(), frozen])).mean(-1)
            means.append(np.stack((total, direct, total - direct)))
        of_controls = np.concatenate(means, axis=1)
        for effect in (TOTAL, DIRECT, REST):
            if effect == REST and not frozen:
                continue
            sign = signs[effect, number]
            does = "helps" if sign > 0 else "hurts"
            text = f"{part.name} {does} {task.metric.name} {WORDS[effect]}"
            rows.append(found[effect, number])
            controls.append(sign * of_controls[effect])
            candidates.append(Candidate(text, sign * rows[-1], controls[-1]))
    return claimed(claims, criteria, candidates, KIND), held_out_table([c.text for c in candidates], rows, controls)
