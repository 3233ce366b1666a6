"""Strict interchange training: a network learns a program, with each part in a place of its own.

Three losses. *Behaviour*: the answers are the program's. *Interchange*: what a part computes on another row, or what
goes along one edge of the circuit, is put into both networks; the trained one is to say what the compiled one says
then. *Strictness*: whatever goes along edges that are not in the program's circuit may be that of another row; the
answers stay.

Source: Geiger et al. 2022, "Inducing Causal Structure for Interpretable Neural Networks" (interchange); Gupta et al.
2024, "InterpBench: Semi-Synthetic Transformers for Evaluating Mechanistic Interpretability Techniques" (strictness, on
nodes; here it is on edges).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openwork.recipes.evaluate import Accuracy
from openwork.recipes.export import rounded, write_model
from openwork.recipes.recipe import Descent, generator
from openwork.recipes.siit_card import as_text, make_card, tested, together
from openwork.recipes.state import State
from openwork.recipes.tokenizer import save_tokenizer, word_tokenizer
from openwork.site import Site
from openwork.zoo import edgewise
from openwork.zoo.compiled import Compiled, Program
from openwork.zoo.siit import FAMILY, Correspondence
from openwork.zoo.transformer import Transformer, TransformerConfig

HEADS = 4
POOL = 20_000
"""Rows that training draws from."""
MEASURE_EVERY = 250
MEASURED_ROWS = 256
DESCENT = Descent(peak=2e-3, warmup=100, decay=600, weight_decay=0.01, betas=(0.9, 0.98), clip=1.0)


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

    def rows():
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

    def kept(self, drawn: torch.Generator) -> Bool[Tensor, "receiver2 sender2"]:
        """Which edges keep their value under the strictness loss: most times none that is not in the circuit, else a
        random half of these.
        """
        spared = torch.rand(self.untrue.shape, generator=drawn) < 0.5
        strictest = bool(torch.rand(1, generator=drawn) < 0.75)
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


@dataclass(frozen=True, eq=False)
class StrictInterchange:
    """A network for a compiled program: a `recipe.Recipe`.

    Attributes:
        compiled: the program.
        width: channels of the residual stream.
        mlp: hidden units of each layer.
        steps: of the training.
        rows: of a step.
        descent: the optimiser.
    """

    compiled: Compiled
    width: int = 48
    mlp: int = 96
    steps: int = 1200
    rows: int = 64
    descent: Descent = DESCENT

    @property
    def name(self) -> str:
        """Of the embedded model."""
        return FAMILY + self.compiled.program.name

    @property
    def config(self) -> TransformerConfig:
        """The shape: four heads and an MLP in each layer, also where the program needs none."""
        high = self.compiled.network.config
        layers = max(2, high.layers)
        return TransformerConfig(
            vocabulary=high.vocabulary,
            context=high.context,
            width=self.width,
            heads=(HEADS,) * layers,
            mlp=(self.mlp,) * layers,
            head_width=self.width // HEADS,
            norm="layer",
            activation="gelu",
            causal=high.causal,
        )

    @cached_property
    def correspondence(self) -> Correspondence:
        """Each head has a random head of its layer, each MLP that of its layer."""
        high, rng = self.compiled.network.config, np.random.default_rng(0)
        parts = {}
        for layer, (heads, units) in enumerate(zip(high.heads, high.mlp, strict=True)):
            places = rng.permutation(HEADS)
            z, mlp = f"blocks.{layer}.attn.z", Site(f"blocks.{layer}.mlp.out")
            parts |= {Site(z, (head,)): Site(z, (int(places[head]),)) for head in range(heads)}
            parts |= {mlp: mlp} if units else {}
        return Correspondence(parts)

    @cached_property
    def swaps(self) -> Swaps:
        """What may be swapped."""
        return Swaps.of(self.compiled, Transformer(self.config), self.correspondence)

    @cached_property
    def pool(self) -> Rows:
        """The rows that training draws from."""
        return drawn(self.compiled.program, POOL, seed=0)

    @cached_property
    def measured_rows(self) -> Rows:
        """Rows drawn apart from those of training."""
        return drawn(self.compiled.program, MEASURED_ROWS, seed=1)

    def network(self) -> nn.Module:
        """Embeddings of the size that the rest starts with."""
        network = Transformer(self.config)
        for embedding in (network.tokens, network.places):
            nn.init.normal_(embedding.weight, std=self.width**-0.5)
        return network

    def loss(self, network: nn.Module, step: int, seed: int) -> Float[Tensor, ""]:
        """The three losses added up."""
        assert isinstance(network, Transformer)
        rng = generator(seed, step)
        rows = self.pool[torch.randint(POOL, (self.rows,), generator=rng)]
        shift = int(torch.randint(1, self.rows, (1,), generator=rng))
        chosen = int(torch.randint(len(self.swaps.names), (1,), generator=rng))
        return losses(self.compiled, network, self.swaps, rows, shift, chosen, self.swaps.kept(rng)).total

    @torch.no_grad()
    def measure(self, network: nn.Module, step: int) -> dict[str, float] | None:
        """Accuracies on rows drawn apart from those of training."""
        if step % MEASURE_EVERY:
            return None
        assert isinstance(network, Transformer)
        rows = self.measured_rows[: MEASURED_ROWS // 4]
        interchange = interchange_accuracy(self.compiled, network, self.swaps, rows)
        return {
            "task": task_accuracy(self.compiled, network, rows).value,
            "interchange": together(interchange).value,
            "interchange_least": min(accuracy.value for accuracy in interchange.values()),
        }

    def keeps(self, step: int) -> bool:
        """Never."""
        return False

    def export(self, state: State, run_folder: Path, to: Path, run: dict[str, Any]) -> None:
        """Weights, configuration, curve, tokenizer and card, if the answer passes the truth test."""
        trained, half = state.network.cpu().eval(), rounded(state.network)
        assert isinstance(trained, Transformer)
        assert isinstance(half, Transformer)
        truth = tested(self, half)
        accuracies = {
            name: (
                task_accuracy(self.compiled, network, self.measured_rows),
                interchange_accuracy(self.compiled, network, self.swaps, self.measured_rows),
            )
            for name, network in (("float32", trained), ("shipped", half))
        }
        card = make_card(self, state, half, accuracies, truth, run)
        write_model(trained, state.curve, to, card, as_text)
        save_tokenizer(word_tokenizer(self.compiled.program.domain.words), to)


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


@torch.no_grad()
def interchange_accuracy(
    compiled: Compiled, network: Transformer, swaps: Swaps, rows: Rows, shift: int = 1
) -> dict[str, Accuracy]:
    """How often both networks say the same while the same is swapped in both, over all positions asked.

    Args:
        compiled: the program.
        network: that is trained.
        swaps: what is swapped.
        rows: of the program.
        shift: row i takes what is swapped from row i - shift.

    Returns:
        Part or edge of the compiled network -> accuracy.
    """
    high, low = edgewise.run(compiled.network, rows.ids), edgewise.run(network, rows.ids)
    others = (high.contributions.roll(shift, 1), low.contributions.roll(shift, 1))
    found = {}
    for name, keep_high, keep_low in zip(swaps.names, swaps.high, swaps.low, strict=True):
        target = edgewise.run(compiled.network, rows.ids, keep_high, others[0]).logits
        said = edgewise.run(network, rows.ids, keep_low, others[1]).logits
        right = (said.argmax(-1) == target.argmax(-1))[rows.asked]
        found[name] = Accuracy(int(right.sum()), len(right), 1 / network.config.vocabulary)
    return found
