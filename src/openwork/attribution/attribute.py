"""Attribute a behaviour to the parts of its input, and claim which tokens a method puts it down to.

    attribute(net, task, IntegratedGradients(steps=32))
    attribute(net, task, RelP(site="blocks.*.attn.z"))
    attribute(net, task, [METHODS["relp"], METHODS["occlusion"]], Attributing(groups=("subject",)))

Source: for each method, its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.attribution.contextual import ContextualDecomposition
from openwork.attribution.gradient import SLOPED, RelP
from openwork.attribution.groups import Groups, excess, random_rows, shuffled, token_groups
from openwork.attribution.integrated import IntegratedGradients
from openwork.attribution.method import Attribution, Method, Tick, silent
from openwork.attribution.perturbing import PERTURBING
from openwork.attribution.rollout import AttentionRollout, GradientRollout
from openwork.errors import BadInput, OpenworkError
from openwork.evidence import studentised_interval
from openwork.finding import Finding
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.task import Batch, Inputs, Task

if TYPE_CHECKING:
    from openwork.network import Network

USUAL = IntegratedGradients()
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(kind() for kind in SLOPED),
        USUAL,
        *(kind() for kind in PERTURBING),
        AttentionRollout(),
        GradientRollout(),
        ContextualDecomposition(),
    )
}
"""Every method with its usual knobs, by name."""
CONTROL = "as many random tokens of each example"
ASKED = 0.01
"""The largest part of a promised sum that may be missing before it is remarked on."""
SHORT = {RelP.name: ": what biases and embeddings of positions add"}
"""What is missing to a sum, where it is known."""


@dataclass(frozen=True)
class Attributing:
    """What is claimed of an attribution.

    Args:
        groups: the token groups among which the decisive one is looked for on the find split; all of the task's, and
            ``changed``, unless given.
        claims: how many groups, those with most attribution on the find split, to claim on the held-out one, for each
            method.
        standard: what a claim must meet; `min_share` is the smallest excess of a group's share of the attribution over
            its share of the tokens.
        seed: of random tokens, shuffled weights and intervals.
    """

    groups: tuple[str, ...] = ()
    claims: int = 1
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.claims < 0:
            raise BadInput(f"expected no negative number of claims; got {self.claims}")


def attribute(
    net: Network,
    task: Task,
    method: Method | Sequence[Method] = USUAL,
    about: Attributing = Attributing(),
    *,
    tick: Tick = silent,
) -> Result:
    """Attribute the metric of each find example, choose the token group with most of it, claim that on held-out ones.

    The claim is about what the method says: the group's share of |attribution|, less its share of the tokens, less what
    the same method gives it on a copy of the network whose weights are shuffled; against as many random tokens. Whether
    the network depends on these tokens is for interventions to say (`openwork.causal.patch`, `openwork.faithfulness`).

    Args:
        net: the network.
        task: the behaviour.
        method: one method or several.
        about: what is claimed.
        tick: told the share that is done.

    Returns:
        the findings; and a table with the axes ``explainer`` (the method), ``example`` and ``position`` (``y`` and
        ``x`` for images): ``attribution`` of the find examples, ``token`` their text, ``promised`` sums and their
        ``residual`` where a method promises one; with token groups ``share``, what each has of the |attribution|
        beyond its share of the tokens, with ``share_low`` and ``share_high``. One method at a site with further axes
        has ``by_part`` as well.

    Raises:
        SiteRefused: if the network lacks what a method needs.
        UnknownName: for a token group that does not exist.
        BadInput: for inputs that do not fit.

    Units:
        those of the metric, unless a method says otherwise; shares are of one.

    Source:
        Adebayo et al. 2018 for the control with shuffled weights.
    """
    methods = [method] if isinstance(method, Method) else list(method)
    names = [one.name for one in methods]
    if not methods or len({*names}) < len(names):
        raise BadInput(f"expected one method or several different ones; got {names}")
    find = task.split("find")
    groups = token_groups(find, about.groups) if isinstance(find.clean, Inputs) else {}
    held = task.split("held-out") if about.claims and groups else None
    steps = _Steps(tick, len(methods) * (1 if held is None else 3))
    found = {one.name: one.attribute(net, find, task.metric, steps.next()) for one in methods}
    settings = {
        "methods": [one.settings for one in methods], **{k: v for k, v in asdict(about).items() if k != "seed"},
        "task": task.name, "metric": task.metric.name, "seed": about.seed,
    }  # fmt: skip
    table, remarks = _table(net, find, found, groups)
    findings: tuple[Finding, ...] = ()
    if held is not None:
        claims = Claims(net, task, _plain(settings), about.seed)
        findings, more = _claims(net, held, task, methods, found, groups, about, claims, steps)
        remarks += more
    elif about.claims:
        remarks.append("the task names no token groups, so nothing is claimed")
    table.attrs.update(metric=task.metric.name, unit=task.metric.unit, network=net.name)
    title = f"attribution by {names[0]}" if len(names) == 1 else "attribution side by side"
    return Result(title, findings, table, _plain(settings), tuple(remarks))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class _Steps:
    """Progress of several calls, one after the other."""

    def __init__(self, tick: Tick, total: int):
        self.tick, self.total, self.done = tick, total, -1

    def next(self) -> Tick:
        """The progress of the next call."""
        self.done += 1
        start = self.done
        return lambda share: self.tick((start + share) / self.total)


def _table(net: Network, batch: Batch, found: dict[str, Attribution], groups: Groups) -> tuple[Any, list[str]]:
    import xarray

    remarks: list[str] = []
    variables: dict[str, Any] = {}
    several = list(found.values())
    images = all("x" in one.axes for one in several)
    positioned = [{"position", "key"} & {*one.axes} for one in several]
    if images:
        stack = [one.values.sum(tuple(range(1, one.values.ndim - 2))) for one in several]
        variables["attribution"] = (("explainer", "example", "y", "x"), np.stack(stack))
    elif all(positioned):
        stack = [one.by_position() for one in several]
        variables["attribution"] = (("explainer", "example", "position"), np.stack(stack))
        if isinstance(batch.clean, Inputs):
            variables["token"] = (("example", "position"), _tokens(net, batch.clean, stack[0].shape[1]))
    first = several[0]
    if len(several) == 1 and first.axes not in (("example", "position"), ("example", "y", "x")):
        variables["by_part"] = (first.axes, first.values)
    coords: dict[str, Any] = {"explainer": list(found), "example": np.arange(len(batch))}
    if "sites" in first.notes and "site" in first.axes:
        coords["site"] = first.notes["sites"]
    for name, one in found.items():
        if one.promised is None or one.residual is None:
            continue
        off = np.abs(one.residual) > ASKED * np.abs(one.promised).clip(1e-12)
        if off.any():
            remarks.append(
                f"{name}: in {int(off.sum())} of {len(off)} examples the values miss what they should add up to by "
                f"more than {ASKED:.0%}, at most by {np.abs(one.residual).max():.3g}{SHORT.get(name, '')}"
            )
    if any(one.promised is not None for one in several):
        empty = np.full(len(batch), np.nan)
        for key in ("promised", "residual"):
            values = [empty if getattr(one, key) is None else getattr(one, key) for one in several]
            variables[key] = (("explainer", "example"), np.stack(values))
    if groups and all(positioned):
        variables |= _shares(several, groups)
        coords["group"] = list(groups)
    return xarray.Dataset(
        variables, {k: v for k, v in coords.items() if any(k in d for d, _ in variables.values())}
    ), remarks


def _tokens(net: Network, inputs: Inputs, width: int) -> np.ndarray:
    """The text of each token; its id where the network has no tokenizer."""
    out = np.full((len(inputs), width), "", dtype=object)
    for row, ids in enumerate(inputs.ids):
        out[row, : len(ids)] = net.tokens(ids) if net.tokenizer is not None else [str(i) for i in ids]
    return out.astype(str)


def _shares(several: Sequence[Attribution], groups: Groups) -> dict[str, Any]:
    """The excess share of each group with its 95 % interval over the examples that have it."""
    ends = np.full((3, len(several), len(groups)), np.nan)
    for i, one in enumerate(several):
        scores = one.by_position()
        for j, rows in enumerate(groups.values()):
            values = excess(scores, rows)
            values = values[~np.isnan(values)]
            if len(values) > 1:
                interval = studentised_interval(values, level=0.95, resamples=999, seed=0)
                ends[:, i, j] = interval.estimate, interval.low, interval.high
    axes = ("explainer", "group")
    return {name: (axes, end) for name, end in zip(("share", "share_low", "share_high"), ends, strict=True)}


def _claims(
    net: Network, batch: Batch, task: Task, methods: Sequence[Method], found: dict[str, Attribution], groups: Groups,
    about: Attributing, claims: Claims, steps: _Steps,
) -> tuple[tuple[Finding, ...], list[str]]:  # fmt: skip
    """The findings about the groups with most attribution, judged together."""
    remarks: list[str] = []
    criteria = about.standard.criteria(1.0, "share of the attribution")
    held = token_groups(batch, tuple(groups))
    lengths = batch.clean.lengths if isinstance(batch.clean, Inputs) else ()
    generator = np.random.default_rng(about.seed)
    try:
        untrained = shuffled(net, about.seed)
    except OpenworkError as error:
        untrained = None
        remarks.append(f"there is no copy with shuffled weights to compare with: {error}")
    candidates = []
    for method in methods:
        scores = found[method.name].by_position()
        means = {name: np.nanmean(excess(scores, rows)) for name, rows in groups.items()}
        chosen = sorted(means, key=lambda name: -means[name])[: about.claims]
        own = method.scores(net, batch, task.metric, steps.next())
        try:
            other = None if untrained is None else method.scores(untrained, batch, task.metric, steps.next())
        except OpenworkError as error:
            other = None
            remarks.append(f"{method.name} fails on a copy with shuffled weights: {error}")
        for name in chosen:
            rows = held[name]
            draws = [random_rows(rows, lengths, generator) for _ in range(criteria.controls_needed)]
            effects = _beyond(own, other, rows)
            controls = np.array([np.nanmean(_beyond(own, other, draw)) for draw in draws])
            text = f"{method.name} puts {task.metric.name} on {task.name} down to the tokens {name!r}"
            candidates.append(Candidate(text, effects[~np.isnan(effects)], controls))
    return claimed(claims, criteria, candidates, CONTROL), remarks


def _beyond(own: np.ndarray, other: np.ndarray | None, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """What some tokens have of the attribution beyond their number, and beyond what shuffled weights give them."""
    found = excess(own, rows)
    return found if other is None else found - np.maximum(excess(other, rows), 0)
