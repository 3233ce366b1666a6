"""Into which phases the depth of a network falls, and whether a plain drift would fall into such phases too.

    phases(net, texts)                         # max-cuts of the cosine distance between layers
    phases(net, texts, method=Phasing(stop=0.1))

Source: Jacobs et al. 2025, Block-recurrent dynamics in vision transformers (the block-recurrent hypothesis). That
layers look alike does not make them do the same: there, blocks of one phase are replaced by one trained block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from openwork.errors import BadInput
from openwork.finding import Criteria
from openwork.geometry.observed import Observations, Seen
from openwork.geometry.partition import MOST_FREE, best_phases, contiguous_cut, contrast, free_cut
from openwork.geometry.partition import phases as cut_into_phases
from openwork.geometry.resampling import ends
from openwork.geometry.samples import Material, Places, Samples, Sampling
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

SITES = "blocks.*.resid_post"
WALKS = "random walks of equal length, mean step, turning and dimension, cut in the same way"


@dataclass(frozen=True)
class Phasing:
    """How to cut.

    Args:
        stop: a cut, or one phase more, must separate at least this share of the weight of all pairs of layers.
        cuts: ``best``: of all partitions into so many phases that follow one another, the heaviest, exactly;
            ``recursive``: max-cuts of max-cuts, each exact, of which early ones may lie wrong; ``free``: the same into
            any two sets, for up to 20 layers.
        resamples: of the texts, for the stability of each boundary.
        sampling: which places are looked at.
        standard: what a claim must meet.
        seed: of controls and resamples.
    """

    stop: float = 0.15
    cuts: str = "best"
    resamples: int = 200
    sampling: Sampling = field(default_factory=Sampling)
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cuts not in CUTS or not 0 < self.stop < 1 or self.resamples < 1:
            raise BadInput(f"expected cuts of {tuple(CUTS)}, stop between 0 and 1 and one resample or more; got {self}")

    def of(self, distances: Float[np.ndarray, "layer layer"]) -> list[tuple[int, ...]]:
        """The phases of a matrix of distances."""
        return CUTS[self.cuts](distances, self.stop)


def recursive(distances: Float[np.ndarray, "layer layer"], stop: float) -> list[tuple[int, ...]]:
    """The phases that recursive cuts of the order of layers find."""
    return cut_into_phases(distances, stop, contiguous_cut)


def free(distances: Float[np.ndarray, "layer layer"], stop: float) -> list[tuple[int, ...]]:
    """The phases that recursive cuts into any two sets find."""
    return cut_into_phases(distances, stop, free_cut)


CUTS = {"best": best_phases, "recursive": recursive, "free": free}


def phases(net: Network, material: Material, sites: str | Site = SITES, method: Phasing = Phasing()) -> Result:
    """Cut the layers of a network into phases, and hold them against random walks.

    Args:
        net: the network.
        material: texts, rows of token ids, tensors, or images; half of them are held out.
        sites: one site of each layer, all of one width.
        method: how.

    Returns:
        a table with ``distance`` (1 − cosine, mean over places) and its ends by ``site`` and ``other_site``; ``phase``
        of each site, cut on find texts; ``stability`` of each site: in which share of resampled texts a phase begins
        there, or does not, as found; ``free``: the phase by cuts into any sets, where there are few enough layers. The
        finding says how much farther apart layers of different phases are than layers of one phase that are as many
        blocks apart, on held-out texts.

    Raises:
        BadInput: fewer than three layers, layers of different widths, a layer that is zero somewhere, too few texts.
        UnknownName: for a site that does not exist.

    Units:
        cosine distance.

    Source:
        Jacobs et al. 2025, section 2; the stop by share of the weight and the random walks are ours.
    """
    places = Places.of([net], material, method.sampling, [[sites]])
    samples = places.read(net, sites)
    by_text, texts = cosine_distances(samples)
    held = np.isin(texts, sorted(places.held))
    found = method.of(by_text[~held].mean(0))
    table = _table(samples, by_text, texts, held, found, method)
    table.attrs.update(network=net.name, unit="cosine distance", phases=len(found), cuts=method.cuts)
    settings = {**asdict(method), "sites": str(sites)}
    effects = contrast(by_text[held], found)
    if effects is None:
        told = "one phase: no cut separates enough" if len(found) == 1 else "no two pairs of layers can be compared"
        return Result("phases", (), table, settings, (f"{told}, so nothing is claimed",))
    needed = Criteria(1.0, "", method.standard.alpha).controls_needed
    controls, measured = walks(samples.split("find"), method, needed)
    scale = float(by_text[~held].mean(0)[np.triu_indices(by_text.shape[-1], 1)].mean())
    said = "; ".join(_said(members, method.cuts == "free") for members in found)
    seen = Seen(
        f"the {len(samples.sites)} layers of {net.name} form {len(found)} phases ({said})", effects, controls, WALKS
    )
    finding = Observations([net], places, settings, method.seed).claim(
        seen, method.standard.criteria(scale, "cosine distance")
    )
    table.attrs.update(measured)
    return Result("phases", (finding,), table, settings, _remarks(table, found))


def _said(members: Sequence[int], each: bool) -> str:
    """The layers of a phase: one by one, or as a range."""
    if each or len(members) == 1:
        return ",".join(map(str, members))
    return f"{members[0]}–{members[-1]}"


def cosine_distances(samples: Samples) -> tuple[Float[np.ndarray, "text layer layer"], np.ndarray]:
    """1 − cosine of every two layers at the same place, mean over the places of each text; and which texts.

    Raises:
        BadInput: fewer than three layers, layers of different widths, or a state that is zero.
    """
    unit = _directions(samples)
    texts = np.unique(samples.text)
    out = np.empty((len(texts), len(unit), len(unit)))
    for number, text in enumerate(texts):
        own = unit[:, torch.as_tensor(np.flatnonzero(samples.text == text))]
        out[number] = 1 - torch.einsum("lnd,mnd->lm", own, own).numpy() / own.shape[1]
    diagonal = np.arange(len(unit))
    out[:, diagonal, diagonal] = 0.0
    return np.maximum(out, 0.0), texts


def _directions(samples: Samples) -> Float[torch.Tensor, "layer sample channel"]:
    matrices = [samples.matrix(site).double() for site in samples.sites]
    widths = [matrix.shape[1] for matrix in matrices]
    if len(matrices) < 3 or len({*widths}) > 1:
        raise BadInput(
            f"expected three layers or more of one width, such as {SITES}; got {len(matrices)} sites of widths "
            f"{sorted({*widths})}: phases need pairs within and between"
        )
    states = torch.stack(matrices)
    norms = states.norm(dim=-1, keepdim=True)
    if bool((norms == 0).any()):
        raise BadInput("expected states with a direction; some are zero: choose sites that every token writes to")
    return states / norms


def walks(samples: Samples, method: Phasing, count: int) -> tuple[Float[np.ndarray, " walk"], dict[str, float]]:
    """The contrast of random walks that move as a network does on average, but in no phases.

    Each is one path in as many dimensions as the updates of the network have (participation ratio), with as many
    steps, all drawn alike: their mean cosine with the next one is the network's, and their length is such that
    neighbours are as far apart. It is cut like the network; the contrast is taken on the same path, in its favour.

    Args:
        samples: what the walks are matched to.
        method: how to cut.
        count: of walks.

    Returns:
        one contrast a walk, 0 for one that is not cut; and what they were matched in.
    """
    unit = _directions(samples)
    steps = unit.diff(dim=0)
    turning = float(torch.cosine_similarity(steps[1:], steps[:-1], dim=-1).mean())
    flat = steps.flatten(0, 1)
    spread = flat.T @ flat
    dims = max(2, round(float(spread.trace().square() / spread.square().sum())))
    near = float(1 - (unit[1:] * unit[:-1]).sum(-1).mean())
    rng = np.random.default_rng((method.seed, 2))
    found = []
    for _ in range(count):
        value = contrast(d := _walk(rng, len(unit), dims, turning, near), method.of(d))
        found.append(0.0 if value is None else float(value))
    return np.array(found), {"walk_dimensions": float(dims), "walk_turning": turning, "walk_step": near}


def _walk(rng: np.random.Generator, n: int, dims: int, turning: float, near: float) -> Float[np.ndarray, "layer layer"]:
    """Cosine distances along one path, whose neighbours are `near` apart on average."""
    start = rng.normal(size=dims)
    start /= np.linalg.norm(start)
    drawn = rng.normal(size=(n - 1, dims))
    steps = drawn.copy()
    # steps whose cosine with the next one is `turning` on average
    for i in range(1, n - 1):
        steps[i] = turning * steps[i - 1] + np.sqrt(max(0.0, 1 - turning**2)) * drawn[i]
    steps /= np.sqrt(dims)

    def distances(length: float) -> np.ndarray:
        path = start + length * np.vstack([np.zeros(dims), steps.cumsum(0)])
        path = path / np.linalg.norm(path, axis=1, keepdims=True)
        return np.maximum(1 - path @ path.T, 0.0)

    low, high = 0.0, 1.0
    while np.diagonal(distances(high), 1).mean() < near and high < 1e3:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.diagonal(distances(middle), 1).mean() < near else (low, middle)
    found = distances(high)
    np.fill_diagonal(found, 0.0)
    return (found + found.T) / 2


def _table(
    samples: Samples, by_text: np.ndarray, texts: np.ndarray, held: np.ndarray, found: Sequence[tuple[int, ...]],
    method: Phasing,
) -> Any:  # fmt: skip
    import xarray

    mean = by_text.mean(0)
    low, high = ends(mean, by_text)
    axes = ("site", "other_site")
    variables: dict[str, Any] = {
        "distance": (axes, mean), "distance_low": (axes, low), "distance_high": (axes, high),
        "phase": ("site", numbered(found, len(mean))),
        "stability": ("site", stability(by_text[~held], found, method)),
    }  # fmt: skip
    if len(mean) <= MOST_FREE:
        variables["free"] = ("site", numbered(free(by_text[~held].mean(0), method.stop), len(mean)))
    return xarray.Dataset(variables, {"site": samples.sites, "other_site": samples.sites})


def numbered(found: Sequence[Sequence[int]], n: int) -> np.ndarray:
    """The number of each layer's phase."""
    out = np.empty(n, dtype=int)
    for number, members in enumerate(found):
        out[list(members)] = number
    return out


def stability(by_text: np.ndarray, found: Sequence[Sequence[int]], method: Phasing) -> np.ndarray:
    """In which share of resampled texts the boundary before each layer is as found: there, or not there."""
    rng = np.random.default_rng((method.seed, 3))
    n = by_text.shape[-1]
    begins = _begins(numbered(found, n))
    same = np.zeros(n)
    for _ in range(method.resamples):
        drawn = by_text[rng.integers(0, len(by_text), len(by_text))].mean(0)
        same += _begins(numbered(method.of(drawn), n)) == begins
    return same / method.resamples


def _begins(phase: np.ndarray) -> np.ndarray:
    return np.concatenate([[True], phase[1:] != phase[:-1]])


def _remarks(table: Any, found: Sequence[Sequence[int]]) -> tuple[str, ...]:
    said = []
    if "free" in table and not np.array_equal(_pairs_of(table["free"].values), _pairs_of(table["phase"].values)):
        said.append("cuts into any sets of layers find other phases than cuts into earlier and later ones: see 'free'")
    worst = float(table["stability"].min())
    if worst < 0.8:
        said.append(f"a boundary holds in only {worst:.0%} of resampled texts")
    if len(found) == table.sizes["site"]:
        said.append("every layer is a phase of its own: stop= is too small for so few layers")
    return tuple(said)


def _pairs_of(phase: np.ndarray) -> np.ndarray:
    return phase[:, None] == phase[None]
