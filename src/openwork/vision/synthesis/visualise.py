"""Feature visualisation: pictures of what units answer to, many in one optimisation, and whether they are their units'.

    visualise(net, "module:stages.1.0.conv2.out[0-15]")
    visualise(net, "blocks.3.mlp.hidden[7]", Maco())                         # of a vision transformer
    visualise(net, Direction("blocks.2.resid_post", v), Ascent(variants=4, also=Diversity("blocks.1.resid_post")))
    visualise(net, "logits[3]", Accentuation(picture))
    visualise(net, "module:stages.1.0.out", Caricature(picture))

Source: Olah, Mordvintsev and Schubert 2017, Feature Visualization; see each method for its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from openwork.errors import BadInput
from openwork.network.measure import Tick, silent
from openwork.network.memory import parse_bytes
from openwork.pictures import Pictures
from openwork.results.result import Result
from openwork.task import split_rows
from openwork.vision.synthesis.ascent import Drawn, bytes_a_row, measured, size_of
from openwork.vision.synthesis.best import best_of
from openwork.vision.synthesis.making import Ascent, Making, Picture, Target
from openwork.vision.synthesis.objective import Objective
from openwork.vision.synthesis.robustness import shrunk
from openwork.vision.synthesis.telling import judged

if TYPE_CHECKING:
    import xarray

    from openwork.network import Network

MOST, FEWEST = 256, 8
"""Pictures of one optimisation, as far as the memory allows it."""
CACHED = 48 * 2**20
"""Bytes that pictures hold at once on a CPU: with more, each step waits for fresh memory instead of computing."""
DEFAULT = Ascent()
POINTS = 64
"""Steps at which the course of the activation is kept."""
SHARES = {True: (0.85, 0.15), False: (1.0, 0.0)}
"""Of the progress: making the pictures, and testing them."""


def visualise(
    net: Network, units: Any, method: Making = DEFAULT, pictures: Pictures | None = None, *, tick: Tick = silent
) -> Result:
    """Make pictures of what units answer to, and test each against the pictures of others.

    Units that need the same part of the network are optimised together, in as many batches as the memory asks for; only
    that part runs. A picture depends on its unit, its variant and the seed, not on what is made beside it.

    Args:
        net: a network that reads images.
        units: channels, directions, tokens, logits (see `openwork.vision.units.units_of`), or objectives; for
            `DeepDream`, `Caricature` and `Inversion` whole sites.
        method: how the pictures are made.
        pictures: images to compare with: half of them, held out, show how far real images activate the units.
        tick: told the share that is done.

    Returns:
        a claim for each unit, that its picture activates it more than matched pictures do (see `telling`), and a table
        with the axes ``unit``, ``channel``, ``y``, ``x``: ``pixels`` in [0, 1]; ``alpha`` (unit, y, x), how opaque the
        method made each pixel, where it did; ``activation``, of the finished picture; ``alive``, whether the unit ever
        got a gradient (a dead one's picture is grey); ``course`` (unit, step); ``shown`` (unit, view) and ``others``
        (unit, picture), activations in the test; ``best``, of the held-out images, and its ``best_row``.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for a network that reads no images, or none of this size or number of channels; for activations that
            are not finite.
    """
    size_of(net)
    wanted = planned(method.targets(net, units), method)
    making, testing = SHARES[bool(method.tests)]
    drawn = _made(net, wanted, method, lambda share: tick(making * share))
    shown = _at_size(drawn.pixels, size_of(net))
    own = [p.target.own.at(p.variant, method.variants) for p in wanted]
    reached = _reached(net, wanted, own, shown, method)
    alive = drawn.alive.numpy()
    table = _table(net, wanted, drawn, reached)
    findings, tests, remarks = (), {}, _remarks(wanted, alive, method)
    if method.tests:
        findings, tests = judged(net, wanted, own, shown, alive, method, lambda share: tick(making + testing * share))
    table = table.assign(tests)
    if pictures is not None:
        best = best_of(net, own, pictures, _held_out(pictures, method.seed))
        table = table.assign(best=("unit", best.activation), best_row=("unit", best.row))
        over = int((reached[alive] > best.activation[alive]).sum())
        remarks += (f"{over} of {int(alive.sum())} pictures activate their unit more than the best of {best.count} "
                    f"held-out images of {pictures.name}",)  # fmt: skip
    tick(1.0)
    settings = {**method.settings(), "units": [p.name for p in wanted], "seed": method.seed}
    if pictures is not None:
        settings |= {"pictures": pictures.name, "digest": pictures.digest}
    return Result("feature visualisation", findings, table, settings, remarks)


def planned(targets: Sequence[Target], method: Making) -> list[Picture]:
    """What pictures are made, each with a seed that depends on what it is of alone."""
    found = []
    for unit, target in enumerate(targets):
        for variant in range(method.variants):
            name = target.name + (f" ({variant + 1})" if method.variants > 1 else "")
            digest = hashlib.sha256(f"{method.seed}/{target.name}/{variant}".encode()).digest()
            found.append(Picture(target, unit, variant, name, int.from_bytes(digest[:6], "big")))
    return found


def batches(net: Network, wanted: Sequence[Picture], method: Making) -> Iterator[list[int]]:
    """Pictures that are optimised together: those that need the same sites, as many as fit; variants stay together."""
    groups: dict[frozenset[str], list[int]] = {}
    for number, picture in enumerate(wanted):
        groups.setdefault(_sites(picture.target.objective), []).append(number)
    views = getattr(getattr(method, "views", None), "count", 1)
    for sites, members in groups.items():
        each = bytes_a_row(net, sorted(sites), views)
        room = min(MOST, parse_bytes(method.memory) // each)
        room = max(1, min(room, max(FEWEST, CACHED // each)) if net.device.type == "cpu" else room)
        room = max(1, room // method.variants) * method.variants
        for first in range(0, len(members), room):
            yield members[first : first + room]


def _made(net: Network, wanted: Sequence[Picture], method: Making, tick: Tick) -> Drawn:
    parts: list[tuple[list[int], Drawn]] = []
    done = 0
    for members in batches(net, wanted, method):
        some = [wanted[i] for i in members]
        targets = [_variant(p, method.variants) for p in some]
        ticked = partial(_ticked, tick, done, len(some), len(wanted))
        drawn = method.draw(net, targets, [p.unit for p in some], [p.seed for p in some], ticked)
        parts.append((members, drawn))
        done += len(members)
    order = torch.tensor([i for members, _ in parts for i in members]).argsort()

    def joined(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[order]

    alphas = [d.alpha for _, d in parts if d.alpha is not None]
    return Drawn(
        joined([d.pixels for _, d in parts]), joined(alphas) if alphas else None,
        joined([d.gradient for _, d in parts]), joined([d.alive for _, d in parts]),
        joined([d.course for _, d in parts]),
    )  # fmt: skip


def _variant(picture: Picture, count: int) -> Target:
    own, objective = (o.at(picture.variant, count) for o in (picture.target.own, picture.target.objective))
    return Target(picture.name, own, objective)


def _ticked(tick: Tick, done: int, count: int, total: int, share: float) -> None:
    tick((done + share * count) / total)


def _reached(
    net: Network, wanted: Sequence[Picture], own: Sequence[Objective], shown: Tensor, method: Making
) -> Float[np.ndarray, " unit"]:
    out = np.zeros(len(wanted))
    for members in batches(net, wanted, method):
        units = [wanted[i].unit for i in members]
        out[members] = measured(net, [own[i] for i in members], units, shown[members]).numpy()
    return out


def _table(
    net: Network, wanted: Sequence[Picture], drawn: Drawn, reached: Float[np.ndarray, " unit"]
) -> xarray.Dataset:
    import xarray

    pixels = drawn.pixels.clone()
    pixels[~drawn.alive] = 0.5
    alpha = drawn.alpha
    steps = np.unique(np.linspace(0, drawn.course.shape[1] - 1, POINTS).round().astype(int))
    variables: dict[str, Any] = {
        "pixels": (("unit", "channel", "y", "x"), pixels.numpy().astype(np.float32)),
        "activation": ("unit", reached),
        "alive": ("unit", drawn.alive.numpy()),
        "course": (("unit", "step"), drawn.course.numpy()[:, steps]),
        "gradient": (("unit", "y", "x"), looked_at(drawn.gradient).numpy()),
    }
    if alpha is not None:
        variables["alpha"] = (("unit", "y", "x"), alpha.numpy().astype(np.float32))
    names = ("red", "green", "blue") if pixels.shape[1] == 3 else ("grey",)
    return xarray.Dataset(
        variables,
        {"unit": [p.name for p in wanted], "channel": list(names), "step": steps},
        {"network": net.name, "kind": "pictures", "pixel_unit": "share of white"},
    )


def looked_at(gradient: Float[Tensor, "row y x"]) -> Float[Tensor, "row y x"]:
    """Where gradients went, smoothed, from 0 to 1 at their 90th percentile: what a unit's picture may be faded by.

    Source:
        Fel et al. 2023, section 3: the attribution-like transparency mask of MACO.
    """
    if min(gradient.shape[1:]) > 2:
        gradient = F.avg_pool2d(F.pad(gradient[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    top = gradient.flatten(1).quantile(0.9, dim=1)[:, None, None].clamp_min(1e-30)
    return (gradient / top).clamp(0, 1).float()


def _at_size(pixels: Float[Tensor, "row channel y x"], size: tuple[int, int]) -> Float[Tensor, "row channel h w"]:
    return pixels if tuple(pixels.shape[-2:]) == size else shrunk(pixels, size).clamp(0, 1)


def _remarks(wanted: Sequence[Picture], alive: np.ndarray, method: Making) -> tuple[str, ...]:
    dead = [p.name for p, lives in zip(wanted, alive, strict=True) if not lives]
    if not dead:
        return ()
    said = ", ".join(dead[:8]) + (f" and {len(dead) - 8} more" if len(dead) > 8 else "")
    return (f"no gradient ever reached {said}: dead on all that was shown to them, so their pictures are plain grey",)


def _held_out(pictures: Pictures, seed: int) -> list[int]:
    if len(pictures) < 2:
        raise BadInput(f"expected two images or more, half of them held out; {pictures.name} has {len(pictures)}")
    return sorted(split_rows(len(pictures), seed, 0.5))


def _sites(objective: Objective) -> frozenset[str]:
    return frozenset(term.reads for term in objective.terms() if term.reads is not None)
