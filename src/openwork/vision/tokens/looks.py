"""Where the heads of a vision transformer look: how far, how widely, at which parts, and at tokens that are no patches.

    look(net, Shapes(split="held-out", count=500))
    look(net, pictures, Looking(category="object"))

Source: Dosovitskiy et al. 2021, appendix D.7, and Raghu et al. 2021, section 4 (mean attention distance).

A head follows a concept if more of its attention than is due falls on patches of that concept. Masks of other images
that show it say what is due, for parts of objects lie near the middle of most pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.network.measure import Tick, silent
from openwork.pictures import Masked
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.vision.corpora import Split, claims_about
from openwork.vision.passes import passes

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

FOREIGN = "masks of other images"
FROM = ("class token", "same concept")
"""The queries whose looks are followed: the first token, or the patches of the concept itself."""


@dataclass(frozen=True)
class Looking:
    """How looks are read.

    Args:
        category: of masks, whose concepts heads may follow.
        least: held-out images that must show a concept for a claim about it.
        claims: how many pairs of head and concept, the best on find images, to claim on held-out ones.
        foreign: how many other images of a batch lend each image their masks.
        batch: images that run at once.
        standard: what a claim must meet: its `min_share` is the smallest lift above one that matters.
        seed: of the split and the controls.
    """

    category: str = "part"
    least: int = 20
    claims: int = 5
    foreign: int = 8
    batch: int = 64
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.least, self.foreign, self.batch) < 1 or self.claims < 0:
            raise BadInput(f"expected an image, a set of masks and a batch of 1 or more; got {self}")


def look(
    net: Network,
    pictures: Masked,
    method: Looking = Looking(),
    *,
    held_out: Masked | None = None,
    tick: Tick = silent,
) -> Result:
    """Read the looks of all heads.

    Args:
        net: a vision transformer.
        pictures: images with masks.
        method: how.
        held_out: images on which claims are made; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a table by ``block`` and ``head`` on held-out images: ``distance`` in pixels, ``uniform_distance`` that equal
        attention would have, ``entropy`` in nats, ``to_prefix`` (attention of patches to tokens that are no patches),
        ``on_itself``; by ``from``, ``concept`` too: ``lift`` of attention within the concept over its area, and
        ``foreign_lift`` with other images' masks. Findings say which heads follow which concepts; they are looked at
        and not intervened on, so never more than inconclusive: `openwork.causal.knockout` cuts looks.

    Raises:
        BadInput: for a network without attention between patches, or masks without the category.

    Units:
        distance: pixels; entropy: nats; lift: a ratio, 1 for equal attention.
    """
    if method.category not in pictures.concepts:
        raise BadInput(f"expected masks of {method.category}; {pictures.name} has {sorted(pictures.concepts)}")
    sites = [site for site in net.sites if re.fullmatch(r"blocks\.\d+\.attn\.pattern", site)]
    if not sites:
        raise BadInput(f"expected a vision transformer with attention patterns; {net.name} has none")
    concepts = pictures.concepts[method.category]
    split = Split.of(pictures, held_out, method.seed)
    found = _Looks(net, sites, split.find, split.find_rows, method, lambda s: tick(0.45 * s))
    held = _Looks(net, sites, split.held, split.held_rows, method, lambda s: tick(0.45 + 0.45 * s))
    claims = claims_about(net, split, {**asdict(method), "sites": sites}, method.seed)
    candidates = _candidates(net, found, held, concepts, method)
    criteria = method.standard.criteria(1.0, "lift above one")
    findings = claimed(claims, criteria, candidates, intervened=False)
    tick(1.0)
    return Result("looks", findings, _table(net, held, concepts, method), claims.settings, _remarks(held, method))


class _Looks:
    """What heads do on some images.

    Every array has the axes (image, block, head, ...); `lift` and `foreign` go on with (from, concept), NaN where an
    image does not show the concept, and `foreign` with (set of masks) before these.
    """

    def __init__(
        self, net: Network, sites: Sequence[str], pictures: Masked, rows: Sequence[int], method: Looking, tick: Tick
    ):
        self.grid = _grid(net, sites[0])
        self.apart = distances(self.grid)
        concepts = len(pictures.concepts[method.category])
        scalars: dict[str, list[np.ndarray]] = {k: [] for k in ("distance", "entropy", "to_prefix", "on_itself")}
        lift, foreign = [], []
        done = 0
        for one in passes(net, pictures, sites, batch=method.batch, rows=rows):
            patterns = torch.stack([one.values[site] for site in sites], 1).float().cpu()
            for name, values in summaries(patterns, self.grid, self.apart).items():
                scalars[name].append(values.numpy())
            shown = shares(pictures.masks(list(one.rows))[method.category], concepts, self.grid)
            lift.append(lifts(patterns, shown, self.grid).numpy())
            others = [others_masks(shown, k + 1) for k in range(method.foreign)]
            foreign.append(np.stack([lifts(patterns, other, self.grid).numpy() for other in others], 3))
            done += len(one.rows)
            tick(done / len(rows))
        self.scalars = {name: np.concatenate(values) for name, values in scalars.items()}
        self.lift, self.foreign = np.concatenate(lift), np.concatenate(foreign)


def _grid(net: Network, site: str) -> Grid:
    return net.grid(site.replace(".attn.pattern", ".resid_pre"))


def distances(grid: Grid) -> Float[Tensor, "patch patch"]:
    """How far the centres of any two patches lie apart, in pixels."""
    y, x = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    places = torch.stack((y.flatten() * grid.stride[0], x.flatten() * grid.stride[1]), 1).float()
    return torch.cdist(places, places)


def summaries(
    patterns: Float[Tensor, "image block head query key"], grid: Grid, apart: Float[Tensor, "patch patch"]
) -> dict[str, Float[Tensor, "image block head"]]:
    """How far and how widely each head looks, averaged over the patches that look.

    Source:
        Raghu et al. 2021, section 4: distances weighted by attention; attention to other tokens has no distance, so
        that to patches is taken as a whole.
    """
    looking = patterns[..., grid.prefix :, :]
    among = looking[..., grid.prefix :]
    mass = among.sum(-1).clamp_min(1e-12)
    return {
        "distance": ((among * apart).sum(-1) / mass).mean(-1),
        "entropy": -(looking * looking.clamp_min(1e-30).log()).sum(-1).mean(-1),
        "to_prefix": looking[..., : grid.prefix].sum(-1).mean(-1),
        "on_itself": among.diagonal(dim1=-2, dim2=-1).mean(-1),
    }


def shares(mask: Tensor, concepts: int, grid: Grid) -> Bool[Tensor, "image concept patch"]:
    """The patches of which a concept covers half or more, or more than any other patch of the image."""
    one_hot = torch.nn.functional.one_hot(mask.long(), concepts + 1)[..., 1:].movedim(-1, 1).float()
    cover = torch.nn.functional.adaptive_avg_pool2d(one_hot, (grid.height, grid.width)).flatten(2)
    most = cover.amax(-1, keepdim=True)
    return (cover >= 0.5) | ((cover == most) & (most > 0))


def others_masks(shown: Bool[Tensor, "image concept patch"], step: int) -> Bool[Tensor, "image concept patch"]:
    """Each image's concepts where they lie in another image of the batch that shows them too; nowhere without one.

    Args:
        shown: where the concepts lie.
        step: how many such images further the other one is.
    """
    out = torch.zeros_like(shown)
    for concept in range(shown.shape[1]):
        images = shown[:, concept].any(-1).nonzero().flatten()
        if len(images) > step:
            out[images, concept] = shown[images.roll(step), concept]
    return out


def lifts(
    patterns: Float[Tensor, "image block head query key"], shown: Bool[Tensor, "image concept patch"], grid: Grid
) -> Float[Tensor, "image block head from concept"]:
    """Attention within each concept's patches over their share of all patches; NaN where none is shown.

    The attention is that to patches, taken as a whole; of "same concept", a patch's look at itself is left out on both
    sides.
    """
    among = patterns[..., grid.prefix :]
    inside = shown.float()
    count, n = inside.sum(-1), inside.shape[-1]
    out = torch.full((*patterns.shape[:3], len(FROM), inside.shape[1]), torch.nan)
    if grid.prefix:
        first = among[..., 0, :]
        first = first / first.sum(-1, keepdim=True).clamp_min(1e-12)
        got = torch.einsum("ibhk,ick->ibhc", first, inside)
        out[..., 0, :] = got / (count / n)[:, None, None]
    own = among[..., grid.prefix :, :]
    own = own - torch.diag_embed(own.diagonal(dim1=-2, dim2=-1))
    own = own / own.sum(-1, keepdim=True).clamp_min(1e-12)
    got = torch.einsum("ibhqk,icq,ick->ibhc", own, inside, inside) / count.clamp_min(1)[:, None, None]
    due = ((count - 1) / (n - 1))[:, None, None]
    out[..., 1, :] = torch.where(due > 0, got / due.clamp_min(1e-12), torch.nan)
    return torch.where((count > 0)[:, None, None, None], out, torch.nan)


def _mean(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """The mean without NaN, NaN where there is nothing else."""
    there = ~np.isnan(values)
    n = there.sum(axis)
    return np.where(n > 0, np.where(there, values, 0).sum(axis) / np.maximum(n, 1), np.nan)


def _candidates(net: Network, found: _Looks, held: _Looks, concepts: Sequence[str], method: Looking) -> list[Candidate]:
    """The pairs of head and concept that stand out most on find images, measured on held-out ones."""
    excess = _mean(found.lift) - _mean(found.foreign, (0, 3))
    often = (~np.isnan(held.lift)).sum(0)
    excess = np.where(often >= method.least, excess, np.nan)
    order = [i for i in np.argsort(-np.nan_to_num(excess, nan=-np.inf).ravel()) if not np.isnan(excess.ravel()[i])]
    needed = method.standard.criteria(1.0, "lift above one").controls_needed
    out = []
    for flat in order[: method.claims]:
        block, head, source, concept = (int(v) for v in np.unravel_index(flat, excess.shape))
        here = held.lift[:, block, head, source, concept]
        rows = np.flatnonzero(~np.isnan(here))
        controls = _foreign_means(held.foreign[:, block, head, :, source, concept], needed, method.seed)
        who = "the class token" if source == 0 else "patches of it"
        text = f"head {head} of block {block} follows {concepts[concept]}: it looks there from {who}"
        out.append(Candidate(text, here[rows] - 1, controls - 1, FOREIGN))
    return out


def _foreign_means(values: Float[np.ndarray, "image set"], needed: int, seed: int) -> Float[np.ndarray, " control"]:
    """The mean lift with other images' masks, each image under one of its sets, drawn anew for every control."""
    rows = np.flatnonzero(~np.isnan(values).all(1))
    rng = np.random.default_rng((seed, 2))
    out = []
    for _ in range(needed):
        picked = rng.integers(values.shape[1], size=len(rows))
        out.append(float(_mean(values[rows, picked])))
    return np.nan_to_num(np.array(out), nan=1.0)


def _table(net: Network, held: _Looks, concepts: Sequence[str], method: Looking):
    import xarray

    dims = ("block", "head")
    variables: dict[str, Any] = {name: (dims, values.mean(0)) for name, values in held.scalars.items()}
    variables["lift"] = ((*dims, "from", "concept"), _mean(held.lift))
    variables["foreign_lift"] = ((*dims, "from", "concept"), _mean(held.foreign, (0, 3)))
    variables["images"] = ("concept", (~np.isnan(held.lift[:, 0, 0, 1])).sum(0))
    coordinates = {"from": list(FROM), "concept": list(concepts)}
    table = xarray.Dataset(variables, coordinates)
    n = len(held.apart)
    even = float(held.apart.sum() / n**2)
    table.attrs.update(
        network=net.name, unit="pixels", uniform_distance=even, n=len(held.lift), concept=method.category
    )
    return table


def _remarks(held: _Looks, method: Looking) -> tuple[str, ...]:
    if len(held.lift) <= method.foreign:
        return (f"{len(held.lift)} held-out images are too few to hold their looks against other images' masks",)
    return ()
