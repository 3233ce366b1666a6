"""Self-repair: how much later components make up for an ablated one.

    self_repair(net, task)                                              # of every head and MLP, by attn.out and mlp.out
    self_repair(net, task, "blocks.9.attn.z", downstream="blocks.*.attn.z")   # which heads take over

Source: McGrath et al. 2023, The hydra effect; Rushing and Nanda 2024, Explorations of self-repair in language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.causal.candidates import Gap, recoveries, settings_of
from openwork.causal.controls import KIND, Twins
from openwork.causal.freezing import ablated_runs, contributions, held, later
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


@dataclass(frozen=True)
class SelfRepair:
    """How to measure self-repair.

    Args:
        replacing: what an ablated part is replaced with.
        claims: how many parts, those that are made up for most on the find split, to claim on the held-out one.
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


def self_repair(
    net: Network,
    task: Task,
    components: Components = None,
    method: SelfRepair = SelfRepair(),
    *,
    downstream: Components = None,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Ablate each part and compare the direct effects of what comes later with those in the unedited run.

    The repair of a part is its direct minus its total effect: what the metric does not lose although the part's direct
    effect is gone. A later part's share in it is the change of its own direct effect, which is measured in either run
    by ablating it too with everything after it frozen at the values of that run.

    Args:
        net: the network.
        task: the behaviour; its clean inputs are edited.
        components: the parts to ablate.
        method: how.
        downstream: the parts that may make up for them; all contributions (``attn.out``, ``mlp.out``) unless given.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        the findings, none where the network does not tell clean from corrupted; and a table with the axes
        ``component``, ``downstream`` (each with layer, kind and index) and ``example``: ``total``, ``direct`` and
        ``repair`` (component, example), with ``mean_repair``, ``low_repair`` and ``high_repair``; ``share``, the mean
        repair over the mean direct effect with ``share_low`` and ``share_high``, NaN where the direct effect cannot be
        told from 0; ``before``, ``after`` and ``change`` (component, downstream), the mean direct effect of a later
        part without and with the ablation, NaN where it is not later, with ``change_low`` and ``change_high``; ``left``
        (component), the repair that these changes do not add up to: final norms, interactions, and later parts that are
        not among `downstream`. What was claimed has the axes ``claim``, ``held_out_example`` and ``control``.

    Raises:
        UnknownName: for a component that does not exist.
        BadInput: for a component outside the sub-layers, or if nothing is selected.
        SiteRefused: if a contribution of the network failed its certificate.

    Units:
        those of the metric; a positive ``repair`` keeps the metric up.

    Source:
        McGrath et al. 2023, the compensatory effect (change of later direct effects under ablation); Rushing and Nanda
        2024, self-repair as direct effect minus the logit difference lost.
    """
    import xarray

    parts = parts_of(net, components)
    others = parts_of(net, contributions(net) if downstream is None else downstream)
    for part in (*parts, *others):
        later(net, part)
    replacement = Replacement(net, task, [*parts, *others], method.replacing)
    find = task.split("find")
    gap = Gap.of(net, find, task.metric)
    found = _Repair.of(net, task, find, "find", parts, others, replacement, gap, memory, tick)
    mean = found.repair.mean(-1) * np.sign(found.direct.mean(-1))
    able = [i for i in np.argsort(-mean, kind="stable").tolist() if later(net, parts[i])]
    chosen = able[: method.claims if gap.open else 0]
    signs = np.where(found.direct.mean(-1) < 0, -1.0, 1.0)[chosen]
    settings = settings_of(
        method, components=[p.name for p in parts], downstream=[p.name for p in others], task=task.name,
        metric=task.metric.name, scale=gap.of_what,
    )  # fmt: skip
    claims = Claims(net, task, settings, method.seed)
    findings, of_claims = _claims(net, task, [parts[i] for i in chosen], signs, method, replacement, gap.scale, claims)
    table = xarray.Dataset(
        found.variables(method.seed),
        {**coordinates(parts), **coordinates(others, "downstream"), "example": np.arange(len(find))},
    ).assign(of_claims)
    table.attrs.update(metric=task.metric.name, unit=task.metric.unit, network=net.name, scale=gap.scale)
    return Result("self-repair", findings, table, settings, () if gap.open else (gap.closed,))


@dataclass(frozen=True, eq=False)
class _Repair:
    """Effects of one split, averaged over draws; NaN where a part is not later than the ablated one."""

    total: Float[np.ndarray, "component example"]
    direct: Float[np.ndarray, "component example"]
    before: Float[np.ndarray, "downstream example"]
    after: Float[np.ndarray, "component downstream example"]

    @classmethod
    def of(
        cls,
        net: Network,
        task: Task,
        batch: Batch,
        split: Split,
        parts: Sequence[Part],
        others: Sequence[Part],
        replacement: Replacement,
        gap: Gap,
        memory: str | int | None = None,
        tick: Tick = silent,
    ) -> _Repair:
        sources, draws = replacement.sources(split), replacement.replacing.draws
        total, direct = np.zeros((2, len(parts), len(batch)))
        before = np.zeros((len(others), len(batch)))
        after = np.zeros((len(parts), len(others), len(batch)))
        for draw in range(draws):
            alone = [replacement.edits(part, draw) for part in parts]
            cells = [*alone, *((*own, *held(later(net, part))) for part, own in zip(parts, alone, strict=True))]
            cells += [(*replacement.edits(other, draw), *held(later(net, other))) for other in others]
            values = gap.sign * measure(net, batch, task.metric, cells, sources=sources, memory=memory).values
            ablated, frozen, plain = np.split(values, [len(parts), 2 * len(parts)])
            total += gap.clean - ablated
            direct += gap.clean - frozen
            before += gap.clean - plain
            number = 0
            for group in ablated_runs(net, batch.clean, list(zip(parts, alone, strict=True)), sources):
                cells, at = [], []
                for name, (part, _) in group.items():
                    acting = later(net, part)
                    for j, other in enumerate(others):
                        if other.sites[0].path.rpartition(".")[0] + ".out" in acting:
                            both = (*alone[number], *replacement.edits(other, draw), *held(later(net, other), name))
                            cells.append(both)
                            at.append((number, j))
                    number += 1
                if cells:
                    given = {**sources, **{name: run for name, (_, run) in group.items()}}
                    found = gap.sign * measure(net, batch, task.metric, cells, sources=given, memory=memory).values
                    for (i, j), row in zip(at, found, strict=True):
                        after[i, j] += ablated[i] - row
                tick((draw * len(parts) + number) / (draws * len(parts)))
        for i, part in enumerate(parts):
            acting = later(net, part)
            for j, other in enumerate(others):
                if other.sites[0].path.rpartition(".")[0] + ".out" not in acting:
                    after[i, j] = np.nan
        return cls(total / draws, direct / draws, before / draws, after / draws)

    @property
    def repair(self) -> Float[np.ndarray, "component example"]:
        return self.direct - self.total

    @property
    def change(self) -> Float[np.ndarray, "component downstream example"]:
        return self.after - self.before

    def variables(self, seed: int) -> dict[str, Any]:
        """The variables of the table."""
        one, two = ("component", "example"), ("component", "downstream")
        out: dict[str, Any] = {"total": (one, self.total), "direct": (one, self.direct), "repair": (one, self.repair)}
        numbers = summary(self.repair)
        out |= {f"{name}_repair": ("component", numbers[n]) for name, n in _NUMBERS.items()}
        shares = [recoveries(r[None], d, seed) for r, d in zip(self.repair, self.direct, strict=True)]
        for name, of in (("share", "recovery"), ("share_low", "recovery_low"), ("share_high", "recovery_high")):
            out[name] = ("component", np.array([share[of][0] for share in shares]))
        late = ~np.isnan(self.after[:, :, 0])
        changed = summary(self.change)
        out["before"] = (two, np.where(late, self.before.mean(-1), np.nan))
        out["after"] = (two, self.after.mean(-1))
        out |= {name: (two, changed[n]) for name, n in _CHANGES.items()}
        out["left"] = ("component", (self.repair - np.nansum(self.change, 1)).mean(-1))
        return out


_NUMBERS = {"mean": "effect", "low": "low", "high": "high"}
_CHANGES = {"change": "effect", "change_low": "low", "change_high": "high"}


def _claims(
    net: Network,
    task: Task,
    parts: Sequence[Part],
    signs: Float[np.ndarray, " part"],
    method: SelfRepair,
    replacement: Replacement,
    scale: float,
    claims: Claims,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The findings about some parts on the held-out split, and the numbers behind them."""
    if not parts:
        return (), {}
    batch = task.split("held-out")
    gap = Gap.of(net, batch, task.metric)
    found = _Repair.of(net, task, batch, "held-out", parts, [], replacement, gap)
    criteria = method.standard.criteria(scale, task.metric.unit)
    sources, draws = replacement.sources("held-out"), replacement.replacing.draws
    share = -(-criteria.controls_needed // draws)
    candidates, controls = [], []
    for number, (part, sign) in enumerate(zip(parts, signs.tolist(), strict=True)):
        means: list[float] = []
        for draw in range(draws):
            seed = (method.seed * 1009 + number) * 1009 + draw
            twins = Twins(net, batch, "clean", replacement.edits(part, draw), sources, seed=seed)
            total, direct = gap.clean - gap.sign * twins.measure(task.metric, share, [(), held(later(net, part))])
            means += (sign * (direct - total)).mean(-1).tolist()
        controls.append(means)
        text = f"later contributions make up for {part.name} in {task.metric.name}"
        candidates.append(Candidate(text, sign * found.repair[number], np.array(means)))
    table = held_out_table([c.text for c in candidates], found.repair, controls)
    return claimed(claims, criteria, candidates, KIND), table
