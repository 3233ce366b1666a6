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
"""Least accuracy, of the task and of the interchange of parts; the card says of what falls short of it."""
ARROW = " -> "
"""In the written form of an edge."""
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
    parts, edges = _kinds(shipped_swaps)
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
            "decay": recipe.descent.decay,
            "all_at_once": recipe.all_at_once,
            "losses": "behaviour, interchange of a part or an edge, strictness on edges; each with weight 1",
            "torch": torch.__version__,
            **run,
        },
        "goal": GOAL,
        "task": {"what": "likeliest word, at all positions asked", **shipped_task.record()},
        "interchange": {
            "what": "likeliest word is a likeliest of the compiled network, with the same swapped in both",
            "changed": "the same, only where the word without the swap is wrong",
            "parts": {**parts.all.record(), "changed": parts.changed.record()},
            "edges": {**edges.all.record(), "changed": edges.changed.record()},
            "below_goal": [name for name, found in shipped_swaps.items() if found.all.value < GOAL],
            "of": {name: round(found.all.value, 4) for name, found in shipped_swaps.items()},
        },
        "float32": {
            "task": round(accuracies["float32"][0].value, 4),
            "parts": round(_kinds(accuracies["float32"][1])[0].all.value, 4),
            "edges": round(_kinds(accuracies["float32"][1])[1].all.value, 4),
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
    interchange = "\n".join(
        f"| interchange of {kind} | {card['interchange'][kind]['accuracy']:.4f} | "
        f"{card['interchange'][kind]['changed']['accuracy']:.4f} | {card['float32'][kind]:.4f} |"
        for kind in ("parts", "edges")
    )
    below = card["interchange"]["below_goal"]
    shortfall = f"Below the goal of {card['goal']}: {', '.join(below)}." if below else f"All reach {card['goal']}."
    return f"""# {card["name"]}

{card["what"]}

A transformer of {card["parameters"]:,} parameters, trained to do it part by part as the compiled network
`{card["program"]}` does, by openwork's own recipe:

    {training["command"]}

{training["steps"]:,} steps of {training["rows"]} rows, {training["seconds"]:,} seconds on {training["device"]} with \
{training["threads"]} threads, seed {training["seed"]}. {training["optimizer"]}.
Losses: {training["losses"]}.

| accuracy | as shipped | where the swap changes the answer | in float32 |
| --- | --- | --- | --- |
| task | {card["task"]["accuracy"]:.4f} | | {card["float32"]["task"]:.4f} |
{interchange}

{shortfall}

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


def _kinds(swaps: dict[str, Interchanged]) -> tuple[Interchanged, Interchanged]:
    """Of all parts together, and of all edges."""
    return (
        Interchanged.together(found for name, found in swaps.items() if ARROW not in name),
        Interchanged.together(found for name, found in swaps.items() if ARROW in name),
    )
