"""What a network that is to do a program part by part is asked: the losses of strict interchange, and accuracies.

*Behaviour*: the answers are the program's. *Interchange*: what a part computes on another row, or what goes along one
edge of the circuit, is put into both networks; the trained one is to say what the compiled one says then. *Strictness*:
whatever goes along edges that are not in the program's circuit may be that of another row; the answers stay.

Source: Geiger et al. 2022, "Inducing Causal Structure for Interpretable Neural Networks" (interchange); Gupta et al.
2024, "InterpBench: Semi-Synthetic Transformers for Evaluating Mechanistic Interpretability Techniques" (strictness, on
nodes; here it is on edges).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openwork.recipes.evaluate import Accuracy
from openwork.zoo import edgewise
from openwork.zoo.compiled import Compiled, Program
from openwork.zoo.compiled.program import Row
from openwork.zoo.siit import Correspondence
from openwork.zoo.transformer import Transformer

TIE = 0.02
"""Words whose probabilities differ by less are equally likely."""


@dataclass(frozen=True)
class Rows:
    """Rows of a program.

    Attributes:
        ids: token ids.
        asked: where the program has an answer.
    """

    ids: Int[Tensor, "row position"]
    asked: Bool[Tensor, "row position"]

    def __getitem__(self, chosen: Int[Tensor, " n"] | slice) -> Rows:
        return Rows(self.ids[chosen], self.asked[chosen])


def drawn(program: Program, n: int, seed: int) -> Rows:
    """Draw rows, every second one near the one before it, of which the program answers at least one position.

    Args:
        program: whose rows.
        n: how many.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)

    def rows() -> Iterator[Row]:
        while True:
            row = program.domain.sample(rng)
            asked = [i for i, answer in enumerate(program.algorithm(row)) if answer is not None]
            if not asked:
                continue
            yield row
            if program.domain.near is not None:
                other = program.domain.near(row, int(rng.choice(asked)), rng)
                if any(answer is not None for answer in program.algorithm(other)):
                    yield other

    chosen = list(islice(rows(), n))
    asked = [[answer is not None for answer in program.algorithm(row)] for row in chosen]
    return Rows(torch.tensor(program.encode(chosen)), torch.tensor(asked))


@dataclass(frozen=True)
class Swaps:
    """What may be swapped, as edges that a run keeps.

    Attributes:
        names: of the parts and edges of the circuit, parts first.
        high: for each, the edges of the compiled network that keep this run's value while it is swapped.
        low: the same of the trained network.
        untrue: the edges of the trained network that are not in the circuit.
    """

    names: tuple[str, ...]
    high: Bool[Tensor, "swap receiver sender"]
    low: Bool[Tensor, "swap receiver2 sender2"]
    untrue: Bool[Tensor, "receiver2 sender2"]

    @classmethod
    def of(cls, compiled: Compiled, network: Transformer, correspondence: Correspondence) -> Swaps:
        """Of a compiled network and one that is to do the same.

        Args:
            compiled: with its answer.
            network: of any weights.
            correspondence: of their parts.
        """
        known = compiled.known
        parts = {node.site: None for nodes in known.roles.values() for node in nodes}
        moved = [[edge for edge in edgewise.edges(compiled.network) if edge.sender == part] for part in parts]
        low_edges = edgewise.edges(network)
        moved_low = [[edge for edge in low_edges if edge.sender == correspondence.site(part)] for part in parts]
        moved += [[edge] for edge in known.edges]
        moved_low += [[correspondence.edge(edge)] for edge in known.edges]
        true = {correspondence.edge(edge) for edge in known.edges}
        return cls(
            (*map(str, parts), *map(str, known.edges)),
            torch.stack([~edgewise.mask_of(compiled.network, edges) for edges in moved]),
            torch.stack([~edgewise.mask_of(network, edges) for edges in moved_low]),
            edgewise.mask_of(network, [edge for edge in low_edges if edge not in true]),
        )

    def kept(self, drawn: torch.Generator, all_at_once: float) -> Bool[Tensor, "receiver2 sender2"]:
        """Which edges keep their value under the strictness loss.

        Args:
            drawn: source of randomness.
            all_at_once: how often none that is not in the circuit does; else a random half of these.
        """
        spared = torch.rand(self.untrue.shape, generator=drawn) < 0.5
        strictest = bool(torch.rand(1, generator=drawn) < all_at_once)
        return ~self.untrue if strictest else ~self.untrue | spared


@dataclass(frozen=True)
class Losses:
    """The three losses of a step, each a mean over rows."""

    behaviour: Float[Tensor, ""]
    interchange: Float[Tensor, ""]
    strictness: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Their sum."""
        return self.behaviour + self.interchange + self.strictness


def losses(
    compiled: Compiled,
    network: Transformer,
    swaps: Swaps,
    rows: Rows,
    shift: int,
    chosen: int,
    kept: Bool[Tensor, "receiver2 sender2"],
) -> Losses:
    """The three losses on some rows.

    Args:
        compiled: what the network is to do.
        network: that is trained.
        swaps: what may be swapped.
        rows: token ids, and where the program answers.
        shift: row i takes what is swapped from row i - shift.
        chosen: which swap the interchange loss makes.
        kept: the edges that keep their value under the strictness loss.
    """
    device = next(network.parameters()).device
    with torch.no_grad():
        high = edgewise.run(compiled.network, rows.ids)
        others = high.contributions.roll(shift, 1)
        swapped = edgewise.run(compiled.network, rows.ids, swaps.high[chosen], others, high.contributions)
    ids, asked = rows.ids.to(device), rows.asked.to(device)
    low = edgewise.run(network, ids)
    other = low.contributions.roll(shift, 1)
    interchanged = edgewise.run(network, ids, swaps.low[chosen].to(device), other, low.contributions)
    strict = edgewise.run(network, ids, kept.to(device), other, low.contributions)

    def mismatch(said: Tensor, target: Tensor) -> Float[Tensor, ""]:
        by_position = F.cross_entropy(said[asked], target.to(device)[asked].softmax(dim=-1), reduction="none")
        # a row counts the same however many positions it is asked at
        weight = (1 / asked.sum(dim=1, keepdim=True)).expand_as(asked)[asked]
        return (by_position * weight).sum() / len(ids)

    return Losses(
        mismatch(low.logits, high.logits),
        mismatch(interchanged.logits, swapped.logits),
        mismatch(strict.logits, high.logits),
    )


@torch.no_grad()
def task_accuracy(compiled: Compiled, network: Transformer, rows: Rows) -> Accuracy:
    """How often the likeliest word is the compiled program's answer, over all positions asked.

    Args:
        compiled: the program, which agrees with its algorithm.
        network: that is trained.
        rows: of the program.
    """
    right = (network(rows.ids).logits.argmax(-1) == compiled.network(rows.ids).logits.argmax(-1))[rows.asked]
    return Accuracy(int(right.sum()), len(right), 1 / network.config.vocabulary)


@dataclass(frozen=True)
class Interchanged:
    """How often a network's likeliest word is a likeliest word of the compiled one, the same being swapped in both.

    Half a swap (one of two heads that share their work) may leave the compiled network with a tie: either is right.

    Attributes:
        all: over all positions asked.
        changed: over those at which the compiled network's word without the swap is no longer right.
    """

    all: Accuracy
    changed: Accuracy

    @classmethod
    def together(cls, each: Iterable[Interchanged]) -> Interchanged:
        """Several swaps as one."""
        each = list(each)
        return cls(_sum([found.all for found in each]), _sum([found.changed for found in each]))


@torch.no_grad()
def interchange_accuracy(
    compiled: Compiled, network: Transformer, swaps: Swaps, rows: Rows, shift: int = 2
) -> dict[str, Interchanged]:
    """How often both networks say the same while the same is swapped in both, see `Interchanged`.

    Args:
        compiled: the program.
        network: that is trained.
        swaps: what is swapped.
        rows: of the program.
        shift: row i takes what is swapped from row i - shift; neighbours may be alike, see `drawn`.

    Returns:
        Part or edge of the compiled network -> accuracies.
    """
    high, low = edgewise.run(compiled.network, rows.ids), edgewise.run(network, rows.ids)
    others = (high.contributions.roll(shift, 1), low.contributions.roll(shift, 1))
    unswapped, chance = high.logits.argmax(-1, keepdim=True), 1 / network.config.vocabulary
    found = {}
    for name, keep_high, keep_low in zip(swaps.names, swaps.high, swaps.low, strict=True):
        target = edgewise.run(compiled.network, rows.ids, keep_high, others[0]).logits.softmax(-1)
        said = edgewise.run(network, rows.ids, keep_low, others[1]).logits.argmax(-1, keepdim=True)
        likeliest = target > target.amax(-1, keepdim=True) - TIE
        right = likeliest.gather(-1, said)[..., 0]
        changed = rows.asked & ~likeliest.gather(-1, unswapped)[..., 0]
        both = (Accuracy(int(right[some].sum()), int(some.sum()), chance) for some in (rows.asked, changed))
        found[name] = Interchanged(*both)
    return found


def _sum(each: list[Accuracy]) -> Accuracy:
    return Accuracy(sum(a.right for a in each), sum(a.n for a in each), each[0].chance)
