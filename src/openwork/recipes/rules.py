"""The recipe of networks that hide a decision tree: all of them at once, as one batch of networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector

from openwork.recipes.recipe import Descent
from openwork.recipes.state import State
from openwork.store.files import write_json, write_tensors, write_text
from openwork.zoo.rules import BANK, CARD, NO, SHAPE, YES, Tree, decided, every_row, known, written
from openwork.zoo.transformer import Transformer

HELD_OUT = 0.25
"""Share of all rows that no training sees."""
DESCENT = Descent(peak=5e-3, warmup=50, decay=150, weight_decay=0.01, betas=(0.9, 0.98))


class Bank(nn.Module):
    """Networks of one shape that run side by side; what one learns does not touch the others.

    Args:
        networks: of the same shape.
    """

    def __init__(self, networks: list[Transformer]):
        super().__init__()
        self.shape = networks[0].config
        stacked, _ = stack_module_state(networks)  # pyright: ignore[reportArgumentType]
        self.stacked = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(v) for name, v in stacked.items()})
        self.__dict__["one"] = Transformer(self.shape).to("meta")

    def forward(self, ids: Int[Tensor, "row position"]) -> Float[Tensor, "network row vocabulary"]:
        """The logits at the question, of every network on the same rows."""
        given = {name.replace("/", "."): value for name, value in self.stacked.items()}

        def run(weights: dict[str, Tensor]) -> Tensor:
            return functional_call(self.__dict__["one"], weights, (ids,)).logits[:, -1]

        # of the attention kernels, only this one runs for all networks at once
        with sdpa_kernel(SDPBackend.MATH):
            return vmap(run)(given)

    def networks(self) -> list[Transformer]:
        """Each as a network of its own, on the CPU."""
        out = []
        for number in range(len(next(iter(self.stacked.values())))):
            network = Transformer(self.shape)
            network.load_state_dict({name.replace("/", "."): v[number].cpu() for name, v in self.stacked.items()})
            out.append(network.eval())
        return out


@dataclass(frozen=True)
class HiddenRules:
    """Networks that learn a decision tree each: a `recipe.Recipe`.

    Attributes:
        steps: of the training.
        rows: of a step, the same for all networks.
    """

    steps: int = 450
    rows: int = 64
    name: str = "rules"
    descent: Descent = DESCENT
    every: int = 100

    @cached_property
    def trees(self) -> dict[str, Tree]:
        """The rules by name."""
        return dict(known())

    @cached_property
    def answers(self) -> Bool[np.ndarray, "network row"]:
        """What each rule says of every row."""
        return np.array([[tree.decide(row) for row in every_row().tolist()] for tree in self.trees.values()])

    @cached_property
    def trained_on(self) -> Bool[np.ndarray, " row"]:
        """The rows that training draws from."""
        rng = np.random.default_rng(0)
        return rng.permutation(len(every_row())) >= HELD_OUT * len(every_row())

    def network(self) -> nn.Module:
        """All networks, each with weights of its own."""
        networks = [Transformer(SHAPE) for _ in self.trees]
        for network in networks:
            for embedding in (network.tokens, network.places):
                nn.init.normal_(embedding.weight, std=SHAPE.width**-0.5)
        return Bank(networks)

    def loss(self, network: nn.Module, step: int, seed: int) -> Float[Tensor, ""]:
        """Cross-entropy of yes and no, added up over networks: to each it is as if it were alone."""
        rng = np.random.default_rng([seed, step])
        drawn = rng.choice(np.flatnonzero(self.trained_on), self.rows)
        return self._loss(network, drawn, rng).sum()

    def _loss(self, network: nn.Module, drawn: np.ndarray, rng: np.random.Generator) -> Float[Tensor, " network"]:
        device = next(network.parameters()).device
        ids = torch.as_tensor(written(every_row()[drawn], rng), device=device)
        logits = network(ids)[..., [NO, YES]]
        answers = torch.as_tensor(self.answers[:, drawn].astype(int), device=device)
        each = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
        return each.view_as(answers).mean(1)

    @torch.no_grad()
    def measure(self, network: nn.Module, step: int) -> dict[str, float] | None:
        """Mean and worst accuracy over networks, on rows that training draws from and on the others."""
        if step % self.every:
            return None
        assert isinstance(network, Bank)
        found = accuracies(self, network.networks())
        return {f"{kind}_{word}": float(pick(values)) for kind, values in found.items()
                for word, pick in (("mean", np.mean), ("worst", np.min))}  # fmt: skip

    def keeps(self, step: int) -> bool:
        """Never."""
        return False

    def export(self, state: State, run_folder: Path, to: Path, run: dict[str, Any]) -> None:
        """The weights of each network as one vector in half precision, and a card."""
        assert isinstance(state.network, Bank)
        half = [network.half().float() for network in state.network.networks()]
        vectors = {
            name: parameters_to_vector(network.parameters()).detach().half()
            for name, network in zip(self.trees, half, strict=True)
        }
        write_tensors(to / BANK, vectors, {"format": "pt"})
        write_json(to / "curve.json", state.curve)
        card = make_card(self, half, state, run)
        write_json(to / CARD, card)
        write_text(to / "README.md", as_text(card))


def accuracies(recipe: HiddenRules, networks: list[Transformer]) -> dict[str, list[float]]:
    """Share of rows that each network decides by its rule, each row in one order.

    Args:
        recipe: says which rows training draws from.
        networks: in the order of the rules.

    Returns:
        ``trained``, ``held_out`` and ``all`` rows.
    """
    ids = written(every_row(), np.random.default_rng(1))
    right = np.array([decided(n, ids) for n in networks]) == recipe.answers
    seen = recipe.trained_on
    rows = {"trained": right[:, seen], "held_out": right[:, ~seen], "all": right}
    return {kind: found.mean(1).tolist() for kind, found in rows.items()}


def make_card(recipe: HiddenRules, networks: list[Transformer], state: State, run: dict[str, Any]) -> dict[str, Any]:
    """What was trained, and what each network can do with the weights as they ship."""
    found = accuracies(recipe, networks)
    return {
        "name": recipe.name,
        "license": "Apache-2.0",
        "what": "Yes or no to rows of ten named fields, by a decision tree each",
        "parameters": sum(p.numel() for p in networks[0].parameters()),
        "held_out_share": HELD_OUT,
        "training": {
            "steps": state.step, "rows": recipe.rows, "seconds": round(state.seconds), "torch": torch.__version__,
            "optimizer": "AdamW, betas 0.9 and 0.98", "learning_rate": recipe.descent.peak, **run,
        },
        "networks": {
            name: {
                "rule": str(tree), "depth": tree.depth, "fields": len(tree.fields),
                "accuracy": found["all"][i], "accuracy_held_out": found["held_out"][i],
            }
            for i, (name, tree) in enumerate(recipe.trees.items())
        },
    }  # fmt: skip


def as_text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    training = card["training"]
    rows = "\n".join(
        f"| {name} | {found['accuracy']:.4f} | {found['accuracy_held_out']:.4f} | {found['rule']} |"
        for name, found in card["networks"].items()
    )
    each = training["seconds"] / len(card["networks"])
    return f"""# {card["name"]}

{card["what"]}: {len(card["networks"])} networks of {card["parameters"]:,} parameters, trained side by side by

    {training["command"]}

{training["steps"]:,} steps of {training["rows"]} rows, {training["seconds"]:,} seconds ({each:.1f} a network) on \
{training["device"]} with {training["threads"]} threads, seed {training["seed"]}.
{training["optimizer"]}, learning rate {training["learning_rate"]}. Fields come in a random order in every row;
{card["held_out_share"]:.0%} of the rows were never trained on.

| network | accuracy, all rows | rows never trained on | rule |
| --- | --- | --- | --- |
{rows}
"""
