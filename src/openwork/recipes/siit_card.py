"""The card of a network trained to do a program, and the gate that it passes before it ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from openwork.errors import TaskFailed
from openwork.recipes.evaluate import Accuracy
from openwork.recipes.interchange import Interchanged
from openwork.recipes.state import State
from openwork.zoo.transformer import Transformer
from openwork.zoo.truth import Claims, Truth, check

if TYPE_CHECKING:
    from openwork.recipes.siit import StrictInterchange

GOAL = 0.95
"""Least accuracy, of the task and of all interchanges together."""
TASK_ROWS = 256
TASK_SEED = 0


def tested(recipe: StrictInterchange, network: Transformer) -> Truth:
    """The truth test of a trained network's answer.

    Args:
        recipe: what it was trained for.
        network: with the weights that ship.

    Raises:
        TaskFailed: if the answer does not pass.
    """
    known = recipe.correspondence.known(recipe.compiled.known)
    truth = check(network, recipe.compiled.program.task(TASK_ROWS, TASK_SEED), Claims.of(known))
    if not truth.holds:
        raise TaskFailed(
            f"expected the answer of {recipe.name} to pass the truth test, so it does not ship; train it longer, or "
            f"with another seed:\n{truth}"
        )
    return truth


def make_card(
    recipe: StrictInterchange,
    state: State,
    half: Transformer,
    accuracies: dict[str, tuple[Accuracy, dict[str, Interchanged]]],
    truth: Truth,
    run: dict[str, Any],
) -> dict[str, Any]:
    """Write down what was measured.

    Args:
        recipe: what was trained.
        state: the trained state.
        half: the network with the weights that ship.
        accuracies: "float32" and "shipped" -> accuracy of the task, and of the interchange of each part and edge.
        truth: of the answer.
        run: command, seed, device, threads, compiled.

    Returns:
        A value for JSON.
    """
    shipped_task, shipped_swaps = accuracies["shipped"]
    together = Interchanged.together(shipped_swaps.values())
    return {
        "name": recipe.name,
        "program": recipe.compiled.program.name,
        "what": recipe.compiled.program.description,
        "parameters": sum(parameter.numel() for parameter in half.parameters()),
        "license": "Apache-2.0",
        "correspondence": recipe.correspondence.to_json(),
        "training": {
            "steps": state.step,
            "of_steps": recipe.steps,
            "rows": recipe.rows,
            "seconds": round(state.seconds),
            "optimizer": "AdamW, betas 0.9 and 0.98, gradients clipped to norm 1",
            "learning_rate": recipe.descent.peak,
            "weight_decay": recipe.descent.weight_decay,
            "losses": "behaviour, interchange of a part or an edge, strictness on edges; each with weight 1",
            "torch": torch.__version__,
            **run,
        },
        "goal": GOAL,
        "task": {"what": "likeliest word, at all positions asked", **shipped_task.record()},
        "interchange": {
            "what": "likeliest word is a likeliest of the compiled network, with the same swapped in both",
            "all": together.all.record(),
            "changed": {"what": "only where the word without the swap is wrong", **together.changed.record()},
            "of": {name: round(found.all.value, 4) for name, found in shipped_swaps.items()},
        },
        "float32": {
            "task": round(accuracies["float32"][0].value, 4),
            "interchange": round(Interchanged.together(accuracies["float32"][1].values()).all.value, 4),
        },
        "truth": {"task_rows": TASK_ROWS, "task_seed": TASK_SEED, **truth.to_json()},
    }


def as_text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    training, truth = card["training"], card["truth"]
    parts = "\n".join(f"| `{old}` | `{new}` |" for old, new in card["correspondence"].items())
    swaps = "\n".join(f"| `{name}` | {accuracy:.3f} |" for name, accuracy in card["interchange"]["of"].items())
    effects = "\n".join(
        f"| {e['kind']} | {e['item']} | {e['effect']:.4f} | {e['low']:.4f} to {e['high']:.4f} |"
        for e in (*truth["true"], *truth["untrue"])
    )
    low, high = card["task"]["interval"]
    return f"""# {card["name"]}

{card["what"]}

A transformer of {card["parameters"]:,} parameters, trained to do it part by part as the compiled network
`{card["program"]}` does, by openwork's own recipe:

    {training["command"]}

{training["steps"]:,} steps of {training["rows"]} rows, {training["seconds"]:,} seconds on {training["device"]} with \
{training["threads"]} threads, seed {training["seed"]}. {training["optimizer"]}.
Losses: {training["losses"]}.

Task accuracy {card["task"]["accuracy"]:.4f} ({low:.4f} to {high:.4f}, n = {card["task"]["n"]:,}); \
interchange accuracy {card["interchange"]["all"]["accuracy"]:.4f}, \
{card["interchange"]["changed"]["accuracy"]:.4f} where the swap changes the answer. In float32: \
{card["float32"]["task"]:.4f} and {card["float32"]["interchange"]:.4f}.

| part of the compiled network | part of this one |
| --- | --- |
{parts}

Interchange accuracy, by what is swapped (in the compiled network's places):

| swapped | accuracy |
| --- | --- |
{swaps}

## The answer

It {"passes" if truth["holds"] else "does not pass"} the truth test at ε = {truth["epsilon"]}, with slack \
{truth["slack"][0]:.4f} above and {truth["slack"][1]:.4f} below.
Effect: {truth["measure"]}.

| kind | resampled | effect | 95 % interval |
| --- | --- | --- | --- |
{effects}
"""
