"""Is a direction that can be read also used? Remove it, swap it, move along it, against random changes as large.

    use(net, task, direction, Use(where="subject"))

Source: Elazar et al. 2021, Amnesic Probing: Behavioral Explanation with Amnesic Counterfactuals; Ravfogel et al. 2020,
Null It Out (removal by projection); Geiger et al. 2023 (swaps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.direction import Direction
from openwork.edit import Ablate, Add, Array, Edit, Twin
from openwork.errors import BadInput
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.network.sweep import effects as summary
from openwork.probes.recording import channels_last, require_vector
from openwork.results.candidates import Candidate, judged
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Where
from openwork.task import Batch, Inputs, Task

if TYPE_CHECKING:
    from openwork.network import Network

REMOVE, SWAP, MOVE = "remove", "swap", "move"
WAYS = (REMOVE, SWAP, MOVE)
KIND = "changes of equal size at the same tokens in random directions"
STEPS = 2.0
"""How far a move goes, in standard deviations of what examples carry along the direction."""
STILL = 1e-5
"""Examples that spread less than this share of their length along a direction do not vary along it."""


@dataclass(frozen=True)
class Use:
    """How to check whether a direction is used.

    Args:
        where: the token group or positions at which it is edited; all unless given.
        ways: ``remove`` projects it out; ``swap`` writes the corrupted twin's component; ``move`` adds and subtracts
            two standard deviations of what examples carry along it. Ways that a task or a subspace does not allow are
            left out, and a remark says so.
        standard: what a claim must meet.
        seed: of the controls.

    Raises:
        BadInput: for another way.
    """

    where: Any = None
    ways: tuple[str, ...] = WAYS
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ways or not set(self.ways) <= {*WAYS}:
            raise BadInput(f"expected ways among {WAYS}; got {self.ways}")


def use(
    net: Network,
    task: Task,
    direction: Direction,
    method: Use = Use(),
    *,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Edit along a direction or subspace, and see on held-out examples whether the behaviour changes.

    Removal and swap are judged by what the metric loses. A move is judged by half the difference that its two signs
    make: towards the corrupted twin where there is one, and else in the direction that the find split shows.

    Args:
        net: the network.
        task: the behaviour.
        direction: a direction or subspace, e.g. of a probe.
        method: how.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        a finding a way; a table with the axis ``way``: ``effect`` with ``low``, ``high`` and ``p`` on held-out
        examples, ``used_effect`` (way, held_out_example) and ``control_effect`` (way, control).
        ``table.attrs["used"]`` is ``yes`` if any way is supported, ``no`` if all are rejected, else ``undecided``.

    Raises:
        UnknownName: for a site or token group that does not exist.
        BadInput: for a direction of another length than the site, or if no way is left.

    Units:
        those of the metric.
    """
    require_vector(net, direction.site)
    find, held = task.split("find"), task.split("held-out")
    where = Where.of(method.where)
    carried = [_Carried.of(net, batch, direction, where) for batch in (find, held)]
    ways, remarks = _possible(task, direction, method, carried[0])
    sign = 1.0 if task.metric.higher_is_better else -1.0
    scale = _scale(net, task, find, direction, where, sign, memory)
    criteria = method.standard.criteria(scale, task.metric.unit)
    claims = Claims(net, task, _settings(method, direction, task), method.seed)
    step = STEPS * carried[0].spread
    rows, controls = [], []
    for number, way in enumerate(ways):
        cells = _cells(net, direction, where, way, step)
        found = measure(net, held, task.metric, cells, memory=memory)
        base, values = sign * found.base, sign * found.values
        towards = carried[1].towards if way == MOVE else None
        if way == MOVE and towards is None:
            towards = np.full(len(held), _leaning(net, find, task, cells, sign, memory))
        rows.append(_lost(base, values, towards))
        twins = _twins(net, direction, cells, way, step, criteria.controls_needed, method.seed)
        other = sign * measure(net, held, task.metric, [cell for pair in twins for cell in pair], memory=memory).values
        other = other.reshape(len(twins), len(cells), -1)
        controls.append(np.array([_lost(base, value, towards).mean() for value in other]))
        tick((number + 1) / len(ways))
    texts = [_text(way, direction, task, where) for way in ways]
    candidates = [Candidate(*one) for one in zip(texts, rows, controls, strict=True)]
    findings = judged(claims, criteria, candidates, KIND)
    used = _summed([str(finding.verdict) for finding in findings])
    table = _table(net, task, direction, ways, np.array(rows), np.array(controls), used)
    return Result("use of a direction", tuple(findings), table, claims.settings, (*_said(used, direction), *remarks))


@dataclass(frozen=True, eq=False)
class _Carried:
    """What examples carry along a direction.

    Args:
        spread: its standard deviation over tokens and examples, 0 if they do not vary or for a subspace.
        towards: (example,) 1 where the corrupted twin carries more, -1 where less, 0 where as much; None without twins.
    """

    spread: float
    towards: Float[np.ndarray, " example"] | None

    @classmethod
    def of(cls, net: Network, batch: Batch, direction: Direction, where: Where) -> _Carried:
        vector = np.atleast_2d(direction.array.numpy()).astype(float)
        site = str(direction.site)
        sides = [batch.clean, batch.corrupted] if _twinned(batch) else [batch.clean]
        means, parts, sizes = [], [], []
        for inputs in sides:
            run = net.run(inputs, keep=site)
            value = channels_last(run[site], run.axes(site)).double().cpu().numpy()
            if value.shape[-1] != vector.shape[1]:
                raise BadInput(f"expected a direction of {value.shape[-1]} channels at {site}; got {vector.shape[1]}")
            per_row = []
            for row in range(len(batch)):
                here = value[row][None] if value.ndim == 2 else value[row][
                    [p + run.layout.offsets[row] for p in run.layout.positions(where, row)]
                ]  # fmt: skip
                along = here @ vector[0] / np.linalg.norm(vector[0])
                parts.append(along)
                sizes.append(np.linalg.norm(here, axis=-1))
                per_row.append(along.mean() if len(along) else 0.0)
            means.append(np.array(per_row))
        along, size = np.concatenate(parts), np.concatenate(sizes)
        spread = float(along.std()) if len(vector) == 1 and len(along) else 0.0
        if spread <= STILL * max(float(size.mean()) if len(size) else 0.0, 1e-30):
            spread = 0.0
        return cls(spread, None if len(sides) < 2 else np.sign(np.round(means[1] - means[0], 9)))


def _twinned(batch: Batch) -> bool:
    clean, corrupted = batch.clean, batch.corrupted
    if isinstance(clean, Inputs) and isinstance(corrupted, Inputs):
        return clean.ids != corrupted.ids
    return any(not bool((v == corrupted.values[k]).all()) for k, v in clean.values.items())  # pyright: ignore


def _possible(task: Task, direction: Direction, method: Use, carried: _Carried) -> tuple[list[str], list[str]]:
    """The ways that make sense, and why others do not."""
    ways, remarks = [], []
    many = len(direction.array.shape) == 2 and direction.array.shape[0] > 1
    for way in method.ways:
        if way == SWAP and carried.towards is None:
            remarks.append("no swap: the task has no corrupted twins to take another component from")
        elif way == MOVE and many:
            remarks.append(f"no move: a subspace of {direction.array.shape[0]} dimensions has no one way to go")
        elif way == MOVE and carried.spread == 0:
            remarks.append("no move: examples do not vary along the direction, so no distance is natural")
        else:
            ways.append(way)
    if not ways:
        raise BadInput(f"expected a way that {task.name} allows; {'; '.join(remarks)}")
    return ways, remarks


def _scale(
    net: Network, task: Task, find: Batch, direction: Direction, where: Where, sign: float, memory: Any
) -> float:
    """What an effect is a share of: the gap between clean and corrupted runs, or else what the whole site is worth."""
    removed = measure(net, find, task.metric, [(Ablate(direction.site, where, how="mean"),)], memory=memory)
    if _twinned(find):
        corrupted = measure(
            net, find, task.metric, [(Ablate(direction.site, where, how="mean"),)], base="corrupted", memory=memory
        ).base
        return float(abs((removed.base - corrupted).mean()))
    return float(abs((removed.base - removed.values[0]).mean()))


def _cells(net: Network, direction: Direction, where: Where, way: str, step: float) -> list[tuple[Edit, ...]]:
    if way == REMOVE:
        return [(direction.project(where=where),)]
    if way == SWAP:
        return [(direction.swap("corrupted", where),)]
    vector = np.ravel(direction.array.numpy())
    return [(added(net, direction, vector, s * step, where),) for s in (1, -1)]


def added(net: Network, direction: Direction, vector: np.ndarray, size: float, where: Where) -> Add:
    """The edit that adds a vector of a length at the site of a direction, at every place of a picture."""
    axes = net.map.info(direction.site.path).axes
    unit = vector / np.linalg.norm(vector)
    after = len(axes) - 1 - axes.index("channel")
    return Add(direction.site, where, vector=Array.of(unit.reshape(-1, *[1] * after)), scale=size)


def _twins(
    net: Network, direction: Direction, cells: Sequence[tuple[Edit, ...]], way: str, step: float, count: int, seed: int
) -> list[list[tuple[Edit, ...]]]:
    """Controls of the cells of a way."""
    out: list[list[tuple[Edit, ...]]] = []
    rng = np.random.default_rng(seed)
    for number in range(count):
        if way != MOVE:
            out.append([(Twin(of=cells[0][0], seed=seed * 1_000_003 + number),)])
            continue
        vector = rng.normal(size=direction.array.shape[-1])
        where = cells[0][0].where
        out.append([(added(net, direction, vector, s * step, where),) for s in (1, -1)])
    return out


def _lost(
    base: Float[np.ndarray, " example"],
    values: Float[np.ndarray, "cell example"],
    towards: Float[np.ndarray, " example"] | None,
) -> Float[np.ndarray, " example"]:
    """What each example loses; of a move to two sides, half of what one side loses against the other."""
    if towards is None:
        return base - values[0]
    return towards * (values[1] - values[0]) / 2


def _leaning(net: Network, find: Batch, task: Task, cells: Any, sign: float, memory: Any) -> float:
    """The sign for which a move loses on the find split."""
    values = sign * measure(net, find, task.metric, cells, memory=memory).values
    return 1.0 if (values[1] - values[0]).mean() >= 0 else -1.0


def _summed(verdicts: Sequence[str]) -> str:
    if "supported" in verdicts:
        return "yes"
    return "no" if set(verdicts) == {"rejected"} else "undecided"


def _text(way: str, direction: Direction, task: Task, where: Where) -> str:
    at = f" at the tokens {where.group!r}" if where.group else ""
    what = direction.origin or "the direction"
    done = {REMOVE: "removing", SWAP: "swapping the component along", MOVE: "moving along"}[way]
    return f"{done} {what} at {direction.site}{at} changes {task.metric.name}"


def _said(used: str, direction: Direction) -> list[str]:
    what = direction.origin or "the direction"
    return [{
        "yes": f"used: the behaviour depends on {what}, more than on random directions",
        "no": f"not used: the behaviour does not depend on {what} more than on random directions",
        "undecided": f"whether {what} is used is undecided; the findings say what is missing",
    }[used]]  # fmt: skip


def _settings(method: Use, direction: Direction, task: Task) -> dict[str, Any]:
    knobs = asdict(replace(method, where=None))
    return {
        **knobs, "where": str(Where.of(method.where)), "site": str(direction.site), "direction": direction.origin,
        "task": task.name, "metric": task.metric.name,
    }  # fmt: skip


def _table(
    net: Network, task: Task, direction: Direction, ways: Sequence[str], rows: np.ndarray, controls: np.ndarray,
    used: str,
) -> Any:  # fmt: skip
    import xarray

    variables: dict[str, Any] = {name: ("way", values) for name, values in summary(rows).items()}
    variables["used_effect"] = (("way", "held_out_example"), rows)
    variables["control_effect"] = (("way", "control"), controls)
    attrs = {
        "network": net.name, "metric": task.metric.name, "unit": task.metric.unit, "site": str(direction.site),
        "used": used,
    }  # fmt: skip
    return xarray.Dataset(variables, {"way": list(ways)}, attrs)
