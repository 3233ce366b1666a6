"""Causal tracing: noise on the subject's embeddings breaks a behaviour; which clean states bring it back?

    trace(net, task, "subject")                                         # Meng et al.: layer by role of the token
    trace(net, task, "subject", ["subject", "last"], Tracing(window=1)) # FCCT: component by layer by token group
    trace(net, task, "subject", method=Tracing(severed=("mlp.out",)))   # with the path through later MLPs cut

Source: Meng et al. 2022, Locating and editing factual associations in GPT, section 2 and appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.causal.candidates import Gap, recoveries, settings_of, sign_of
from openwork.causal.controls import KIND, Twins
from openwork.causal.patch import said
from openwork.edit import Edit, Patch
from openwork.errors import BadInput, UnknownName
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.network.run import Run
from openwork.network.sweep import effects
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Where
from openwork.task import Batch, Inputs, Split, Task

if TYPE_CHECKING:
    from openwork.network import Network

KINDS = ("resid_post", "mlp.out", "attn.out")
AFTER = ("next token", "further tokens", "answer")


@dataclass(frozen=True)
class Tracing:
    """How to trace.

    Args:
        noise: standard deviation of the noise in standard deviations of the group's embeddings.
        samples: how many draws of noise are averaged over.
        kinds: what is restored: ``resid_post``, ``mlp.out``, ``attn.out``; those that the network has unless given.
        window: how many layers of ``mlp.out`` or ``attn.out`` are restored at once, centred on each; states of the
            residual stream are restored singly.
        severed: kinds of contributions that later layers keep from the noised run at the restored tokens, while a
            state of the residual stream is restored: what then still comes back went another way.
        claims: how many places of each kind, the best on the find split, to claim on the held-out one.
        standard: what a claim must meet; shares are of the total effect.
        seed: of noise, control directions and intervals.
    """

    noise: float = 3.0
    samples: int = 10
    kinds: tuple[str, ...] | None = None
    window: int = 10
    severed: tuple[str, ...] = ()
    claims: int = 1
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.noise > 0 or self.samples < 1 or self.window < 1 or self.claims < 0:
            raise BadInput(
                f"expected noise above 0, at least one sample and a window of at least one layer; got noise "
                f"{self.noise}, {self.samples} samples, window {self.window}, {self.claims} claims"
            )
        if self.kinds is not None and not self.kinds:
            raise BadInput("expected at least one kind of state to restore; got none")


def trace(
    net: Network,
    task: Task,
    group: str = "subject",
    places: Sequence[str | int] | None = None,
    method: Tracing = Tracing(),
    *,
    memory: str | int | None = None,
    tick: Tick = silent,
) -> Result:
    """Noise the embeddings of a token group, restore single states or windows of layers, and see what comes back.

    Args:
        net: the network.
        task: the behaviour; its corrupted inputs are not used.
        group: the token group whose embeddings get noise.
        places: the token groups or positions at which states are restored; unless given, the roles of Meng et al.: the
            group's first, middle and last tokens, the next one, further ones and the one where the answer is read.
        method: how.
        memory: a budget for what runs at once.
        tick: told the share that is done.

    Returns:
        the findings; and a table with the axes ``kind``, ``layer``, ``place`` and ``example``: ``value``, the metric
        averaged over noise; over examples, ``indirect`` effect (restored − noised) with ``low``, ``high`` and ``p``;
        ``direct`` effect (clean − restored), what the noise does with the state held at its clean value; ``recovery``
        with its interval, the indirect as a share of the total effect; ``n`` examples. ``total`` (example) is clean −
        noised, ``clean`` and ``noised`` the metric itself. What was claimed has the axes ``claim``,
        ``held_out_example`` and ``control``. Layers of a window are named by its centre.

    Raises:
        UnknownName: for a token group or kind that does not exist.
        BadInput: for inputs without tokens, or a group that is empty in every example.

    Units:
        those of the metric; ``recovery`` is a fraction of the mean total effect.

    Source:
        total, indirect and average indirect effect: Meng et al. 2022, section 2.1; the direct effect: Pearl 2001, with
        the restored state as the mediator; severing: Meng et al. 2022, figure 3; with ``window=1``, ``recovery`` over
        component, layer and token group is the recovery rate RR of FCCT.
    """
    scope = _Scope.of(net, task, group, places, method)
    cells = scope.cells()
    found = _Traced.of(scope, "find", cells, memory, tick)
    chosen = _best(found, scope, cells) if found.gap.open else []
    settings = settings_of(
        method, group=group, places=list(map(str, scope.places)), task=task.name, metric=task.metric.name,
        noise_sd=scope.spread,
    )  # fmt: skip
    claims = Claims(net, task, settings, method.seed)
    findings, held = _claims(scope, [cells[i] for i in chosen], found.gap.scale, claims)
    table = _table(scope, cells, found).assign(held)
    table.attrs.update(
        metric=task.metric.name, unit=task.metric.unit, network=net.name, group=group, noise=method.noise,
        noise_sd=scope.spread, window=method.window,
    )  # fmt: skip
    remarks = () if found.gap.open else (found.gap.closed.replace("corrupted", "noised"),)
    return Result("causal tracing", findings, table, settings, remarks)


@dataclass(frozen=True)
class _Cell:
    """One state, or window of layers, restored at one place."""

    kind: str
    layer: int
    place: str | int
    restored: tuple[Edit, ...]
    severed: tuple[str, ...] = ()
    """Sites that stay as they are in the noised run, at the same place."""

    @property
    def where(self) -> Where:
        return Where.of(self.place)


@dataclass(frozen=True)
class _Scope:
    """What is traced."""

    net: Network
    task: Task
    group: str
    places: tuple[str | int, ...]
    kinds: tuple[str, ...]
    method: Tracing
    embed: str
    spread: float

    @classmethod
    def of(cls, net: Network, task: Task, group: str, places: Sequence[str | int] | None, method: Tracing) -> _Scope:
        clean = task.clean
        if not isinstance(clean, Inputs):
            raise BadInput("expected inputs of tokens, whose groups get noise; this task has tensors: use patch")
        if group not in clean.groups:
            raise UnknownName.among("token group", group, clean.groups, "Name it in groups= of the task.")
        find = task.split("find")
        if not any(find.clean.groups[group]):
            raise BadInput(f"expected tokens of group {group!r} to put noise on; it is empty in every find example")
        known = tuple(k for k in KINDS if any(s.endswith(f".{k}") for s in net.sites))
        kinds = method.kinds or known
        for kind in (*kinds, *method.severed):
            if kind not in known:
                raise UnknownName.among("kind of state", kind, known)
        embed = next((s for s in ("embed", "blocks.0.resid_pre") if s in net.sites), None)
        if embed is None:
            raise BadInput(f"expected a network with embeddings to put noise on; {net.name} has no such site")
        roles = tuple(name for name, rows in _roles(find, group).items() if any(rows))
        given = roles if places is None else tuple(places)
        if not given:
            raise BadInput("expected at least one place at which to restore states; got none")
        for place in given:
            known_places = [*clean.groups, *roles, "first", "last"]
            if isinstance(place, str) and place not in known_places:
                raise UnknownName.among("token group", place, known_places)
        run = net.run(find.clean, keep=embed, until=embed)
        rows = [
            run[embed][row, [run.layout.offsets[row] + p for p in positions]]
            for row, positions in enumerate(find.clean.groups[group])
        ]
        spread = float(torch.cat(rows).float().std())
        return cls(net, task, group, given, kinds, method, embed, spread)

    def batch(self, split: Split) -> Batch:
        """The examples of a split, with the roles of their tokens as groups; the clean inputs stand on both sides."""
        batch = self.task.split(split)
        inputs = batch.clean
        assert isinstance(inputs, Inputs)
        named = {name: rows for name, rows in _roles(batch, self.group).items() if name in self.places}
        inputs = Inputs(inputs.ids, {**named, **inputs.groups})
        return replace(batch, clean=inputs, corrupted=inputs)

    def cells(self) -> list[_Cell]:
        """Every state at every place."""
        out = []
        for kind in self.kinds:
            for layer in range(self.net.n_blocks):
                if f"blocks.{layer}.{kind}" not in self.net.sites:
                    continue
                for place in self.places:
                    sites = [f"blocks.{at}.{kind}" for at in self._window(kind, layer)]
                    restored = tuple(
                        Patch(site, Where.of(place), source="clean") for site in sites if site in self.net.sites
                    )
                    out.append(_Cell(kind, layer, place, restored))
                    for severed in self.method.severed if kind == "resid_post" else ():
                        later = [f"blocks.{at}.{severed}" for at in range(layer + 1, self.net.n_blocks)]
                        name = f"resid_post without {severed}"
                        out.append(_Cell(name, layer, place, restored, tuple(s for s in later if s in self.net.sites)))
        return out

    def _window(self, kind: str, layer: int) -> range:
        if kind == "resid_post":
            return range(layer, layer + 1)
        first = layer - self.method.window // 2
        return range(max(0, first), min(self.net.n_blocks, first + self.method.window))

    def noised(self, sample: int) -> Patch:
        """The edit that puts one draw of noise on the group."""
        return Patch(self.embed, Where(group=self.group), source=f"noise {sample}")

    def edits(self, cell: _Cell, sample: int) -> tuple[Edit, ...]:
        """Noise, the restored states and the severed ones."""
        kept = (Patch(site, cell.where, source=f"noised {sample}") for site in cell.severed)
        return (self.noised(sample), *cell.restored, *kept)

    def sources(self, batch: Batch, split: Split, severed: Sequence[str]) -> dict[str, Run]:
        """The noised embeddings of each draw, and the states of its run that severing needs."""
        clean = self.net.run(batch.clean, keep=self.embed, until=self.embed)
        value = clean[self.embed]
        runs: dict[str, Run] = {}
        for sample in range(self.method.samples):
            noise = _noise(value, (self.method.seed, sample, int(split == "find")))
            runs[f"noise {sample}"] = Run(
                None, {self.embed: value + self.method.noise * self.spread * noise}, clean.layout
            )
            if severed:
                name = f"noised {sample}"
                runs[name] = self.net.run(batch.clean, keep=severed, edits=self.noised(sample), sources=runs)
        return runs


@dataclass(frozen=True, eq=False)
class _Traced:
    """The metric of one split, averaged over noise and turned so that more is better; NaN where a place is empty."""

    gap: Gap
    restored: Float[np.ndarray, "cell example"]

    @classmethod
    def of(
        cls, scope: _Scope, split: Split, cells: Sequence[_Cell], memory: str | int | None = None, tick: Tick = silent
    ) -> _Traced:
        batch = scope.batch(split)
        sources = scope.sources(batch, split, sorted({site for cell in cells for site in cell.severed}))
        runs: list[tuple[Edit, ...]] = []
        for sample in range(scope.method.samples):
            runs.append((scope.noised(sample),))
            runs += [scope.edits(cell, sample) for cell in cells]
        found = measure(scope.net, batch, scope.task.metric, runs, sources=sources, memory=memory, tick=tick)
        sign = sign_of(scope.task.metric)
        values = sign * found.values.reshape(scope.method.samples, 1 + len(cells), -1).mean(0)
        here = [_reached(batch, cell.place) for cell in cells]
        noised = np.array(_reached(batch, scope.group))
        restored = np.where(np.array(here).reshape(len(cells), -1) & noised, values[1:], np.nan)
        return cls(Gap(sign * found.base, values[0], sign), restored)

    @property
    def indirect(self) -> Float[np.ndarray, "cell example"]:
        """Restored minus noised."""
        assert self.gap.corrupted is not None
        return self.restored - self.gap.corrupted


def _noise(value: Tensor, seed: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    return torch.randn(value.shape, generator=generator).to(value)


def _reached(batch: Batch, place: str | int) -> list[bool]:
    """Which examples have a token at the place."""
    inputs = batch.clean
    assert isinstance(inputs, Inputs)
    if isinstance(place, int):
        return [-n <= place < n for n in inputs.lengths]
    return [bool(row) for row in inputs.groups[place]] if place in inputs.groups else [True] * len(batch)


def _roles(batch: Batch, group: str) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Token groups by role, of which some may be empty.

    A group of a single token has a last token alone; tokens after the one where the answer is read have no role.
    """
    inputs = batch.clean
    assert isinstance(inputs, Inputs)
    rows: dict[str, list[tuple[int, ...]]] = {
        name: [] for name in (f"first of {group}", f"middle of {group}", f"last of {group}", *AFTER)
    }
    for positions, at in zip(inputs.groups[group], batch.at, strict=True):
        own = sorted(positions)
        after = [p for p in range(own[-1] + 1, at) if p not in own] if own else []
        roles = (own[:1] if len(own) > 1 else [], own[1:-1], own[-1:], after[:1], after[1:], [at])
        for row, role in zip(rows.values(), roles, strict=True):
            row.append(tuple(role))
    return {name: tuple(row) for name, row in rows.items()}


def _table(scope: _Scope, cells: Sequence[_Cell], found: _Traced) -> Any:
    import xarray

    gap = found.gap
    assert gap.corrupted is not None
    kinds = list(dict.fromkeys(cell.kind for cell in cells))
    labels: dict[str, list[Any]] = {
        "kind": kinds, "layer": list(range(scope.net.n_blocks)), "place": list(map(str, scope.places)),
    }  # fmt: skip
    at = tuple(
        np.array([kinds.index(c.kind) for c in cells])
        if axis == "kind"
        else np.array([c.layer if axis == "layer" else scope.places.index(c.place) for c in cells])
        for axis in labels
    )

    def spread(values: np.ndarray) -> np.ndarray:
        out = np.full((*map(len, labels.values()), *values.shape[1:]), np.nan)
        out[at] = values
        return out

    total = gap.clean - gap.corrupted
    summary = effects(found.indirect)
    summary["indirect"] = summary.pop("effect")
    summary |= recoveries(found.indirect, total, scope.method.seed)
    summary["direct"] = effects(gap.clean - found.restored)["effect"]
    summary["n"] = (~np.isnan(found.restored)).sum(-1).astype(float)
    variables: dict[str, Any] = {name: (tuple(labels), spread(x)) for name, x in summary.items()}
    variables["value"] = ((*labels, "example"), spread(gap.sign * found.restored))
    variables["total"] = ("example", total)
    coords: dict[str, Any] = {**labels, "example": np.arange(len(total))}
    coords |= {name: ("example", gap.sign * x) for name, x in (("clean", gap.clean), ("noised", gap.corrupted))}
    return xarray.Dataset(variables, coords)


def _best(found: _Traced, scope: _Scope, cells: Sequence[_Cell]) -> list[int]:
    """Of each kind, the cells that bring back most on average."""
    here = ~np.isnan(found.indirect)
    mean = np.where(here, found.indirect, 0.0).sum(-1) / np.maximum(here.sum(-1), 1)
    enough = min(scope.method.standard.min_examples, here.shape[1])
    chosen: list[int] = []
    for kind in dict.fromkeys(cell.kind for cell in cells):
        own = [i for i, cell in enumerate(cells) if cell.kind == kind and here[i].sum() >= enough]
        chosen += sorted(own, key=lambda i: -mean[i])[: scope.method.claims]
    return chosen


def _claims(
    scope: _Scope, chosen: Sequence[_Cell], scale: float, claims: Claims
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The findings about some cells on the held-out split, and the numbers behind them."""
    if not chosen:
        return (), {}
    method, metric = scope.method, scope.task.metric
    batch = scope.batch("held-out")
    found = _Traced.of(scope, "held-out", chosen)
    gap = found.gap
    assert gap.corrupted is not None
    criteria = method.standard.criteria(scale, metric.unit)
    sources = scope.sources(batch, "held-out", sorted({site for cell in chosen for site in cell.severed}))
    share = -(-criteria.controls_needed // method.samples)
    candidates, controls = [], []
    for number, (cell, indirect) in enumerate(zip(chosen, found.indirect, strict=True)):
        here = ~np.isnan(indirect)
        means: list[float] = []
        for sample in range(method.samples):
            read = {name: run for name, run in sources.items() if name.endswith(f" {sample}")}
            noise, *_ = edits = scope.edits(cell, sample)
            kept = edits[1 + len(cell.restored) :]
            seed = (method.seed * 1009 + number) * 1009 + sample
            twins = Twins(scope.net, batch, "clean", cell.restored, read, (noise,), seed)
            plain = measure(scope.net, batch, metric, [(noise,)], sources=read).values[0]
            change = gap.sign * (twins.measure(metric, share, [kept])[0] - plain)
            means += change[:, here].mean(1).tolist()
        controls.append(means)
        candidates.append(Candidate(_text(cell, scope), indirect[here], np.array(means)))
    held = held_out_table([c.text for c in candidates], found.indirect, controls)
    return claimed(claims, criteria, candidates, KIND), held


def _text(cell: _Cell, scope: _Scope) -> str:
    sites = [str(edit.site) for edit in cell.restored]
    named = sites[0] if len(sites) == 1 else f"{len(sites)} layers from {sites[0]} to {sites[-1]}"
    without = f" (with {cell.kind.rpartition(' ')[2]} of later layers as in the noised run)" if cell.severed else ""
    return (
        f"restoring {named} at {said(cell.where)}{without} brings back {scope.task.metric.name} lost to noise on "
        f"{scope.group!r}"
    )
