"""Pictures of units beside the images that activate them, and whether either predicts what activates the units.

beside = Beside.of(net, units, pictures)
beside.joined(visualise(net, units))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from openwork.network.measure import Tick, silent
from openwork.pictures import Pictures
from openwork.results.result import Result
from openwork.vision.responses.exemplars import Exemplars, exemplars
from openwork.vision.responses.predicts import Predicting, predicts
from openwork.vision.synthesis.ascent import size_of
from openwork.vision.synthesis.robustness import shrunk

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Beside:
    """Dataset examples of units and what they predict, read before minutes go into pictures.

    Args:
        net: the network.
        units: of it.
        pictures: the corpus.
        testing: whether references predict which held-out images activate a unit.
        examples: of each unit.
        predicted: by these.
    """

    net: Network
    units: Any
    pictures: Pictures
    testing: Predicting
    examples: Result
    predicted: Result

    @classmethod
    def of(cls, net: Network, units: Any, pictures: Pictures, seed: int = 0, tick: Tick = silent) -> Beside:
        """Read the corpus.

        Args:
            net: a network that reads images.
            units: see `openwork.vision.units.units_of`.
            pictures: the corpus.
            seed: of the split, and of what is drawn.
            tick: told the share that is done.

        Raises:
            BadInput: if it is too small.
        """
        testing = Predicting(seed=seed)
        examples = exemplars(net, units, pictures, Exemplars(seed=seed), tick=lambda share: tick(0.5 * share))
        predicted = predicts(net, units, pictures, testing, tick=lambda share: tick(0.5 + 0.5 * share))
        return cls(net, units, pictures, testing, examples, predicted)

    def joined(self, made: Result, tick: Tick = silent) -> Result:
        """Made pictures beside them, and whether these predict as well.

        Args:
            made: a result of `openwork.vision.synthesis.visualise`, one picture a unit.
            tick: told the share that is done.

        Returns:
            all findings, and one table: what was made, ``example_`` the dataset examples, ``examples_`` and
            ``picture_`` what either predicts.
        """
        size = size_of(self.net)
        pixels = torch.tensor(made.table["pixels"].to_numpy())
        pixels = shrunk(pixels, size).clamp(0, 1) if tuple(pixels.shape[-2:]) != size else pixels
        references = {one.name: pixels[i : i + 1] for i, one in enumerate(self.units)}
        shown = predicts(self.net, self.units, self.pictures, self.testing, references=references, tick=tick)
        table = made.table
        for prefix, other in (("example", self.examples), ("examples", self.predicted), ("picture", shown)):
            names = [*map(str, other.table.data_vars), *(str(n) for n in other.table.coords if n != "unit")]
            dims = [str(n) for n in other.table.dims if n != "unit" and n not in names]
            table = table.merge(
                other.table.rename({n: f"{prefix}_{n}" for n in [*names, *dims]}), combine_attrs="override"
            )
        parts = (made, self.examples, self.predicted, shown)
        remarks = tuple(dict.fromkeys(remark for part in parts for remark in part.remarks))
        findings = (*made.findings, *self.predicted.findings, *shown.findings)
        settings = {**made.settings, "exemplars": dict(self.predicted.settings)}
        return Result(made.method, findings, table, settings, remarks)
