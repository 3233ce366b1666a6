"""A network that learns to add modulo a prime, first by heart and then by a few frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openwork.recipes.evaluate import Accuracy
from openwork.recipes.export import rounded, write_checkpoints, write_model
from openwork.recipes.recipe import Descent
from openwork.recipes.state import State
from openwork.recipes.tokenizer import save_tokenizer, word_tokenizer
from openwork.zoo.modular import PRIME, TRAINED_SHARE, frequency_shares, split, sums
from openwork.zoo.transformer import Transformer, TransformerConfig

SHAPE = TransformerConfig(vocabulary=PRIME + 1, context=3, width=64, heads=(4,), mlp=(256,), head_width=16)
EMBEDDING_SD = 0.125
KEY_SHARE = 0.05
"""A frequency with a larger share of the embedding's squared norm is a key frequency."""
DESCENT = Descent(peak=1e-3, warmup=10, decay=0, weight_decay=1.0, betas=(0.9, 0.98))


@dataclass(frozen=True)
class ModularAddition:
    """Full-batch training on some of the pairs: a `recipe.Recipe`.

    Attributes:
        shipped: steps whose weights ship.
        split_seed: decides which pairs are trained on.
    """

    shipped: tuple[int, ...]
    steps: int
    split_seed: int = 0
    name: str = "modular-addition"
    descent: Descent = DESCENT
    every: int = 25

    def network(self) -> nn.Module:
        """One layer, no norm, small embeddings."""
        network = Transformer(SHAPE)
        for embedding in (network.tokens, network.places):
            nn.init.normal_(embedding.weight, std=EMBEDDING_SD)
        return network

    def loss(self, network: nn.Module, step: int, seed: int) -> Float[Tensor, ""]:
        """Cross-entropy over all pairs trained on, in double precision: in single it soon rounds to nothing."""
        trained, _ = split(self.split_seed)
        rows, answers = sums()
        logits = _answered(network, rows[trained])
        return F.cross_entropy(logits.double(), answers[trained].to(logits.device)).float()

    @torch.no_grad()
    def measure(self, network: nn.Module, step: int) -> dict[str, float] | None:
        """Loss and accuracy on both kinds of pairs."""
        if step % self.every:
            return None
        return {f"{kind}_{name}": value for kind, both in measured(network, self.split_seed).items()
                for name, value in (("loss", both[0]), ("accuracy", both[1].value))}  # fmt: skip

    def keeps(self, step: int) -> bool:
        """The steps that ship."""
        return step in self.shipped

    def export(self, state: State, run_folder: Path, to: Path, run: dict[str, Any]) -> None:
        """Weights, configuration, curve, tokenizer, the checkpoints along the curve, card."""
        card = make_card(self, state, rounded(state.network), run)
        write_model(state.network, state.curve, to, card, as_text)
        save_tokenizer(word_tokenizer([*map(str, range(PRIME)), "="]), to)
        write_checkpoints(self.shipped, run_folder, to)


@torch.no_grad()
def measured(network: nn.Module, split_seed: int) -> dict[str, tuple[float, Accuracy]]:
    """Loss in nats and accuracy on the pairs trained on and on those held out.

    Args:
        network: maps `input_ids` to `.logits`.
        split_seed: says which are which.
    """
    rows, answers = sums()
    logits = _answered(network, rows).cpu()
    right = logits.argmax(dim=-1) == answers
    return {
        kind: (
            F.cross_entropy(logits[pairs], answers[pairs]).item(),
            Accuracy(int(right[pairs].sum()), len(pairs), 1 / PRIME),
        )
        for kind, pairs in zip(("trained", "held_out"), split(split_seed), strict=True)
    }


def _answered(network: nn.Module, rows: Int[Tensor, "row three"]) -> Float[Tensor, "row number"]:
    logits = network(input_ids=rows.to(next(network.parameters()).device)).logits
    return logits[:, -1, :PRIME]


def make_card(recipe: ModularAddition, state: State, half: nn.Module, run: dict[str, Any]) -> dict[str, Any]:
    """Measure a trained network and write down where it comes from.

    Args:
        recipe: what was trained.
        state: the trained state.
        half: the same network with the weights as they ship.
        run: command, seed, device, threads, compiled.

    Returns:
        A value for JSON.
    """
    shares = frequency_shares(half.get_parameter("tokens.weight").detach()[:PRIME])
    ranked = shares.argsort(descending=True)
    keys = [int(index) for index in ranked if shares[index] > KEY_SHARE]
    both = measured(half, recipe.split_seed)
    return {
        "name": recipe.name,
        "parameters": sum(parameter.numel() for parameter in half.parameters()),
        "license": "Apache-2.0",
        "what": f"Addition modulo {PRIME}: rows are 'a b =', the answer is read at '='",
        "data": {"prime": PRIME, "trained_share": TRAINED_SHARE, "split_seed": recipe.split_seed},
        "training": {
            "steps": state.step,
            "of_steps": recipe.steps,
            "seconds": round(state.seconds),
            "optimizer": "AdamW, betas 0.9 and 0.98, full batch",
            "learning_rate": recipe.descent.peak,
            "weight_decay": recipe.descent.weight_decay,
            "checkpoints": list(recipe.shipped),
            "torch": torch.__version__,
            **run,
        },
        "loss_float32": {kind: value[0] for kind, value in measured(state.network, recipe.split_seed).items()},
        "loss_shipped": {kind: value[0] for kind, value in both.items()},
        "accuracy": {kind: value[1].record() for kind, value in both.items()},
        "frequencies": {
            "what": f"share of the squared norm of the number embeddings, mean removed; key: above {KEY_SHARE}",
            "key": [index + 1 for index in keys],
            "shares": {str(index + 1): round(shares[index].item(), 4) for index in keys},
            "of_all_others": round(1 - shares[keys].sum().item(), 4),
        },
    }


def as_text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    training, accuracy, found = card["training"], card["accuracy"], card["frequencies"]
    rows = "\n".join(
        f"| {kind.replace('_', ' ')} | {record['accuracy']:.4f} | {record['interval'][0]:.4f} to "
        f"{record['interval'][1]:.4f} | {record['n']:,} | {card['loss_shipped'][kind]:.2e} |"
        for kind, record in accuracy.items()
    )
    keys = "\n".join(
        f"| {key} | {2 * pi * key / PRIME:.3f} | {found['shares'][str(key)]:.3f} |" for key in found["key"]
    )
    return f"""# {card["name"]}

{card["what"]}. One layer, {card["parameters"]:,} parameters, trained by openwork's own recipe:

    {training["command"]}

{training["steps"]:,} steps over {card["data"]["trained_share"]:.0%} of all pairs, {training["seconds"]:,} seconds on \
{training["device"]} with {training["threads"]} threads,
seed {training["seed"]}. {training["optimizer"]}, learning rate {training["learning_rate"]}, weight decay
{training["weight_decay"]}. `curve.json` holds loss and accuracy on both kinds of pairs; `checkpoints/` holds the
weights on the way from knowing the pairs by heart to adding.

| pairs | accuracy | 95 % interval | n | loss |
| --- | --- | --- | --- | --- |
{rows}

The key frequencies of the number embeddings; all others together hold {found["of_all_others"]:.3f}:

| frequency | angle per unit | share of squared norm |
| --- | --- | --- |
{keys}
"""
