"""How the class token of a vision transformer comes to know the class, block by block.

    class_token(net, Shapes(split="held-out", count=500))

Read early: what the network answers if the class token's last state is the one that it had behind an earlier block.
Cut off: how much of the true class's log-probability is lost, beyond what classes of other images lose, if it can no
longer look at the patches in one block, and in that block and all later ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Custom, Edit, KnockOut
from openwork.errors import BadInput
from openwork.evidence import wilson_interval
from openwork.network.measure import Tick, silent
from openwork.pictures import Masked
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Where
from openwork.vision.corpora import Split, claims_about
from openwork.vision.passes import encoded
from openwork.vision.tokens.own_class import own_class

if TYPE_CHECKING:
    from openwork.network import Network

RANDOM = "the looks of a random patch token at all others, cut in the same block"


@dataclass(frozen=True)
class ClassToken:
    """How the class token is followed.

    Args:
        batch: images that run at once.
        standard: what the claim must meet.
        seed: of the split and the controls.
    """

    batch: int = 64
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise BadInput(f"expected a batch of 1 or more; got {self.batch}")


def class_token(
    net: Network,
    pictures: Masked,
    method: ClassToken = ClassToken(),
    *,
    held_out: Masked | None = None,
    tick: Tick = silent,
) -> Result:
    """Follow the class token through the blocks.

    Args:
        net: a vision transformer that classifies by its first token.
        pictures: images with classes.
        method: how.
        held_out: images for the figures and the claim; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a table by ``block``, on held-out images: ``early`` accuracy read behind it, with ends; ``cut`` (nats that the
        true class loses without looks at patches in it, beyond what classes of other images lose) and ``cut_from`` (in
        it and all later blocks); and ``accuracy`` of the whole in its attributes. The finding is about the block whose
        cut cost most on find images; its controls cut the looks of random patch tokens instead.

    Raises:
        BadInput: for a network without a token before its patches, or one that does not read it.
    """
    last = f"blocks.{net.n_blocks - 1}.resid_post"
    if last not in net.sites or net.sites[last].axes != ("batch", "position", "channel"):
        raise BadInput(f"expected a vision transformer with blocks of patch tokens; {net.name} has none")
    if not net.grid(last).prefix:
        raise BadInput(f"expected a token before the patches; {net.name} has none")
    split = Split.of(pictures, held_out, method.seed)
    find = _Stage(net, split.find, split.find_rows, method.batch)
    cost = [find.lost(find.cut([block])).mean() for block in range(net.n_blocks)]
    tick(0.25)
    held = _Stage(net, split.held, split.held_rows, method.batch)
    early = [held.early(block) for block in range(net.n_blocks)]
    tick(0.4)
    cuts = np.stack([held.lost(held.cut([block])) for block in range(net.n_blocks)])
    cuts_from = [held.lost(held.cut(range(block, net.n_blocks))).mean() for block in range(net.n_blocks)]
    if not np.abs(cuts).max() > 0:
        raise BadInput(
            f"expected a network that reads its first token; cutting its looks changes nothing of {net.name}"
        )
    tick(0.6)
    best = int(np.argmax(cost))
    claims = claims_about(net, split, asdict(method), method.seed)
    criteria = method.standard.criteria(float(np.mean(cuts_from[0])), "nats")
    rng = np.random.default_rng((method.seed, 4))
    controls = []
    for _ in range(criteria.controls_needed):
        controls.append(float(held.lost(held.cut([best], int(rng.integers(held.patches)) + held.prefix)).mean()))
        tick(0.6 + 0.4 * len(controls) / criteria.controls_needed)
    text = f"the class token gathers the class from the patches in block {best}"
    finding = claims.claim(text, cuts[best], criteria, "held-out", np.array(controls), RANDOM)
    table = _table(net, held, np.array(early), cuts.mean(1), np.array(cuts_from))
    return Result("class token", (finding,), table, asdict(method), tuple(split.remarks))


class _Stage:
    """Some images with their classes."""

    def __init__(self, net: Network, pictures: Masked, rows: list[int], batch: int):
        self.net, self.pictures, self.rows, self.batch = net, pictures, rows, batch
        self.last = f"blocks.{net.n_blocks - 1}.resid_post"
        grid = net.grid(self.last)
        self.prefix, self.patches = grid.prefix, len(grid)
        self.labels = pictures.classes(rows).long().numpy()
        self.whole = self._answers(lambda inputs: [])

    def _answers(self, edits: Any) -> Float[np.ndarray, "image class"]:
        out = []
        for start in range(0, len(self.rows), self.batch):
            inputs = encoded(self.net, self.pictures.pixels(self.rows[start : start + self.batch]))
            out.append(self.net.run(inputs, edits=edits(inputs)).logits.double().log_softmax(-1).cpu())
        answers = torch.cat(out).numpy()
        if answers.shape[1] <= self.labels.max():
            raise BadInput(f"expected classes among the {answers.shape[1]} of {self.net.name}; got {self.labels.max()}")
        return answers

    def cut(self, blocks: Any, query: int = 0) -> list[Edit]:
        """What keeps one token from looking at patches in some blocks."""
        patches = Where(tuple(p for p in range(self.prefix, self.prefix + self.patches) if p != query))
        return [KnockOut(f"blocks.{block}.attn.scores", where=Where((query,)), keys=patches) for block in blocks]

    def lost(self, edits: list[Edit]) -> Float[np.ndarray, " image"]:
        """Log-probability that the edits cost the true class, beyond what they cost the classes of other images."""
        return own_class(self.whole - self._answers(lambda inputs: edits), self.labels)

    def early(self, block: int) -> tuple[float, float, float]:
        """The accuracy, with ends, if the class token's last state is the one behind this block."""
        site = f"blocks.{block}.resid_post"

        def instead(inputs: Tensor) -> list[Edit]:
            token = self.net.run(inputs, keep=site, until=site)[site][:, :1]
            return [Custom(self.last, fn=lambda value: torch.cat((token, value[:, 1:]), 1))]

        right = self._answers(instead).argmax(1) == self.labels
        interval = wilson_interval(int(right.sum()), len(right))
        return float(right.mean()), interval.low, interval.high

    @property
    def accuracy(self) -> float:
        """Of the network as it is."""
        return float((self.whole.argmax(1) == self.labels).mean())


def _table(net: Network, held: _Stage, early: np.ndarray, cuts: np.ndarray, cuts_from: np.ndarray) -> Any:
    import xarray

    columns = {"early": early[:, 0], "early_low": early[:, 1], "early_high": early[:, 2], "cut": cuts,
               "cut_from": cuts_from}  # fmt: skip
    table = xarray.Dataset({name: ("block", values) for name, values in columns.items()})
    table.attrs.update(network=net.name, unit="nats", accuracy=held.accuracy, n=len(held.rows))
    return table
