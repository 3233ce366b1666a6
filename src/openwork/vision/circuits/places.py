"""Activation patching by channel and place: where in a map, and in which channels, a difference of two images lives.

    patch_places(net, covered(pictures, "part", "wheel"), "module:layer2.out")

Values of the clean run are written into the run on the corrupted image; what comes back of the difference between the
two is mapped over places, channels, and both. On held-out pairs the places of what differs are patched together,
against as many places elsewhere.

Source: Heimersheim and Nanda 2024, How to use and interpret activation patching; on image regions, as in the causal
tracing of vision models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openwork.edit import Edit, Patch
from openwork.errors import BadInput
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Site, Where
from openwork.task import LOGIT_DIFFERENCE, Batch, Tensors, split_rows
from openwork.vision.circuits.pairs import Pairs
from openwork.vision.halves import some
from openwork.vision.passes import encoded

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

ELSEWHERE = "as many places elsewhere"
OTHERS = "random other channels at the same places"
PART = "what differs"
TRIES = 50


@dataclass(frozen=True)
class Placing:
    """How to patch.

    Args:
        pairs: of each half, at most.
        channels: how many channels, the ones that bring most back, are mapped over places.
        standard: what a claim must meet; its least share is of the mean gap between clean and corrupted.
        memory: a budget for what runs at once.
        seed: of the halves and the controls.
    """

    pairs: int = 40
    channels: int = 6
    standard: Standard = field(default_factory=Standard)
    memory: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs < 2 or self.channels < 1:
            raise BadInput(f"expected two pairs and one channel or more; got {self.pairs} and {self.channels}")


def patch_places(
    net: Network, pairs: Pairs, site: str | Site, method: Placing = Placing(), *, tick: Tick = silent
) -> Result:
    """Map what brings the clean answer back over places and channels, and claim the places of what differs.

    The metric is the logit of what the network says of the clean image minus the largest other logit that it has on the
    corrupted one.

    Args:
        net: a classifier of images.
        pairs: images that differ in one thing; half of them are held out.
        site: a map of channels.
        method: how.
        tick: told the share that is done.

    Returns:
        two findings, in logits brought back on held-out pairs: by the places of what differs, and there by the best
        channel alone; and a table: ``place_effect`` (y, x), ``channel_effect`` (channel), ``channel_place_effect``
        (top, y, x), each with ends; ``differs`` (y, x), the share of pairs that differ there; ``clean`` and
        ``corrupted`` (example) metrics.

    Raises:
        BadInput: for a site that is no map, fewer than four pairs, or pairs between which the network sees no
            difference.
        UnknownName: for a site that does not exist.

    Units:
        logits.
    """
    path = net.map.resolve(site)[0].path
    if net.map.info(path).axes != ("batch", "channel", "y", "x"):
        raise BadInput(f"expected a map of channels; {path} has the axes {net.map.info(path).axes}")
    if len(pairs) < 4:
        raise BadInput(f"expected at least four pairs, half of them held out; got {len(pairs)}")
    grid = net.grid(path)
    held = split_rows(len(pairs), method.seed)
    find = _side(net, pairs, grid, [r for r in range(len(pairs)) if r not in held], method, 0)
    gap = _gap(net, find)
    if not gap.size or abs(gap.mean()) < 1e-6:
        raise BadInput(f"expected images between which {net.name} sees a difference; it sees none in {pairs.name}")
    found = _maps(net, find, path, grid, method, lambda s: tick(0.6 * s))
    criteria = method.standard.criteria(float(gap.mean()), "logits")
    late = _side(net, pairs, grid, sorted(held), method, criteria.controls_needed)
    candidates = _candidates(net, late, path, found, criteria.controls_needed, method, lambda s: tick(0.6 + 0.4 * s))
    settings = {"pairs": pairs.name, "site": path, **{k: v for k, v in asdict(method).items() if k != "pairs"},
                "most_pairs": method.pairs}  # fmt: skip
    claims = Claims(net, {"pairs": pairs.digest, "held out": sorted(held)}, settings, method.seed)
    table = _table(found, grid, find, gap, candidates)
    table.attrs.update(network=net.name, unit="logits", metric=LOGIT_DIFFERENCE.name, site=path, pairs=pairs.name)
    wrong = int((gap <= 0).sum())
    remarks = [f"in {wrong} of {len(gap)} find pairs the answer is no weaker in the corrupted image"] if wrong else []
    tick(1.0)
    return Result("patching by channel and place", claimed(claims, criteria, candidates), table, settings, (*remarks,))


@dataclass(frozen=True, eq=False)
class _Side:
    """One half of the pairs.

    Args:
        batch: clean and corrupted inputs, with the answers.
        parts: the positions of what differs, pair by pair.
        controls: how many regions there are of as many places elsewhere.
    """

    batch: Batch
    parts: list[list[int]]
    controls: int


def _side(net: Network, pairs: Pairs, grid: Grid, rows: Sequence[int], method: Placing, controls: int) -> _Side:
    rows = some(rows, method.pairs, method.seed)
    clean, corrupted = (encoded(net, x[rows]) for x in (pairs.clean, pairs.corrupted))
    main = net.preparer.main
    logits = net.run({main: clean}).logits
    answer = logits.argmax(-1)
    rest = net.run({main: corrupted}).logits.scatter(1, answer[:, None], -torch.inf)
    parts = [places_of(grid, pairs.changed[row]) for row in rows]
    regions = {PART: torch.stack([_cells(grid, part) for part in parts])}
    random = np.random.default_rng(method.seed)
    for number in range(controls):
        moved = [elsewhere(grid, part, random) for part in parts]
        regions[f"elsewhere {number}"] = torch.stack([_cells(grid, part) for part in moved])
    before, after = (Tensors({main: x}, regions) for x in (clean, corrupted))
    n = len(rows)
    wrong = rest.argmax(-1)
    batch = Batch(before, after, tuple(answer.tolist()), tuple(wrong.tolist()), (0,) * n)
    return _Side(batch, parts, controls)


def places_of(grid: Grid, changed: Bool[Tensor, "y x"]) -> list[int]:
    """The positions whose cell lies mostly in a mask; of a mask too small for any, the one nearest to its middle."""
    found = grid.positions(changed)
    if found:
        return found
    y, x = (float(v.float().mean()) for v in changed.nonzero(as_tuple=True))
    centres = torch.tensor([grid.centre(grid.prefix + p) for p in range(len(grid))])
    return [grid.prefix + int((centres - torch.tensor([y, x])).norm(dim=1).argmin())]


def elsewhere(grid: Grid, part: Sequence[int], random: np.random.Generator) -> list[int]:
    """As many positions in the same arrangement, moved about the map, across its ends, to where they overlap least."""
    own = np.array([grid.place(p) for p in part])
    best, least = list(part), len(part) + 1
    for _ in range(TRIES):
        shift = random.integers(0, (grid.height, grid.width))
        y, x = ((own + shift) % (grid.height, grid.width)).T
        moved = [int(p) for p in grid.prefix + y * grid.width + x]
        overlap = len({*moved} & {*part})
        if overlap < least:
            best, least = moved, overlap
        if not overlap:
            break
    return best


def _cells(grid: Grid, positions: Sequence[int]) -> Bool[Tensor, "y x"]:
    """The pixels that these positions stand for."""
    mask = torch.zeros(grid.image, dtype=torch.bool)
    for position in positions:
        top, left, bottom, right = grid.cell(position)
        mask[top:bottom, left:right] = True
    return mask


def _gap(net: Network, side: _Side) -> Float[np.ndarray, " example"]:
    clean, corrupted = (
        side.batch.measure(LOGIT_DIFFERENCE, net.run(dict(x.values)).logits)  # pyright: ignore
        for x in (side.batch.clean, side.batch.corrupted)
    )
    return (clean - corrupted).double().cpu().numpy()


def _restored(
    net: Network, side: _Side, cells: Sequence[Sequence[Edit]], method: Placing, tick: Tick = silent
) -> Float[np.ndarray, "cell example"]:
    """The metric that patches bring back."""
    found = measure(
        net, side.batch, LOGIT_DIFFERENCE, cells, base="corrupted", memory=method.memory, tick=tick
    )  # fmt: skip
    return found.values - found.base


def _maps(net: Network, side: _Side, path: str, grid: Grid, method: Placing, tick: Tick) -> dict[str, Any]:
    """What comes back by place, by channel, and by both."""
    places = range(grid.prefix, grid.prefix + len(grid))
    channels = net.parts(path)
    cells: list[Sequence[Edit]] = [[Patch(path, Where(positions=p))] for p in places]
    cells += [[Patch(Site(path, (c,)))] for c in range(channels)]
    first = _restored(net, side, cells, method, lambda s: tick(0.5 * s))
    by_place, by_channel = first[: len(grid)], first[len(grid) :]
    top = [int(c) for c in np.argsort(-by_channel.mean(1), kind="stable")[: method.channels]]
    cells = [[Patch(Site(path, (c,)), Where(positions=p))] for c in top for p in places]
    both = _restored(net, side, cells, method, lambda s: tick(0.5 + 0.5 * s))
    return {"place": by_place, "channel": by_channel, "both": both, "top": top}


def _candidates(
    net: Network,
    side: _Side,
    path: str,
    found: dict[str, Any],
    count: int,
    method: Placing,
    tick: Callable[[float], None],
) -> list[Candidate]:
    """The places of what differs against places elsewhere; and its best channel there against other channels."""
    best = found["top"][0]
    random = np.random.default_rng(method.seed)
    others = [c for c in range(net.parts(path)) if c != best]
    drawn = [int(c) for c in random.choice(others, count)] if others else []
    cells: list[Sequence[Edit]] = [[Patch(path, Where(group=PART))], [Patch(Site(path, (best,)), Where(group=PART))]]
    cells += [[Patch(path, Where(group=f"elsewhere {i}"))] for i in range(side.controls)]
    kinds = sorted({*drawn})
    cells += [[Patch(Site(path, (c,)), Where(group=PART))] for c in kinds]
    values = _restored(net, side, cells, method, tick)
    moved = values[2 : 2 + side.controls].mean(1)
    by_channel = dict(zip(kinds, values[2 + side.controls :].mean(1), strict=True))
    what = f"brings back what {net.name} says of the clean image"
    out = [Candidate(f"{path} at the places of {PART} {what}", values[0], moved, ELSEWHERE)]
    if drawn:
        text = f"{Site(path, (best,))} alone at the places of {PART} {what}"
        out.append(Candidate(text, values[1], np.array([by_channel[c] for c in drawn]), OTHERS))
    return out


def _table(found: dict[str, Any], grid: Grid, side: _Side, gap: np.ndarray, candidates: Sequence[Candidate]) -> Any:
    import xarray

    shape = (grid.height, grid.width)
    variables: dict[str, Any] = {}
    for name, axes, values, size in (
        ("place_effect", ("y", "x"), found["place"], shape),
        ("channel_effect", ("channel",), found["channel"], (len(found["channel"]),)),
        ("channel_place_effect", ("top", "y", "x"), found["both"], (len(found["top"]), *shape)),
    ):
        mean = values.mean(1)
        error = 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        for suffix, x in (("", mean), ("_low", mean - error), ("_high", mean + error)):
            variables[name + suffix] = (axes, x.reshape(size))
    differs = np.zeros(len(grid))
    for part in side.parts:
        differs[[p - grid.prefix for p in part]] += 1 / len(side.parts)
    variables["differs"] = (("y", "x"), differs.reshape(shape))
    variables["gap"] = ("example", gap)
    for name, one in zip(("places", "channel_there"), candidates, strict=False):
        variables[f"{name}_held_out"] = ("held_out_example", one.effects)
        variables[f"{name}_control"] = ("control", one.controls)
    return xarray.Dataset(
        variables,
        {"y": range(grid.height), "x": range(grid.width), "channel": range(len(found["channel"])), "top": found["top"]},
    )
