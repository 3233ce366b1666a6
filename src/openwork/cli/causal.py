"""`openwork sweep`, `patch`, `ablate`, `trace`, `path`, `knockout`, `subspace` and `scrub`: the causal methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.inquiry import Inquiry, inquiry
from openwork.cli.options import Alpha, Claims, Memory
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.results.claims import Standard
    from openwork.results.result import Result
    from openwork.task import Task

Many = list[str]


class Way(StrEnum):
    """From which run to which values go."""

    denoise = "denoise"
    noise = "noise"


class Extent(StrEnum):
    """How many sites are patched at once."""

    single = "single"
    from_first = "from first"
    to_last = "to last"


class How(StrEnum):
    """What ablated parts are replaced with."""

    mean = "mean"
    zero = "zero"
    resample = "resample"
    noise = "noise"


class Mlps(StrEnum):
    """What MLPs between sender and receiver do."""

    frozen = "frozen"
    live = "live"


class Heads(StrEnum):
    """Which heads are cut."""

    all = "all"
    each = "each"


class Reading(StrEnum):
    """What is read off."""

    probability = "probability"
    task = "task"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    inquiry(app, "sweep", claims=False)(sweep)
    inquiry(app, "patch")(patch)
    inquiry(app, "ablate")(ablate)
    inquiry(app, "trace")(trace)
    inquiry(app, "path")(path)
    inquiry(app, "knockout")(knockout)
    inquiry(app, "subspace")(subspace)
    inquiry(app, "scrub")(scrub)


def sweep(
    on: Inquiry,
    site: Annotated[str, typer.Option(help="Site or pattern.")] = "blocks.*.resid_pre",
    over: Annotated[
        Many | None, typer.Option(help="Axis: site, position, group, head, unit …; again for more.")
    ] = None,
    edit: Annotated[
        str, typer.Option(help="denoise or noise (patch from the clean or corrupted run), zero, or an edit as JSON.")
    ] = "denoise",
    memory: Memory = "1GiB",
) -> Result:
    """Measure one edit at every place of a family on the find examples; claims nothing."""
    import xarray

    from openwork.network.sweep import sweep as swept
    from openwork.results.result import Result

    chosen = _edit(edit, site)
    found = swept(on.net, on.task, chosen, _axes(on.task, over), split="find", memory=memory, tick=on.tick)
    numbers = [str(name) for name in found.coords if name in ("effect", "low", "high", "p", "how")]
    table = found.rename("value").to_dataset().reset_coords(numbers)
    attributes = {str(k): v.item() if hasattr(v, "item") else v for k, v in found.attrs.items()}
    table = xarray.Dataset(table.data_vars, table.coords, attributes)
    settings = {"task": on.task.name, "metric": on.task.metric.name, "edit": chosen.to_json(), "seed": on.seed}
    told = "these are find examples and no claims: test the best places on held-out ones with openwork patch or ablate"
    return Result("sweep", (), table, settings, (told,))


def patch(
    on: Inquiry,
    site: Annotated[str, typer.Option(help="Site or pattern.")] = "blocks.*.resid_pre",
    over: Annotated[
        Many | None, typer.Option(help="Axis: site, position, group, head, unit …; again for more.")
    ] = None,
    way: Annotated[Way, typer.Option(help="What suffices (denoise), or what is needed (noise).")] = Way.denoise,
    extent: Annotated[
        Extent, typer.Option(help="One site at a time, or all up to each, or all from each.")
    ] = Extent.single,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    memory: Memory = "1GiB",
) -> Result:
    """Write a part of the clean run into the corrupted one, or the reverse: what comes along?"""
    from openwork.causal.patch import Patching
    from openwork.causal.patch import patch as patched

    method = Patching(way.value, extent.value, claims, _standard(alpha), on.seed)
    return patched(on.net, on.task, site, _axes(on.task, over), method, memory=memory, tick=on.tick)


def ablate(
    on: Inquiry,
    component: Annotated[
        Many | None, typer.Option(help="Site or pattern; again for more. All heads and MLPs unless given.")
    ] = None,
    how: Annotated[How, typer.Option(help="What a part is replaced with.")] = How.mean,
    at: Annotated[str | None, typer.Option(help="Token group or position; everywhere unless given.")] = None,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    memory: Memory = "1GiB",
) -> Result:
    """Ablate parts one by one: what is needed?"""
    from openwork.causal.ablate import Ablation
    from openwork.causal.ablate import ablate as ablated
    from openwork.causal.replacing import Replacing

    method = Ablation(Replacing(how.value, seed=on.seed), claims=claims, standard=_standard(alpha), seed=on.seed)
    return ablated(on.net, on.task, component or None, method, where=_place(at), memory=memory, tick=on.tick)


def trace(
    on: Inquiry,
    group: Annotated[
        str | None, typer.Option(help="Token group that gets noise; the subject, or what differs, unless given.")
    ] = None,
    place: Annotated[
        Many | None, typer.Option(help="Token group or position to restore; again for more. All groups unless given.")
    ] = None,
    noise: Annotated[float, typer.Option(help="Of so many standard deviations of the group's embeddings.")] = 3.0,
    samples: Annotated[int, typer.Option(help="Draws of noise.")] = 10,
    window: Annotated[
        int | None, typer.Option(help="Layers restored at once; a third of them, at most 10, unless given.")
    ] = None,
    severed: Annotated[
        Many | None, typer.Option(help="Contributions of later layers that stay noised, such as mlp.out.")
    ] = None,
    claims: Claims = 1,
    alpha: Alpha = 0.05,
    memory: Memory = "1GiB",
) -> Result:
    """Put noise on some tokens and restore states one by one: which bring the behaviour back?"""
    from openwork.causal.trace import Tracing
    from openwork.causal.trace import trace as traced

    groups = _groups(on.task)
    chosen = group or _differing(on.task, groups)
    places = [_place(p) for p in place] if place else list(dict.fromkeys([*groups, "last"]))
    method = Tracing(
        noise, samples, window=window or _window(on, 10), severed=tuple(severed or ()), claims=claims,
        standard=_standard(alpha), seed=on.seed,
    )  # fmt: skip
    return traced(on.net, on.task, chosen, places, method, memory=memory, tick=on.tick)


def path(
    on: Inquiry,
    sender: Annotated[
        Many | None, typer.Option(help="Site or pattern; again for more. All heads and MLPs unless given.")
    ] = None,
    receiver: Annotated[
        Many | None, typer.Option(help="Such as blocks.1.attn.k[3] or logits; every input and the logits unless given.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="One path from all senders through all receivers, not edge by edge.")
    ] = False,
    way: Annotated[Way, typer.Option(help="What a path carries (noise), or brings back (denoise).")] = Way.noise,
    mlps: Annotated[Mlps, typer.Option(help="Whether MLPs in between hand on what changes.")] = Mlps.frozen,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    memory: Memory = "1GiB",
) -> Result:
    """Change what senders say to receivers and to nobody else: which edges carry the behaviour?"""
    from openwork.causal.path import RECEIVERS, SENDERS, PathPatching, patch_edges, patch_path

    method = PathPatching(way.value, mlps.value, claims, _standard(alpha), on.seed)
    if together and not (sender and receiver):
        raise BadInput("expected --sender and --receiver with --together: one path goes from some parts to others")
    verb = patch_path if together else patch_edges
    return verb(on.net, on.task, sender or SENDERS, receiver or RECEIVERS, method, memory=memory, tick=on.tick)


def knockout(
    on: Inquiry,
    queries: Annotated[str, typer.Option(help="Token group or position that reads.")] = "last",
    keys: Annotated[
        Many | None, typer.Option(help="What it no longer reads; again for more. Every other group unless given.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Layers cut at once; a third of them, at most 9, unless given.")
    ] = None,
    heads: Annotated[Heads, typer.Option(help="Cut all heads of a layer at once, or each number alone.")] = Heads.all,
    reading: Annotated[
        Reading, typer.Option(help="The probability of the answer, or the metric of the task.")
    ] = Reading.probability,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    memory: Memory = "1GiB",
) -> Result:
    """Keep some tokens from reading others, window by window of layers: where must they?"""
    from openwork.causal.knockout import Knockout, knock_out

    read = keys or [name for name in _groups(on.task) if name != queries]
    if not read:
        raise BadInput(f"expected --keys: {on.task.name} names no token group but the one that reads")
    pairs = [(_place(queries), _place(key)) for key in read]
    method = Knockout(window or _window(on, 9), heads.value, reading.value, claims, _standard(alpha), on.seed)
    return knock_out(on.net, on.task, pairs, method, memory=memory, tick=on.tick)


def subspace(
    on: Inquiry,
    site: Annotated[str, typer.Option(help="One site with channels, such as blocks.1.resid_pre.")],
    at: Annotated[str | None, typer.Option(help="Token group or position; everywhere unless given.")] = None,
    direction: Annotated[
        Path | None, typer.Option(help="A .npy of shape (channel,) or (count, channel) to test; learned unless given.")
    ] = None,
    dimensions: Annotated[int, typer.Option(help="Of the subspace that is learned.")] = 1,
    steps: Annotated[int, typer.Option(help="Of learning.")] = 200,
    shuffles: Annotated[int, typer.Option(help="Subspaces learned on shuffled pairs, as rivals.")] = 2,
    alpha: Alpha = 0.05,
) -> Result:
    """Learn a subspace (DAS), or take one, and swap it between runs; with the illusion check."""
    from openwork.causal.das import DAS, das
    from openwork.causal.subspace import SubspaceSwap
    from openwork.causal.subspace import subspace as swapped

    where = _place(at)
    if direction is not None:
        from openwork.direction import Direction

        given = Direction(site, _array(direction), direction.name)
        return swapped(on.net, on.task, given, SubspaceSwap(where, standard=_standard(alpha), seed=on.seed))
    method = DAS(
        where=where, standard=_standard(alpha), seed=on.seed, steps=steps, shuffles=shuffles, dimensions=dimensions
    )
    return das(on.net, on.task, site, method)


def scrub(
    on: Inquiry,
    hypothesis: Annotated[
        Path | None, typer.Option(help="JSON file of steps; on induction tasks the textbook circuit unless given.")
    ] = None,
    draws: Annotated[int, typer.Option(help="How often every example is scrubbed.")] = 8,
    alpha: Alpha = 0.05,
) -> Result:
    """Resample everything that a hypothesis says makes no difference: does the behaviour survive?"""
    from openwork.causal.scrub import Scrubbing
    from openwork.causal.scrub import scrub as scrubbed
    from openwork.cli.hypotheses import from_file, induction, single
    from openwork.results.claims import Standard

    method = Scrubbing(draws, standard=Standard(0.8, alpha), seed=on.seed)
    if hypothesis is not None:
        return scrubbed(on.net, on.task, from_file(hypothesis), method, tick=on.tick)
    task = single(on.task)
    found = scrubbed(on.net, task, induction(on.net, task), method, tick=on.tick)
    told = f"scrubbed are the {len(task)} of {len(on.task)} examples whose last token stood once before"
    return replace(found, remarks=(*found.remarks, told))


def _standard(alpha: float) -> Standard:
    from openwork.results.claims import Standard

    return Standard(alpha=alpha)


def _edit(text: str, site: str) -> Any:
    """An edit by its name, or from its JSON form, in which a site may be left out."""
    from openwork.edit import Ablate, Patch, edit_from_json

    named = {
        "denoise": Patch(site, source="clean"), "noise": Patch(site, source="corrupted"), "zero": Ablate(site),
    }  # fmt: skip
    if text in named:
        return named[text]
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"expected one of {', '.join(named)} or an edit as JSON; got {text!r} ({error})") from error
    return edit_from_json({"site": site, **record} if isinstance(record, dict) else record)


def _axes(task: Task, over: Sequence[str] | None) -> list[str]:
    """What to go through: sites, and token groups where the task names any, else positions."""
    return list(over) if over else ["site", "group" if _groups(task) else "position"]


def _groups(task: Task) -> list[str]:
    return list(getattr(task.clean, "groups", {}))


def _place(text: str | None) -> Any:
    """A position, counted from the end if negative, or the name of a token group."""
    return int(text) if text is not None and text.removeprefix("-").isdigit() else text


def _differing(task: Task, groups: Sequence[str]) -> str:
    """The group to put noise on: the subject, or the one with the largest share of tokens that are corrupted."""
    if "subject" in groups:
        return "subject"
    if not groups:
        raise BadInput(f"expected --group: {task.name} names no token groups")

    def share(group: str) -> float:
        clean, corrupted = task.clean, task.corrupted
        pairs = [
            clean.ids[row][a] != corrupted.ids[row][b]
            for row in range(len(task))
            for a, b in zip(clean.groups[group][row], corrupted.groups[group][row], strict=False)
        ]
        return sum(pairs) / max(len(pairs), 1)

    return max(groups, key=share)


def _window(on: Inquiry, most: int) -> int:
    """A third of the layers."""
    return min(most, max(1, on.net.n_blocks // 3))


def _array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"expected a .npy of numbers in {path}; {error}") from error
