"""What looks alike, put to work: the features of one network carried by those of another while it runs.

Each matched feature of a network is replaced, at every place of held-out texts, by what a linear map (fitted on find
texts) makes of its counterpart in the other network. If the counterparts carry the same, little is lost. In images a
place of one map is carried by the place of the other whose cell holds its middle.

Source: Lenc and Vedaldi 2015 and Bansal et al. 2021 (model stitching), feature by feature and against other matchings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Custom
from openwork.geometry.features import Features
from openwork.geometry.samples import Places
from openwork.geometry.views import centres, laid_back, laid_out, positions
from openwork.metrics import kl_divergence

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid
    from openwork.network.run import Run

RIDGE = 1e-3
"""Of the variance of the features that are read: keeps nearly dependent ones from being blown up."""
Pairs = Sequence[tuple[int, int]]
Tick = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Fits:
    """Linear maps from any feature of one network to any of another, fitted on find texts when asked for.

    Args:
        to: features that are written.
        of: features that are read, at the same places.
    """

    to: Features
    of: Features
    known: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def map(self, to: int, of: int) -> tuple[Tensor, Tensor]:
        """Weights (width_of, width_to) and bias of ridge regression."""
        if (to, of) not in self.known:
            y, x = self.to.values[:, to], self.of.values[:, of]
            centred = x - x.mean(0)
            gram = centred.T @ centred
            eye = torch.eye(len(gram), dtype=gram.dtype)
            ridge = (RIDGE * gram.trace() / len(gram)).clamp_min(1e-12)
            weights = torch.linalg.solve(gram + ridge * eye, centred.T @ (y - y.mean(0)))
            self.known[to, of] = weights, y.mean(0) - x.mean(0) @ weights
        return self.known[to, of]


@dataclass(frozen=True, eq=False)
class Read:
    """What the features of one site of the other network read of a batch.

    Args:
        first: the number of its first feature.
        values: (text, position, feature, width).
        grid: of an image, the places of the site; None elsewhere.
    """

    first: int
    values: Tensor
    grid: Grid | None


@dataclass(frozen=True, eq=False)
class Stage:
    """Held-out texts, one network that is written on them, and another that is read.

    Args:
        net: the network that is written.
        other: the network that is read.
        places: the texts.
        texts: the numbers of those used.
        fits: the maps.
        here: of images, site -> places of the network that is written.
        there: the same of the other one.
    """

    net: Network
    other: Network
    places: Places
    texts: Sequence[int]
    fits: Fits
    here: Mapping[str, Grid | None]
    there: Mapping[str, Grid | None]

    @classmethod
    def of(cls, net: Network, other: Network, places: Places, fits: Fits) -> Stage:
        """Set up the held-out texts.

        Args:
            net: the network that is written.
            other: the one whose features are read.
            places: the texts, in the same tokens for both, or images.
            fits: the maps between their features.
        """
        here, there = places.lie(net, list(fits.to.maps)), places.lie(other, list(fits.of.maps), 1)
        return cls(net, other, places, places.texts("held-out"), fits, here, there)

    @property
    def obstacle(self) -> str | None:
        """Why nothing can be put in each other's place, or None."""
        if self.places.formats:
            if self.places.points is None and any(grid is not None for grid in self.here.values()):
                return f"means over images of {self.net.name} were compared, which no place of its maps can carry"
            axes = self.net.sites["logits"].axes if "logits" in self.net.sites else ()
            return None if len(axes) == 2 else f"{self.net.name} gives no classes of images to measure a loss by"
        if self.places.rows is None or self.places.by_word:
            return "the networks read other tokens, or tensors"
        return None

    def divergence(self, pairs: Pairs, silent: bool = False) -> Float[np.ndarray, " text"]:
        """KL of the edited run from the unedited one, mean over the places of each text, in nats.

        Args:
            pairs: (feature that is written, feature that is read).
            silent: write the mean of the find texts instead: no information.
        """
        return self.divergences([(pairs, silent)])[0]

    def divergences(
        self, jobs: Sequence[tuple[Pairs, bool]], tick: Tick = lambda share: None
    ) -> Float[np.ndarray, "job text"]:
        """`divergence` of several sets of pairs; each batch of texts is read once.

        Args:
            jobs: the pairs, and whether the mean is written, of each.
            tick: told the share that is done.
        """
        found: list[list[np.ndarray]] = [[] for _ in jobs]
        size = self.places.sampling.batch
        for start in range(0, len(self.texts), size):
            texts = self.texts[start : start + size]
            inputs = self.places.inputs(texts, dtype=self.net.dtype)
            with torch.no_grad():
                clean = self.net.run(inputs)
                reads = self._reads(texts)
                for number, (out, (pairs, silent)) in enumerate(zip(found, jobs, strict=True)):
                    edited = self.net.run(inputs, edits=self._edits(reads, pairs, silent))
                    out.append(_lost(clean, edited))
                    tick((start + len(texts) * (number + 1) / len(jobs)) / len(self.texts))
        return np.array([np.concatenate(parts) for parts in found])

    def _reads(self, texts: Sequence[int]) -> list[Read]:
        maps = self.fits.of.maps
        run = self.other.run(self.places.inputs(texts, 1, self.other.dtype), keep=list(maps))
        reads, first = [], 0
        for site, own in maps.items():
            grid = self.there.get(site)
            value = laid_out(run[site].detach(), run.axes(site)).flatten(2).cpu().double()
            if self.places.formats and self.places.points is None:
                value = value[:, slice(None) if grid is None else _span(grid)].mean(1, keepdim=True)
                grid = None
            reads.append(Read(first, torch.einsum("bpc,cfw->bpfw", value, own), grid))
            first += own.shape[1]
        return reads

    def _edits(self, reads: Sequence[Read], pairs: Pairs, silent: bool) -> list[Custom]:
        edits, start = [], 0
        for site, maps in self.fits.to.maps.items():
            stop = start + maps.shape[1]
            own = [(i, j) for i, j in pairs if start <= i < stop]
            if own:
                grid = self.here.get(site)
                goals = [self._goal(reads, i, j, grid, silent) for i, j in own]
                chosen = maps[:, [i - start for i, _ in own]]
                edits.append(Custom(site, fn=self._writer(site, chosen, torch.stack(goals, 2), grid)))
            start = stop
        return edits

    def _goal(self, reads: Sequence[Read], to: int, of: int, grid: Grid | None, silent: bool) -> Tensor:
        """What one feature is to be, (text, position that is written, width)."""
        read = next(read for read in reversed(reads) if read.first <= of)
        value = read.values[:, :, of - read.first]
        if grid is not None and read.grid is not None:
            value = value[:, torch.as_tensor(positions(read.grid, centres(grid)))]
        elif not self.places.formats:
            # the maps were not fitted on the first tokens, whose states are of another kind
            value = value[:, self.places.sampling.skip :]
        if silent:
            return self.fits.to.values[:, to].mean(0).expand(*value.shape[:2], -1)
        weights, bias = self.fits.map(to, of)
        return value @ weights + bias

    def _writer(self, site: str, maps: Tensor, goal: Tensor, grid: Grid | None) -> Callable[[Tensor], Tensor]:
        axes = self.net.map.info(site).axes
        skipped = 0 if self.places.formats else self.places.sampling.skip
        span = slice(skipped, None) if grid is None else _span(grid)

        def write(value: Tensor) -> Tensor:
            laid = laid_out(value, axes)
            flat = laid.flatten(2).clone()
            map_, wanted = maps.to(flat), goal.to(flat)
            now = torch.einsum("bpc,cfw->bpfw", flat[:, span], map_)
            flat[:, span] += torch.einsum("bpfw,cfw->bpc", wanted - now, map_)
            return laid_back(flat.view(laid.shape), value, axes)

        return write


def _span(grid: Grid) -> slice:
    return slice(grid.prefix, grid.prefix + len(grid))


def _lost(clean: Run, edited: Run) -> Float[np.ndarray, " text"]:
    values = kl_divergence(clean.logits.float(), edited.logits.float()).cpu().double().numpy()
    if values.ndim == 1:
        return values
    return np.array([row[:n].mean() for row, n in zip(values, clean.lengths, strict=True)])
