"""The recipe of networks trained to do a compiled program part by part: strict interchange training.

Source: Gupta et al. 2024, "InterpBench: Semi-Synthetic Transformers for Evaluating Mechanistic Interpretability
Techniques".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.recipes.export import rounded, write_model
from openwork.recipes.interchange import (
    Interchanged,
    Rows,
    Swaps,
    drawn,
    interchange_accuracy,
    losses,
    task_accuracy,
)
from openwork.recipes.recipe import Descent, generator
from openwork.recipes.siit_card import as_text, make_card, tested
from openwork.recipes.state import State
from openwork.recipes.tokenizer import save_tokenizer, word_tokenizer
from openwork.site import Site
from openwork.zoo.compiled import Compiled
from openwork.zoo.siit import FAMILY, Correspondence
from openwork.zoo.transformer import Transformer, TransformerConfig

HEADS = 4
POOL = 20_000
"""Rows that training draws from."""
MEASURE_EVERY = 250
MEASURED_ROWS = 256
DESCENT = Descent(peak=2e-3, warmup=100, decay=600, weight_decay=0.01, betas=(0.9, 0.98), clip=1.0)


@dataclass(frozen=True, eq=False)
class StrictInterchange:
    """A network for a compiled program: a `recipe.Recipe`.

    Attributes:
        compiled: the program.
        width: channels of the residual stream.
        mlp: hidden units of each layer.
        steps: of the training.
        rows: of a step.
        all_at_once: how often the strictness loss takes all edges outside the circuit from another row; else a random
            half of them, which keeps them from making up for one another.
        descent: the optimiser.
    """

    compiled: Compiled
    width: int = 48
    mlp: int = 96
    steps: int = 1200
    rows: int = 64
    all_at_once: float = 0.75
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
        return losses(
            self.compiled, network, self.swaps, rows, shift, chosen, self.swaps.kept(rng, self.all_at_once)
        ).total

    @torch.no_grad()
    def measure(self, network: nn.Module, step: int) -> dict[str, float] | None:
        """Accuracies on rows drawn apart from those of training."""
        if step % MEASURE_EVERY:
            return None
        assert isinstance(network, Transformer)
        rows = self.measured_rows[: MEASURED_ROWS // 4]
        swapped = Interchanged.together(interchange_accuracy(self.compiled, network, self.swaps, rows).values())
        return {
            "task": task_accuracy(self.compiled, network, rows).value,
            "interchange": swapped.all.value,
            "interchange_changed": swapped.changed.value,
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
