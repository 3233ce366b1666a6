"""Ablation: what the network loses without a part of it.

    ablate(net, task)                                                   # heads and MLPs, their mean on the find split
    ablate(net, task, "blocks.*.attn.z", Ablation(Replacing("mean", by=("position",))))
    ablate(net, task, {"circuit": ["blocks.0.attn.z[1]", "blocks.1.attn.z[4]"]}, Ablation(Replacing("resample")))
    ablate(net, task, method=Ablation(optimal=Optimal()))               # the constant that does least harm

Source: zero and mean: Olsson et al. 2022, Wang et al. 2022; resampling: Chan et al. 2022; optimal ablation: Li and
Janson 2024, Optimal ablation for interpretability.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.causal.candidates import Gap, settings_of
from openwork.causal.controls import KIND, Twins
from openwork.causal.parts import Components, Part, coordinates, parts_of
from openwork.causal.replacing import Replacement, Replacing, real
from openwork.edit import Array, Edit, Set
from openwork.errors import BadInput
from openwork.evidence import benjamini_hochberg
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.network.ports import select
from openwork.network.run import Run
from openwork.network.sweep import effects
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Where
from openwork.task import Batch, Split, Task

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Optimal:
    """Learn, for each part, the constant under which the output changes least, instead of a fixed replacement.

    Args:
        steps: of Adam, from the mean of the find examples.
        rate: learning rate, in standard deviations of the part's values.

    Source:
        Li and Janson 2024, optimal ablation: the constant a that minimises E L(M with A = a). The loss L is the
        Kullback-Leibler divergence of the ablated from the unedited answer distribution, in nats.
    """

    steps: int = 60
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rate > 0:
            raise BadInput(f"expected at least one step and a rate above 0; got {self.steps} and {self.rate}")


@dataclass(frozen=True)
class Ablation:
    """How to ablate.

    Args:
        replacing: what parts are replaced with.
        optimal: learn a constant for each part instead, starting from its mean.
        claims: how many parts, those with the largest effects on the find split, to claim on the held-out one.
        standard: what a claim must meet.
        seed: of control directions and intervals.
    """

    replacing: Replacing = field(default_factory=Replacing)
    optimal: Optimal | None = None
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.claims < 0:
            raise BadInput(f"expected no negative number of claims; got {self.claims}")
        if self.optimal is not None and self.replacing != Replacing():
            raise BadInput("expected either replacing= or optimal=: a learned constant replaces nothing else")


def ablate(
    net: Network,
    task: Task,
    components: Components = None,
    method: Ablation = Ablation(),
    *,
    where: Any = None,
    labels: Sequence[Hashable] | None = None,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Ablate parts one by one, fit everything on the find split, and claim the largest effects on the held-out one.

    Args:
        net: the network.
        task: the behaviour; its clean inputs are edited.
        components: what to ablate, as in `openwork.causal.parts.parts_of`.
        method: how.
        where: positions or a token group; everywhere unless given.
        labels: the class of each example of the task, for means by class.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        the findings, none where the network does not tell clean from corrupted; and a table with the axes
        ``component`` (with ``layer``, ``kind`` and ``index``) and ``example``: ``value`` of the metric, averaged over
        draws; over examples, ``effect`` (what is lost: larger, more harm) with ``low`` and ``high``, ``p`` and ``q``
        adjusted for all components. With a learned constant, ``loss`` (component, step) in nats. What was claimed has
        the axes ``claim``, ``held_out_example`` and ``control``.

    Raises:
        UnknownName: for a component or token group that does not exist.
        BadInput: if nothing is selected, labels are missing, or a class or position was not seen on the find split.
        EditMissed: if `where` is empty in every example.

    Units:
        those of the metric.

    Source:
        Li and Janson 2024 compare them.
    """
    parts, place = parts_of(net, components), Where.of(where)
    fitted = _Fitted.of(net, task, parts, place, method, labels)
    find = task.split("find")
    gap = Gap.of(net, find, task.metric)
    change, values = fitted.losses(find, "find", parts, gap, memory, tick)
    table = _table(parts, values, change, gap)
    if fitted.loss is not None:
        table["loss"] = (("component", "step"), fitted.loss)
    mean = np.nan_to_num(np.abs(table["effect"].to_numpy()))
    chosen = [parts[i] for i in np.argsort(-mean, kind="stable")[: method.claims if gap.open else 0]]
    settings = settings_of(
        method, components=[part.name for part in parts], where=str(place), task=task.name, metric=task.metric.name,
        scale=gap.of_what,
    )  # fmt: skip
    claims = Claims(net, task, settings, method.seed)
    signs = {part.name: float(np.sign(np.nansum(change[i])) or 1.0) for i, part in enumerate(parts)}
    findings, held = _claims(fitted, chosen, signs, gap.scale, claims)
    table = table.assign(held)
    table.attrs.update(
        metric=task.metric.name, unit=task.metric.unit, network=net.name, how=fitted.how, scale=gap.scale,
    )  # fmt: skip
    return Result("ablation", findings, table, settings, () if gap.open else (gap.closed,))


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Everything that was fitted on the find split."""

    net: Network
    task: Task
    where: Where
    method: Ablation
    replacement: Replacement
    constants: dict[str, tuple[Array, ...]]
    loss: Float[np.ndarray, "component step"] | None = None

    @classmethod
    def of(
        cls,
        net: Network,
        task: Task,
        parts: Sequence[Part],
        where: Where,
        method: Ablation,
        labels: Sequence[Hashable] | None,
    ) -> _Fitted:
        replacement = Replacement(net, task, parts, method.replacing, labels)
        fitted = cls(net, task, where, method, replacement, {})
        if method.optimal is None:
            return fitted
        learned = [
            optimal_constants(net, task.split("find"), replacement, part, where, method.optimal) for part in parts
        ]
        constants = {part.name: found for part, (found, _) in zip(parts, learned, strict=True)}
        return replace(fitted, constants=constants, loss=np.stack([loss for _, loss in learned]))

    @property
    def how(self) -> str:
        """What parts are replaced with, in words."""
        replacing = self.method.replacing
        if self.constants:
            return "optimal constant"
        return replacing.how + (f" by {' and '.join(replacing.by)}" if replacing.by else "")

    @property
    def draws(self) -> int:
        return 1 if self.constants else self.method.replacing.draws

    def edits(self, part: Part, draw: int) -> tuple[Edit, ...]:
        """What ablates one part."""
        if self.constants:
            found = zip(part.sites, self.constants[part.name], strict=True)
            return tuple(Set(site, self.where, value) for site, value in found)
        return self.replacement.edits(part, draw, self.where)

    def sources(self, split: Split) -> dict[str, Run]:
        return {} if self.constants else self.replacement.sources(split)

    def losses(
        self,
        batch: Batch,
        split: Split,
        parts: Sequence[Part],
        gap: Gap,
        memory: str | int | None = None,
        tick: Tick = silent,
    ) -> tuple[Float[np.ndarray, "component example"], Float[np.ndarray, "component example"]]:
        """What each example loses without each part (NaN where it has no such place), and the metric itself."""
        cells = [self.edits(part, draw) for draw in range(self.draws) for part in parts]
        found = measure(self.net, batch, self.task.metric, cells, sources=self.sources(split), memory=memory, tick=tick)
        reached = found.reached[: len(parts)]
        values = np.where(reached, found.values.reshape(self.draws, len(parts), -1).mean(0), np.nan)
        return gap.clean - gap.sign * values, values


def _table(parts: Sequence[Part], values: np.ndarray, change: np.ndarray, gap: Gap) -> Any:
    import xarray

    summary = effects(change)
    summary["q"] = benjamini_hochberg(np.nan_to_num(summary["p"], nan=1.0))
    variables: dict[str, Any] = {name: ("component", x) for name, x in summary.items()}
    variables["value"] = (("component", "example"), values)
    coords = {**coordinates(parts), "example": np.arange(values.shape[1])}
    return xarray.Dataset(variables, {**coords, "clean": ("example", gap.sign * gap.clean)})


def _claims(
    fitted: _Fitted, parts: Sequence[Part], signs: dict[str, float], scale: float, claims: Claims
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The findings about some parts on the held-out split, and the numbers behind them."""
    if not parts:
        return (), {}
    net, task, method = fitted.net, fitted.task, fitted.method
    batch = task.split("held-out")
    gap = Gap.of(net, batch, task.metric)
    change, _ = fitted.losses(batch, "held-out", parts, gap)
    criteria = method.standard.criteria(scale, task.metric.unit)
    sources = fitted.sources("held-out")
    candidates, controls = [], []
    for number, part in enumerate(parts):
        sign, here = signs[part.name], ~np.isnan(change[number])
        share = -(-criteria.controls_needed // fitted.draws)
        means: list[float] = []
        for draw in range(fitted.draws):
            seed = (method.seed * 1009 + number) * 1009 + draw
            twins = Twins(net, batch, "clean", fitted.edits(part, draw), sources, seed=seed)
            lost = gap.clean - gap.sign * twins.measure(task.metric, share)[0]
            means += (sign * lost[:, here].mean(1)).tolist()
        controls.append(means)
        does = "lowers" if sign > 0 else "raises"
        text = f"ablating {part.name} ({fitted.how}) {does} {task.metric.name}"
        if gap.sign < 0:
            text += " (of which less is better) in effect"
        candidates.append(Candidate(text, sign * change[number][here], np.array(means)))
    return claimed(claims, criteria, candidates, KIND), held_out_table([c.text for c in candidates], change, controls)


def optimal_constants(
    net: Network, batch: Batch, replacement: Replacement, part: Part, where: Where, optimal: Optimal
) -> tuple[tuple[Array, ...], Float[np.ndarray, " step"]]:
    """The constants that change the answer distribution least when they stand at a part's sites.

    Args:
        net: the network.
        batch: the examples to learn from.
        replacement: of which the means are the start.
        part: what is replaced.
        where: at which tokens.
        optimal: knobs.

    Returns:
        one constant a site, of the shape of its part without example and position, of the step with the least loss; and
        the mean loss of each step, in nats.

    Source:
        Li and Janson 2024, optimal ablation.
    """
    clean = _answers(batch, net.run(batch.clean).logits).log_softmax(-1)
    info = [net.map.info(site.path) for site in part.sites]
    starts, sizes, keep = [], [], [str(site) for site in part.sites]
    if len({site.path for site in part.sites}) < len(part.sites):
        raise BadInput(
            f"expected one site for each path in the set {part.name!r}, to learn constants; name heads together"
        )
    for site, found in zip(part.sites, info, strict=True):
        lead = 2 if found.axes[:2] == ("batch", "position") else 1
        mean = replacement.mean(site.path)
        starts.append(select(mean[(None,) * lead], found.part_axis, site.index)[(0,) * lead].clone())
        sizes.append(float(select(replacement.find[site.path], found.part_axis, site.index).float().std()) or 1.0)
    values = [start.requires_grad_() for start in starts]
    groups = [{"params": [v], "lr": optimal.rate * s} for v, s in zip(values, sizes, strict=True)]
    adam = torch.optim.Adam(groups)
    best, kept, losses = np.inf, [v.detach().clone() for v in values], []
    for _ in range(optimal.steps):
        edits = [Set(site, where, Array.of(v)) for site, v in zip(part.sites, values, strict=True)]

        def divergence(run: Run) -> Tensor:
            ablated = _answers(batch, run.logits).log_softmax(-1)
            return (clean.exp() * (clean - ablated)).sum(-1)

        run = net.run(batch.clean, keep=keep, edits=edits, grads=divergence)
        assert run.metric is not None
        losses.append(float(run.metric.mean()))
        if losses[-1] < best:
            best, kept = losses[-1], [v.detach().clone() for v in values]
        for v, site, found in zip(values, part.sites, info, strict=True):
            grad = run.grads[str(site)].float()
            mask = run.layout.mask(where, grad.shape[1], 0) if _aligned(net, site.path, run) else None
            if _aligned(net, site.path, run):
                mask = real(run.layout) if mask is None else mask & real(run.layout)
            if mask is not None:
                grad = grad * mask.to(grad).reshape(*mask.shape, *[1] * (grad.ndim - 2))
            v.grad = (grad.flatten(0, 1) if found.axes[:2] == ("batch", "position") else grad).sum(0) / len(batch)
        adam.step()
    return tuple(Array.of(v) for v in kept), np.array(losses)


def _aligned(net: Network, path: str, run: Run) -> bool:
    """Whether the site's second axis are the positions of the inputs."""
    return net.map.info(path).axes[:2] == ("batch", "position") and net.map.layout_at(path, run.layout) is not None


def _answers(batch: Batch, logits: Tensor) -> Float[Tensor, "example vocabulary"]:
    """The logits from which the answer of each example is read."""
    if logits.ndim == 3:
        rows = torch.arange(len(batch), device=logits.device)
        logits = logits[rows, torch.tensor(batch.at, device=logits.device)]
    return logits.float()
