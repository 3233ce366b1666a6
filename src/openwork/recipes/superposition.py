"""Toy models of superposition, many trained in one batch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.recipes.export import rounded, write_model
from openwork.recipes.recipe import Descent, generator
from openwork.recipes.state import State
from openwork.zoo.superposition import REPRESENTED, ToyModel, ToyModelConfig, importance, inputs, interference

ROWS = 512
TRIES = 8
"""Networks of each sparsity; the one of lowest loss ships, since some starts end in a poor arrangement."""
MEASURE_EVERY = 250
MEASURED_ROWS = 20_000
DESCENT = Descent(peak=3e-3, warmup=0, decay=1000, weight_decay=0.0, betas=(0.9, 0.999))


class Stack(nn.Module):
    """Toy models of one shape side by side.

    Args:
        configs: one for each.
    """

    def __init__(self, configs: tuple[ToyModelConfig, ...]):
        super().__init__()
        features, hidden = configs[0].features, configs[0].hidden
        self.weight = nn.Parameter(torch.empty(len(configs), hidden, features))
        self.bias = nn.Parameter(torch.zeros(len(configs), features))
        for weight in self.weight:
            nn.init.xavier_normal_(weight)

    def forward(self, x: Float[Tensor, "batch network feature"]) -> Float[Tensor, "batch network feature"]:
        """The features again, of each network its own."""
        hidden = torch.einsum("bnf,nhf->bnh", x, self.weight)
        return (torch.einsum("bnh,nhf->bnf", hidden, self.weight) + self.bias).relu()

    def unstacked(self, number: int, config: ToyModelConfig) -> ToyModel:
        """One of the networks alone."""
        network = ToyModel(config)
        network.load_state_dict({"encode.weight": self.weight[number], "bias": self.bias[number]})
        return network


@dataclass(frozen=True)
class Superposition:
    """Networks of one shape and several sparsities: a `recipe.Recipe`.

    Attributes:
        name: of the folder of the networks, which are named after their sparsity, such as `NAME/sparsity-0.9`.
        features: of the input.
        hidden: channels between.
        decay: of the features' importance.
        sparsities: of the networks.
    """

    name: str
    features: int
    hidden: int
    decay: float
    sparsities: tuple[float, ...]
    steps: int = 4000
    descent: Descent = DESCENT

    @property
    def configs(self) -> tuple[ToyModelConfig, ...]:
        """Of all networks that are trained; `TRIES` neighbours differ in nothing."""
        worlds = (ToyModelConfig(self.features, self.hidden, sparsity, self.decay) for sparsity in self.sparsities)
        return tuple(config for config in worlds for _ in range(TRIES))

    def network(self) -> nn.Module:
        """All networks in one."""
        return Stack(self.configs)

    def loss(self, network: nn.Module, step: int, seed: int) -> Float[Tensor, ""]:
        """The networks' losses added up: none enters another's gradient."""
        device = next(network.parameters()).device
        drawn = generator(seed, step)
        shape = (ROWS, len(self.configs), self.features)
        values, gates = (torch.rand(shape, generator=drawn) for _ in range(2))
        sparsity = torch.tensor([config.sparsity for config in self.configs])[:, None]
        x = (values * (gates >= sparsity)).to(device)
        weight = importance(self.configs[0]).to(device)
        return (weight * (x - network(x)) ** 2).sum(dim=(1, 2)).mean()

    @torch.no_grad()
    def measure(self, network: nn.Module, step: int) -> dict[str, float] | None:
        """The lowest loss at each sparsity."""
        if step % MEASURE_EVERY:
            return None
        assert isinstance(network, Stack)
        return {place: loss_of(model, 4000) for place, model in self.best(network).items()}

    def keeps(self, step: int) -> bool:
        """Never."""
        return False

    def best(self, stack: Stack) -> dict[str, ToyModel]:
        """The network of lowest loss at each sparsity, by its name."""
        found = {}
        for first in range(0, len(self.configs), TRIES):
            tries = [stack.unstacked(first + i, self.configs[first]) for i in range(TRIES)]
            found[f"sparsity-{self.configs[first].sparsity:g}"] = min(tries, key=loss_of)
        return found

    def export(self, state: State, run_folder: Path, to: Path, run: dict[str, Any]) -> None:
        """One folder for each sparsity: weights, configuration, curve, card."""
        assert isinstance(state.network, Stack)
        for place, network in self.best(state.network.cpu()).items():
            curve = [{"step": record["step"], "loss": record[place]} for record in state.curve]
            card = make_card(self, f"{self.name}/{place}", state, network, run)
            write_model(network, curve, to / place, card, as_text)


@torch.no_grad()
def loss_of(network: ToyModel, rows: int = MEASURED_ROWS) -> float:
    """Squared error on fresh inputs, each feature weighed by its importance, added over features.

    Args:
        network: to be measured.
        rows: of input.
    """
    x = inputs(network.config, rows, seed=1)
    return (importance(network.config) * (x - network(x)) ** 2).sum(dim=1).mean().item()


def make_card(recipe: Superposition, name: str, state: State, network: ToyModel, run: dict[str, Any]) -> dict[str, Any]:
    """Measure a trained network and write down where it comes from.

    Args:
        recipe: what was trained.
        name: of the network.
        state: the trained state.
        network: in full precision.
        run: command, seed, device, threads, compiled.

    Returns:
        A value for JSON.
    """
    half = rounded(network)
    assert isinstance(half, ToyModel)
    norms, disturbed = half.directions.norm(dim=1), interference(half.directions)
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "license": "Apache-2.0",
        "world": asdict(network.config),
        "training": {
            "steps": state.step,
            "of_steps": recipe.steps,
            "rows": ROWS,
            "seconds_of_the_set": round(state.seconds),
            "optimizer": "AdamW, betas 0.9 and 0.999, no weight decay",
            "learning_rate": recipe.descent.peak,
            "best_of": TRIES,
            "torch": torch.__version__,
            **run,
        },
        "loss": {
            "unit": "squared error times importance, added over features",
            "rows": MEASURED_ROWS,
            "float32": loss_of(network),
            "shipped": loss_of(half),
        },
        "represented": [i for i, norm in enumerate(norms.tolist()) if norm > REPRESENTED],
        "norms": [round(norm, 4) for norm in norms.tolist()],
        "interference": [round(value, 4) for value in disturbed.tolist()],
    }


def as_text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    world, training = card["world"], card["training"]
    rows = "\n".join(
        f"| {i} | {world['decay'] ** i:.3f} | {norm:.3f} | {disturbed:.3f} |"
        for i, (norm, disturbed) in enumerate(zip(card["norms"], card["interference"], strict=True))
    )
    return f"""# {card["name"]}

{world["features"]} features in {world["hidden"]} channels, each feature 0 with probability {world["sparsity"]:g}, \
else uniform in [0, 1].
{len(card["represented"])} features are represented. The best of {training["best_of"]} networks of a set that was \
trained in {training["seconds_of_the_set"]} seconds by

    {training["command"]}

Loss ({card["loss"]["unit"]}): {card["loss"]["float32"]:.5f} in float32, {card["loss"]["shipped"]:.5f} as shipped.

| feature | importance | length of its direction | interference |
| --- | --- | --- | --- |
{rows}
"""
