"""Path patching: what senders do to a behaviour through some receivers alone, with everything else frozen.

    patch_path(net, task, "blocks.0.attn.z[2]", "blocks.1.attn.k[7]")          # one set of senders and receivers
    patch_edges(net, task)                                                      # every edge, one by one
    patch_edges(net, task, Node(Site.parse("blocks.*.attn.z"), Where(group="last")), "logits")

Source: Wang et al. 2022, Interpretability in the Wild, section 3.1 and appendix B; Goldowsky-Dill et al. 2023,
Localizing Model Behavior with Path Patching, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from openwork.causal.candidates import Gap, require_twins, settings_of
from openwork.causal.controls import KIND
from openwork.causal.routes import Route, Router, Traffic, alike
from openwork.causal.wiring import Wiring, placed
from openwork.circuit import Node
from openwork.errors import BadInput, UnknownName
from openwork.finding import Criteria, Finding
from openwork.network.measure import Base, Tick, silent
from openwork.network.memory import parse_bytes
from openwork.network.sweep import effects as cell_effects
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.task import Split, Task

if TYPE_CHECKING:
    from openwork.network import Network

SENDERS = ("blocks.*.attn.z", "blocks.*.mlp.out")
RECEIVERS = ("blocks.*.attn.q|k|v", "blocks.*.mlp.in", "logits")
CONTROL = "random paths over as many layers between components of the same kinds"
UNMOVED = "no edge changes the metric of any example"


@dataclass(frozen=True)
class PathPatching:
    """How to patch paths.

    Args:
        way: ``noise``: the clean run in which senders take their corrupted values, which asks what is lost when a path
            carries something else; or ``denoise``, the other way round, which asks what comes back.
        mlps: ``frozen`` like all else between sender and receiver, or ``live``, so that they hand on what the sender
            does, as in Wang et al. 2022.
        claims: how many edges, the strongest on the find split, to claim on the held-out one.
        standard: what a claim must meet.
        seed: of the controls.

    Raises:
        BadInput: a knob outside its range.
    """

    way: Literal["noise", "denoise"] = "noise"
    mlps: Literal["frozen", "live"] = "frozen"
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.way not in ("noise", "denoise") or self.mlps not in ("frozen", "live") or self.claims < 0:
            raise BadInput(
                "expected way noise or denoise, mlps frozen or live, and no negative number of claims; got "
                f"{self.way!r}, {self.mlps!r} and {self.claims!r}"
            )

    @property
    def base(self) -> Base:
        """The inputs that run."""
        return "clean" if self.way == "noise" else "corrupted"


def patch_path(
    net: Network,
    task: Task,
    senders: Any,
    receivers: Any,
    method: PathPatching = PathPatching(),
    *,
    memory: str | int = "1GiB",
    tick: Tick = silent,
) -> Result:
    """Claim that senders act on a behaviour through a set of receivers, and measure it on held-out examples.

    (i) The senders get their values from the other inputs while every other contribution to the residual stream stays
    what it was, and what the receivers then read is recorded. (ii) The receivers are made to read just that, and
    everything else follows. The network runs as it is, so this holds under grouped queries, fused projections, norms
    behind sub-layers, parallel blocks and residual multipliers.

    Args:
        net: the network.
        task: the behaviour, with corrupted inputs.
        senders: sites, patterns or `Node`s (at some positions only): ``attn.z[3]`` (heads), ``attn.out``, ``mlp.out``,
            ``mlp.hidden[7]`` (units), ``embed``, and ``blocks.0.resid_pre`` for the embedding with positions.
        receivers: likewise ``attn.q[3]``; ``k`` and ``v`` (of key-value groups), ``attn.in``, ``mlp.in``,
            ``mlp.hidden[7]``, ``logits``.
        method: how.
        memory: a budget for what receivers read.
        tick: told the share that is done.

    Returns:
        one finding; and a table of the held-out split: ``value`` of the metric, ``effect`` of the path (larger: more is
        lost, or comes back) and ``total``, the effect of the senders through everything, all (example);
        ``control_effect`` (claim, control), the size of the mean effect of each random path.

    Raises:
        BadInput: for a site that is no sender or receiver, with the reason; a sender that no receiver reads, or a
            receiver that reads no sender; a budget that is too small.
        UnknownName: for a site or token group that does not exist.
        SiteRefused: for a site, or a contribution anywhere in the network, that failed its certificate.

    Units:
        those of the task's metric.

    Source:
        Wang et al. 2022, section 3.1 and appendix B; Goldowsky-Dill et al. 2023, section 2.
    """
    import xarray

    require_twins(task)
    wiring = Wiring.of(net, task.split("find").clean.take([0]))
    route = Route(tuple(wiring.senders(senders)), tuple(wiring.receivers(receivers)))
    route.check(wiring)
    router = _router(wiring, task, "held-out", method, memory, [*route.senders, *route.receivers])
    criteria = _criteria(net, task, method)
    others = alike(wiring, route, criteria.controls_needed, np.random.default_rng(method.seed))
    found = router.measure([route, *others], [route.senders], tick)
    settings = _settings(task, method, route.senders, route.receivers)
    text = f"{route} carries {task.name}"
    candidate = _candidate(router, route, text, found.effects[0], found.effects[1:], criteria, method.seed)
    findings = claimed(Claims(net, task, settings, method.seed), criteria, [candidate], CONTROL)
    variables = {
        "value": ("example", found.values[0]),
        "effect": ("example", found.effects[0]),
        "total": ("example", found.totals[0]),
        "claimed": ("claim", [text]),
        "control_effect": (("claim", "control"), candidate.controls[None]),
    }
    table = xarray.Dataset(variables, _coordinates(found), _attributes(net, task, method, "held-out"))
    return Result("path patching", findings, table, settings)


def patch_edges(
    net: Network,
    task: Task,
    senders: Any = SENDERS,
    receivers: Any = RECEIVERS,
    method: PathPatching = PathPatching(),
    *,
    memory: str | int = "1GiB",
    tick: Tick = silent,
) -> Result:
    """Measure every edge from a sender to a later receiver, and claim the strongest ones on held-out examples.

    Args:
        net: the network.
        task: the behaviour, with corrupted inputs.
        senders: as in `patch_path`; each head is a sender of its own. Patterns without match are left out where another
            has one, as there may be no MLPs.
        receivers: as in `patch_path`; each head, or group of keys and values, is a receiver of its own.
        method: how.
        memory: a budget for what receivers read; all edges from as many senders run together as it holds.
        tick: told the share that is done.

    Returns:
        the findings; and a table of the find split: ``value`` of the metric (sender, receiver, example); ``effect``,
        ``low``, ``high``, ``p`` and ``share`` of the gap between clean and corrupted (sender, receiver), NaN where
        there is no edge; ``exists`` (sender, receiver); ``total`` (sender, example), the effect through everything.
        What was claimed has the axes ``claim``, ``held_out_example`` and ``control``.

    Raises:
        BadInput, UnknownName, SiteRefused: as `patch_path`.

    Units:
        those of the task's metric; ``share`` is a fraction.

    Source:
        as `patch_path`, with one sender and one receiver.
    """
    import xarray

    require_twins(task)
    wiring = Wiring.of(net, task.split("find").clean.take([0]))
    writers = wiring.senders(_present(net, senders), apart=True)
    readers = wiring.receivers(_present(net, receivers), apart=True)
    router = _router(wiring, task, "find", method, memory, [*writers, *readers])
    exists = np.array([[wiring.exists(s, r) for r in readers] for s in writers])
    if not exists.any():
        raise BadInput(f"expected a receiver that reads a sender; {readers[0]} and all others read nothing of these")
    routes = [Route((writers[s],), (readers[r],)) for s, r in np.argwhere(exists)]
    found = router.measure(routes, [(sender,) for sender in writers], tick)
    settings = _settings(task, method, writers, readers)
    claims = Claims(net, task, settings, method.seed)
    findings, variables = _strongest(wiring, task, routes, found, claims, method, memory)
    values, change = (np.full((*exists.shape, found.values.shape[1]), np.nan) for _ in range(2))
    values[exists], change[exists] = found.values, found.effects
    both, summary = ("sender", "receiver"), cell_effects(change)
    variables |= {name: (both, x) for name, x in summary.items()}
    variables |= {
        "value": ((*both, "example"), values),
        "share": (both, summary["effect"] / (found.gap.scale or np.nan)),
        "exists": (both, exists),
        "total": (("sender", "example"), found.totals),
    }
    coords = {
        "sender": [str(node) for node in writers],
        "receiver": [str(node) for node in readers],
        "sender_layer": ("sender", [-1 if n.site.path in ("embed", wiring.start) else n.site.block for n in writers]),
        "receiver_layer": ("receiver", [net.n_blocks if n.site.block is None else n.site.block for n in readers]),
        **_coordinates(found),
    }
    table = xarray.Dataset(variables, coords, _attributes(net, task, method, "find"))
    nothing = method.claims and not np.nan_to_num(change).any()
    return Result("path patching, edge by edge", findings, table, settings, (UNMOVED,) if nothing else ())


def _strongest(
    wiring: Wiring,
    task: Task,
    routes: Sequence[Route],
    found: Traffic,
    claims: Claims,
    method: PathPatching,
    memory: str | int,
) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    """Claims about the strongest edges of the find split, on the held-out one."""
    mean = found.effects.mean(-1)
    top = [int(i) for i in np.argsort(-np.abs(mean), kind="stable")[: method.claims] if mean[i]]
    if not top:
        return (), {}
    criteria, random = _criteria(wiring.net, task, method), np.random.default_rng(method.seed)
    others = [alike(wiring, routes[i], criteria.controls_needed, random) for i in top]
    every = list(dict.fromkeys([*(routes[i] for i in top), *(route for some in others for route in some)]))
    nodes = [node for route in every for node in (*route.senders, *route.receivers)]
    router = _router(wiring, task, "held-out", method, memory, nodes)
    effect_of = dict(zip(every, router.measure(every).effects, strict=True))
    candidates = []
    for i, some in zip(top, others, strict=True):
        route, sign = routes[i], np.sign(mean[i])
        text = f"{route} {'carries' if sign > 0 else 'works against'} {task.name}"
        rest = np.array([effect_of[other] for other in some]).reshape(len(some), len(effect_of[route]))
        candidates.append(_candidate(router, route, text, sign * effect_of[route], rest, criteria, method.seed + i))
    held = held_out_table(
        [c.text for c in candidates], *([getattr(c, x) for c in candidates] for x in ("effects", "controls"))
    )
    return claimed(claims, criteria, candidates, CONTROL), held


def _candidate(
    router: Router,
    route: Route,
    text: str,
    effects: Float[np.ndarray, " example"],
    others: Float[np.ndarray, "route example"],
    criteria: Criteria,
    seed: int,
) -> Candidate:
    """A claim about a route, against others of its shape, or against twins of it where there are too few of these."""
    if len(others) >= criteria.controls_needed:
        return Candidate(text, effects, np.abs(others.mean(-1)))
    twins = router.twins(route, criteria.controls_needed, seed)
    return Candidate(text, effects, np.abs(twins), f"{KIND}, read along the path")


def _router(
    wiring: Wiring, task: Task, split: Split, method: PathPatching, memory: str | int, nodes: Sequence[Node]
) -> Router:
    batch = task.split(split)
    for inputs in (batch.clean, batch.corrupted):
        placed(wiring.net, inputs, nodes)
    return Router(wiring, batch, task.metric, method.base, method.mlps, parse_bytes(memory))


def _present(net: Network, patterns: Any) -> list[Any]:
    """The patterns that select anything, where one of several does; or else all, left to their errors."""
    if isinstance(patterns, (str, Site, Node)):
        return [patterns]
    several = list(patterns)
    return [p for p in several if not _selects_nothing(net, p)] or several


def _selects_nothing(net: Network, pattern: Any) -> bool:
    if not isinstance(pattern, str) or "*" not in pattern:
        return False
    try:
        net.select(pattern)
    except UnknownName:
        return True
    return False


def _criteria(net: Network, task: Task, method: PathPatching) -> Criteria:
    return method.standard.criteria(Gap.of(net, task.split("find"), task.metric).scale, task.metric.unit)


def _settings(task: Task, method: PathPatching, senders: Sequence[Node], receivers: Sequence[Node]) -> dict[str, Any]:
    named = {"senders": [str(n) for n in senders], "receivers": [str(n) for n in receivers]}
    return settings_of(method, task=task.name, metric=task.metric.name, **named)


def _attributes(net: Network, task: Task, method: PathPatching, split: Split) -> dict[str, Any]:
    return {
        "metric": task.metric.name, "unit": task.metric.unit, "network": net.name, "way": method.way,
        "mlps": method.mlps, "split": split,
    }  # fmt: skip


def _coordinates(found: Traffic) -> dict[str, Any]:
    assert found.gap.corrupted is not None
    clean, corrupted = (found.gap.sign * x for x in (found.gap.clean, found.gap.corrupted))
    edges = {"base": found.base, "clean": clean, "corrupted": corrupted}
    return {"example": np.arange(len(found.base)), **{name: ("example", x) for name, x in edges.items()}}
