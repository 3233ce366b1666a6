"""How many dimensions each layer uses: effective rank, participation ratio, spectral entropy, rank above a threshold.

    spectra(net, texts)

Source: Roy and Vetterli 2007 (effective rank); Gao et al. 2017 (participation ratio).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from openwork.errors import BadInput
from openwork.geometry.observed import Observations, Seen
from openwork.geometry.resampling import ends, pseudo_values
from openwork.geometry.samples import Material, Places, Samples, Sampling
from openwork.geometry.shuffled import Blank
from openwork.metrics.spectrum import effective_rank, participation_ratio, threshold_rank
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

MEASURES = {
    "effective_rank": effective_rank,
    "participation_ratio": participation_ratio,
    "threshold_rank": threshold_rank,
}
COPIES = "copies with the entries of every weight matrix shuffled"


@dataclass(frozen=True)
class Spectrum:
    """How to measure dimensions.

    Args:
        copies: how many copies with shuffled weights are controls.
        groups: how many groups of texts the intervals rest on, at most.
        sampling: which places are looked at.
        standard: what a claim must meet.
        seed: of controls and intervals.
    """

    copies: int = 20
    groups: int = 32
    sampling: Sampling = field(default_factory=Sampling)
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.groups < 2 or self.copies < 1:
            raise BadInput(f"expected 2 groups and one copy or more; got {self.groups} and {self.copies}")


@dataclass(frozen=True, eq=False)
class Covariance:
    """Sums over samples from which a covariance is computed; they add up over groups of texts."""

    n: Tensor
    x: Tensor
    xx: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Covariance:
        """The sums of some samples (sample, channel)."""
        samples = samples.double()
        return cls(torch.tensor(float(len(samples))), samples.sum(0), samples.T @ samples)

    def __add__(self, other: Covariance) -> Covariance:
        return Covariance(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Covariance) -> Covariance:
        return Covariance(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Of the covariance, largest first; no smaller than 0."""
        found = torch.linalg.eigvalsh(self.xx / self.n - torch.outer(self.x / self.n, self.x / self.n))
        return found.flip(0).clamp_min(0)


def spectra(
    net: Network, material: Material, sites: str | Site = "blocks.*.resid_post", method: Spectrum = Spectrum()
) -> Result:
    """Measure how many dimensions each site uses, beside copies of the network that have learned nothing.

    Args:
        net: the network.
        material: texts, rows of token ids, tensors, or images; half of them are held out.
        sites: a site or pattern.
        method: how.

    Returns:
        a table with ``effective_rank``, ``participation_ratio`` and ``threshold_rank`` (singular values above a
        hundredth of the largest) by ``site``, with jackknife ends over all texts, ``spectral_entropy`` (nats), and
        ``control_effective_rank`` (control, site); ``eigenvalue`` (site, number) as shares of their sum. The finding
        is about the site whose effective rank lies farthest below that of its controls on find texts.

    Raises:
        BadInput: too few texts, NaN, or a site that does not vary.
        UnknownName: for a site that does not exist.

    Units:
        dimensions.

    Source:
        Roy and Vetterli 2007, definition 1.
    """
    places = Places.of([net], material, method.sampling, [[sites]])
    samples = _centred(places.read(net, sites))
    blank = Blank(net)
    controls: dict[str, list[np.ndarray]] = {"find": [], "held-out": []}
    for copy in range(method.copies):
        drawn = _centred(places.read(blank.shuffled(method.seed + copy), sites))
        for split in ("find", "held-out"):
            controls[split].append(_ranks(drawn.split(split)))
    find, held = (np.array(controls[split]) for split in ("find", "held-out"))
    table = _table(samples, held, method)
    table.attrs.update(network=net.name, unit="dimensions", n=len(samples))
    settings = {**asdict(method), "sites": str(sites)}
    fewer = np.log(find.mean(0) / _ranks(samples.split("find")))
    at = int(fewer.argmax())
    site = samples.sites[at]
    kept = samples.split("held-out")
    parts = [Covariance.of(kept.matrix(site)[torch.as_tensor(rows)]) for rows in kept.groups(method.groups)]
    _, values = pseudo_values(parts, lambda c: float(effective_rank(c.eigenvalues)))
    mean = float(held[:, at].mean())
    seen = Seen(
        f"{site} of {net.name} uses fewer dimensions (effective rank) than without what was learned",
        mean - values, mean - held[:, at], COPIES,
    )  # fmt: skip
    criteria = method.standard.criteria(float(find[:, at].mean()), "dimensions")
    finding = Observations([net], places, settings, method.seed).claim(seen, criteria)
    most = max(samples.matrix(name).shape[1] for name in samples.sites)
    few = (f"{len(samples)} places bound the ranks of up to {most} dimensions: read more texts",)
    return Result("spectrum", (finding,), table, settings, few if len(samples) < 4 * most else ())


def _centred(samples: Samples) -> Samples:
    """Centred once, so that sums keep their digits."""
    values = {}
    for site in samples.sites:
        matrix = samples.matrix(site).double()
        values[site] = matrix - matrix.mean(0)
        if not bool((values[site].abs() > 1e-12 * matrix.abs().max()).any()):
            raise BadInput(f"expected values that vary at {site}; they are the same at all places")
    return Samples(values, samples.text, samples.held)


def _ranks(samples: Samples) -> np.ndarray:
    return np.array([float(effective_rank(Covariance.of(samples.values[s]).eigenvalues)) for s in samples.sites])


def _table(samples: Samples, controls: np.ndarray, method: Spectrum) -> Any:
    import xarray

    names: Sequence[str] = list(MEASURES)
    groups = samples.groups(method.groups)
    found: dict[str, list[Any]] = {f"{name}{end}": [] for name in names for end in ("", "_low", "_high")}
    shares = []
    for site in samples.sites:
        parts = [Covariance.of(samples.values[site][torch.as_tensor(rows)]) for rows in groups]
        theta, pseudo = pseudo_values(parts, lambda c: np.array([float(f(c.eigenvalues)) for f in MEASURES.values()]))
        low, high = ends(theta, pseudo)
        for i, name in enumerate(names):
            found[name].append(theta[i])
            found[f"{name}_low"].append(low[i])
            found[f"{name}_high"].append(high[i])
        values = Covariance.of(samples.values[site]).eigenvalues.numpy()
        shares.append(values / values.sum())
    most = max(map(len, shares))
    padded = np.array([np.pad(s, (0, most - len(s)), constant_values=np.nan) for s in shares])
    variables: dict[str, Any] = {name: ("site", np.array(values)) for name, values in found.items()}
    variables["spectral_entropy"] = ("site", np.log(found["effective_rank"]))
    variables["eigenvalue"] = (("site", "number"), padded)
    variables["control_effective_rank"] = (("control", "site"), controls)
    return xarray.Dataset(variables, {"site": samples.sites})
