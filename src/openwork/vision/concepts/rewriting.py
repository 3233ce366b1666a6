"""Writing maps of a site back into the network, and what the network then says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Custom
from openwork.errors import BadInput
from openwork.network import measure
from openwork.network.measure import Tick, silent
from openwork.task import Batch, Metric, Tensors
from openwork.vision.corpora import grid_of
from openwork.vision.halves import read
from openwork.vision.passes import maps

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

Change = Callable[[Float[Tensor, "image channel y x"]], Float[Tensor, "image channel y x"]]
MAP, TOKENS = ("batch", "channel", "y", "x"), ("batch", "position", "channel")


def written(value: Tensor, new: Float[Tensor, "image channel y x"], axes: tuple[str, ...], grid: Grid) -> Tensor:
    """The value of a site with its maps replaced: the inverse of `openwork.vision.passes.maps`.

    Raises:
        BadInput: for a site that is neither a map of channels nor of tokens.
    """
    require_maps(axes)
    if axes == MAP:
        return new.to(value)
    out = value.clone()
    out[:, grid.prefix : grid.prefix + len(grid)] = new.flatten(2).transpose(1, 2).to(value)
    return out


def require_maps(axes: tuple[str, ...]) -> None:
    """Refuse a site that maps cannot be written to."""
    if axes not in (MAP, TOKENS):
        raise BadInput(f"expected a site of maps {MAP} or tokens {TOKENS}; this one has axes {axes}")


def class_logit(classes: int) -> Metric:
    """The logit of each image's class less the mean of all logits, so that it does not depend on a common shift."""

    def read_off(logits: Tensor, answer: Tensor, wrong: Tensor) -> Tensor:
        return logits.gather(-1, answer[:, None]).squeeze(-1) - logits.mean(-1)

    return Metric(f"class logit above the mean of {classes}", "logits", read_off)


class Rewriting:
    """Some images, and what a network says of them when the maps of one site are changed.

    Args:
        net: the network.
        site: one site.
        corpus: images.
        rows: which.
        classes: whose logit is read for each.
    """

    def __init__(self, net: Network, site: str, corpus: Any, rows: Sequence[int], classes: Sequence[int]):
        self.net, self.site, self.axes, self.grid = net, site, net.map.info(site).axes, grid_of(net, site, corpus)
        require_maps(self.axes)
        inputs = Tensors({net.preparer.main: read(net, corpus, list(rows))})
        zeros = (0,) * len(rows)
        self.batch = Batch(inputs, inputs, tuple(int(c) for c in classes), zeros, zeros)
        run = net.run(dict(inputs.values), keep=site)
        assert run.logits is not None
        self.maps = maps(run[site], self.axes, self.grid).float()
        self.logits = run.logits.float()
        self.metric = class_logit(self.logits.shape[-1])

    def values(self, changes: Sequence[Change], tick: Tick = silent) -> Float[np.ndarray, "change image"]:
        """The metric of each image under each change of its maps."""

        def edit(change: Change) -> Custom:
            def fn(value: Tensor) -> Tensor:
                return written(value, change(maps(value, self.axes, self.grid)), self.axes, self.grid)

            return Custom(self.site, fn=fn)

        return measure(self.net, self.batch, self.metric, [(edit(c),) for c in changes], tick=tick).values

    @property
    def plain(self) -> Float[np.ndarray, " image"]:
        """The metric of the unedited network."""
        return self.batch.measure(self.metric, self.logits).double().cpu().numpy()


def predictions(net: Network, corpus: Any, rows: Sequence[int], batch: int = 64) -> np.ndarray:
    """The class that the network gives each image."""
    found = []
    for start in range(0, len(rows), batch):
        with torch.no_grad():
            logits = net.run({net.preparer.main: read(net, corpus, list(rows[start : start + batch]))}).logits
        if logits is None or logits.ndim != 2:
            raise BadInput(f"expected a network with logits (image, class); {net.name} has none such")
        found.append(logits.argmax(-1).cpu().numpy())
    return np.concatenate(found)
