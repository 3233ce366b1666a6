"""Features of a network: its heads, its units, or the principal directions of a site; how alike any two of them are.

A feature is what an orthonormal map reads from one site: a slice of channels for a head, one channel for a unit, a
projection for a direction. So it can be written again, see `openwork.geometry.transplant`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from openwork.errors import BadInput
from openwork.geometry.samples import Samples
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

KINDS = ("parts", "directions")
DEAD = 1e-12
"""A feature whose variance is below this share of the largest one says nothing."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one network over samples.

    Args:
        names: one a feature: ``blocks.1.attn.z[3]``, or ``blocks.1.resid_post, direction 3``.
        sites: the site of each.
        maps: site -> (channel, feature, width): orthonormal columns that read its features, in their order.
        values: (sample, feature, width) of what they read, as float64.
        signed: whether opposite signs make two features different: so for units, not for directions.
        samples: where the values were read; its own values are of no further use.
    """

    names: tuple[str, ...]
    sites: tuple[str, ...]
    maps: dict[str, Tensor]
    values: Float[Tensor, "sample feature width"]
    signed: bool
    samples: Samples

    def __len__(self) -> int:
        return len(self.names)

    @property
    def width(self) -> int:
        """Numbers that each feature consists of."""
        return self.values.shape[-1]

    def take(self, rows: np.ndarray) -> Features:
        """The same features at some samples."""
        at = torch.as_tensor(rows)
        return replace(self, values=self.values[at], samples=self.samples.take(rows))

    def split(self, held: bool) -> Features:
        """The same features on find or held-out texts."""
        return self.take(np.flatnonzero(self.samples.held == held))

    @property
    def alive(self) -> np.ndarray:
        """Which of them vary."""
        variance = self.values.var(0).sum(-1)
        return (variance > DEAD * variance.max()).numpy() & bool(variance.max() > 0)


def features(
    net: Network, samples: Samples, kind: str = "parts", most: int = 512, basis: Features | None = None
) -> Features:
    """Take samples apart into features.

    Args:
        net: the network they are of.
        samples: at one site or several.
        kind: ``parts``: heads where a site has heads, or else its channels; ``directions``: the principal directions
            of the find samples of each site.
        most: features in all; of units the ones that vary most on find texts, the first directions of each site.
        basis: take the same features as these, instead of choosing.

    Raises:
        BadInput: an unknown kind, maps that were not read place by place, or sites whose parts are of different
            widths, such as heads and units together.
    """
    if kind not in KINDS:
        raise BadInput(f"expected features as one of {KINDS}; got {kind!r}")
    if basis is not None:
        return replace(basis, values=_read(samples, basis.maps), samples=samples)
    maps, names = {}, []
    by_site = max(1, most // len(samples.sites))
    for site in samples.sites:
        value = samples.values[site]
        heads = "head" in net.map.info(Site.parse(site).path).axes
        if kind == "directions":
            maps[site] = _principal(samples, site, by_site)[:, :, None]
            names += [f"{site}, direction {i}" for i in range(maps[site].shape[1])]
        elif heads:
            count, width = value.shape[1:3]
            maps[site] = torch.eye(count * width, dtype=torch.float64).view(count * width, count, width)
            names += [str(Site(site, (i,))) for i in range(count)]
        elif value.ndim > 2:
            raise BadInput(
                f"expected a site with one number for each unit at a place; {site} has {tuple(value.shape[1:])}: give "
                "what a network of images reads as images, not as tensors"
            )
        else:
            kept = _varying(samples, site, by_site)
            maps[site] = torch.eye(samples.matrix(site).shape[1], dtype=torch.float64)[:, kept][:, :, None]
            names += [str(Site(site, (i,))) for i in kept]
    if len({m.shape[2] for m in maps.values()}) > 1:
        raise BadInput(f"expected sites whose parts are alike, such as heads of one width; got {samples.sites}")
    if not names:
        raise BadInput(f"expected features that vary; none at {samples.sites} does")
    sites = tuple(site for site, m in maps.items() for _ in range(m.shape[1]))
    return Features(tuple(names), sites, maps, _read(samples, maps), kind == "parts", samples)


def _read(samples: Samples, maps: dict[str, Tensor]) -> Tensor:
    return torch.cat([torch.einsum("nc,cfw->nfw", samples.matrix(s).double(), m) for s, m in maps.items()], 1)


def _varying(samples: Samples, site: str, most: int) -> list[int]:
    """The channels that vary most on find texts, in their own order."""
    variance = samples.split("find").matrix(site).double().var(0)
    return sorted(variance.argsort(descending=True)[:most].tolist())


def _principal(samples: Samples, site: str, most: int) -> Float[Tensor, "channel direction"]:
    matrix = samples.split("find").matrix(site).double()
    _, singular, right = torch.linalg.svd(matrix - matrix.mean(0), full_matrices=False)
    rank = int((singular > 1e-6 * singular[0]).sum())
    if not rank:
        raise BadInput(f"expected values that vary at {site}; they do not")
    return right[: min(most, rank)].T


def likeness(a: Features, b: Features, rows: np.ndarray | None = None) -> Float[np.ndarray, "feature_a feature_b"]:
    """How alike every two features are over the same samples: correlation, or debiased CKA for heads.

    Args:
        a: features of one network.
        b: of another; row i is the same place.
        rows: which samples of `b` stand beside those of `a`, for a control; the same ones unless given.

    Returns:
        −1 to 1 for units, 0 to 1 for directions, about 0 to 1 for heads; 0 for a feature that does not vary.

    Raises:
        BadInput: different numbers of samples, or units against heads.
    """
    sums = [Sums.of(a, b, rows)]
    return of_sums(sums[0], a.width == 1, a.signed)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over samples from which likeness is computed; they add up over groups of texts.

    Args:
        n: number of samples.
        x, y: Σ of each, (feature, width).
        xy: Σ of products, (feature_a, feature_b, width_a, width_b).
        xx, yy: Σ of products of each feature with itself, (feature, width, width).
        moments: for CKA: Σ x|y|², Σ y|x|², Σ |x|²|y|², and the same of x with x and y with y.
    """

    n: float
    x: Tensor
    y: Tensor
    xy: Tensor
    xx: Tensor
    yy: Tensor
    moments: tuple[Tensor, ...]

    @classmethod
    def of(cls, a: Features, b: Features, rows: np.ndarray | None = None) -> Sums:
        """The sums of some samples."""
        x, y = a.values, b.values if rows is None else b.values[torch.as_tensor(rows)]
        if len(x) != len(y) or a.signed != b.signed or (a.width == 1) != (b.width == 1):
            raise BadInput(
                "expected features of one kind over the same places; got "
                f"{len(x)} × {a.width} numbers and {len(y)} × {b.width}"
            )
        (n, f, w), (_, g, v) = x.shape, y.shape
        xy = (x.flatten(1).T @ y.flatten(1)).view(f, w, g, v).transpose(1, 2)
        xx, yy = torch.einsum("nfi,nfj->fij", x, x), torch.einsum("ngi,ngj->gij", y, y)
        moments: tuple[Tensor, ...] = ()
        if w > 1:
            p, q = x.square().sum(-1), y.square().sum(-1)
            moments = (
                (q.T @ x.flatten(1)).view(g, f, w).transpose(0, 1), (p.T @ y.flatten(1)).view(f, g, v), p.T @ q,
                torch.einsum("nfi,nf->fi", x, p), p.square().sum(0),
                torch.einsum("ngi,ng->gi", y, q), q.square().sum(0),
            )  # fmt: skip
        return cls(float(n), x.sum(0), y.sum(0), xy, xx, yy, moments)

    def _with(self, other: Sums, sign: int) -> Sums:
        moments = tuple(m + sign * o for m, o in zip(self.moments, other.moments, strict=True))
        parts = (getattr(self, k) + sign * getattr(other, k) for k in ("n", "x", "y", "xy", "xx", "yy"))
        n, x, y, xy, xx, yy = parts
        return Sums(n, x, y, xy, xx, yy, moments)

    def __add__(self, other: Sums) -> Sums:
        return self._with(other, 1)

    def __sub__(self, other: Sums) -> Sums:
        return self._with(other, -1)


def of_sums(sums: Sums, scalar: bool, signed: bool) -> Float[np.ndarray, "feature_a feature_b"]:
    """Likeness from sums; see `likeness`."""
    n = sums.n
    if scalar:
        cov = sums.xy[..., 0, 0] - sums.x @ sums.y.T / n
        deviations = []
        for square, total in ((sums.xx, sums.x), (sums.yy, sums.y)):
            raw = square[:, 0, 0]
            variance = raw - total[:, 0].square() / n
            # what is left of a constant after subtraction is rounding
            deviations.append(torch.where(variance > 1e-12 * raw, variance, 0.0).sqrt())
        return _ratio(cov if signed else cov.abs(), deviations[0], deviations[1])
    x_by_y, y_by_x, squares, x_by_x, squares_x, y_by_y, squares_y = sums.moments
    p, q = (torch.diagonal(s, dim1=1, dim2=2).sum(-1) for s in (sums.xx, sums.yy))

    def hsic(product: Tensor, total_a: Tensor, total_b: Tensor, rows: Tensor) -> Tensor:
        return product + total_a * total_b / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows

    total_x, total_y = sums.x.square().sum(-1) - p, sums.y.square().sum(-1) - q
    rows = torch.einsum("fi,fgij,gj->fg", sums.x, sums.xy, sums.y)
    rows = rows - torch.einsum("fi,fgi->fg", sums.x, x_by_y) - torch.einsum("gi,fgi->fg", sums.y, y_by_x) + squares
    cross = hsic(sums.xy.square().sum((-1, -2)) - squares, total_x[:, None], total_y[None], rows)
    own = []
    for s, total, by, square, t in (
        (sums.xx, sums.x, x_by_x, squares_x, total_x), (sums.yy, sums.y, y_by_y, squares_y, total_y)
    ):  # fmt: skip
        r = torch.einsum("fi,fij,fj->f", total, s, total) - 2 * (total * by).sum(-1) + square
        value = hsic(s.square().sum((-1, -2)) - square, t, t, r)
        own.append(torch.where(value > 1e-12 * s.square().sum((-1, -2)), value, 0.0).sqrt())
    return _ratio(cross, own[0], own[1])


def _ratio(cross: Tensor, a: Tensor, b: Tensor) -> np.ndarray:
    scale = a[:, None] * b[None]
    return torch.where(scale > 0, cross / torch.where(scale > 0, scale, 1.0), 0.0).numpy()


def matched(values: Float[np.ndarray, "feature_a feature_b"]) -> tuple[np.ndarray, np.ndarray]:
    """The one-to-one matching with the largest total likeness.

    Args:
        values: how alike they are.

    Returns:
        features of a and of b, as many as the smaller network has, in order of a.

    Source:
        Kuhn 1955; `scipy.optimize.linear_sum_assignment`.
    """
    rows, columns = linear_sum_assignment(values, maximize=True)
    return rows, columns
