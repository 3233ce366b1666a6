"""The model card of an embedded model: what it was trained on, how, and what it can do."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import torch
import transformers
from torch import nn

from openwork.recipes.corpus import TABLES, Streams
from openwork.recipes.evaluate import HeldOut, induction_accuracy, on_held_out, task_accuracy
from openwork.recipes.plan import Plan
from openwork.recipes.state import State
from openwork.tasks.argument import argument
from openwork.tasks.bracket import bracket
from openwork.tasks.docstring import docstring
from openwork.tasks.induction import repeats

EXAMPLES = 500
"""Prompts of each task."""
WINDOWS = 1000
"""Windows of held-out code, spread evenly over all of it."""
TASKS = (repeats, bracket, docstring, argument)
KINDS = {
    "code": "of real code",
    "repeats": "of repeated random spans",
    "functions": "of invented functions with docstrings",
    "statements": "of invented statements with nested brackets",
}
INVENTED = {
    "functions": "Invented functions whose docstrings name their arguments",
    "statements": "Invented statements with nested brackets",
}
BOS_POLICY = "every training context begins with <|bos|>, and the tokenizer puts it there"


def make_card(
    plan: Plan, streams: Streams, state: State, half: nn.Module, run: dict[str, Any], checkpoints: list[int]
) -> dict[str, Any]:
    """Measure a trained model and write down where it comes from.

    Args:
        plan: what was trained.
        streams: its data.
        state: the trained state, in float32.
        half: the same network with the weights as they ship: rounded to half precision, then float32 again.
        run: seed, device, threads, whether the step was compiled, and the command.
        checkpoints: steps whose weights ship.

    Returns:
        A value for JSON.
    """
    network = state.network.eval()
    full, shipped = (on_held_out(model, streams, plan.context, WINDOWS) for model in (network, half))
    vocabulary: Any = streams.tokenizer
    tasks = {make.__name__: make(vocabulary, n=EXAMPLES, seed=0) for make in TASKS}
    return {
        "name": plan.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "license": "Apache-2.0",
        "data": {
            "source": f"the standard library of Python {platform.python_version()} with its tests, without {TABLES}",
            "split": "whole files; held out where sha256(path below the library) mod 10 is 0",
            **{name: facts for name, facts in streams.facts.items() if name in ("train", "held_out", *_invented(plan))},
        },
        "tokenizer": f"byte-level BPE of the training files, {len(streams.tokenizer)} tokens; digits, brackets single",
        "bos_policy": BOS_POLICY,
        "training": {
            "steps": state.step,
            "of_steps": plan.steps,
            "phases": [{"until": phase.until, **asdict(phase.mix)} for phase in plan.phases],
            "context": plan.context,
            "tokens": plan.tokens(state.step),
            "seconds": round(state.seconds),
            "optimizer": "AdamW, betas 0.9 and 0.95, gradients clipped to norm 1",
            "learning_rate": plan.descent.peak,
            "warmup": plan.descent.warmup,
            "decay": plan.descent.decay,
            "weight_decay": plan.descent.weight_decay,
            "precision": "float32 weights, matrix products in bfloat16",
            "checkpoints": checkpoints,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **run,
        },
        "held_out": {
            "unit": "nats per token",
            "tokens": full.tokens,
            "loss_float32": round(full.loss, 5),
            "loss_shipped": round(shipped.loss, 5),
            "shipped_as": "float16",
            "closing_bracket": _closing(shipped),
        },
        "induction": {
            "what": "argmax in the second copy of a random span of 50 tokens",
            **induction_accuracy(half, streams.tokenizer, rows=EXAMPLES // 4).record(),
        },
        "tasks": {name: task_accuracy(half, task).record() for name, task in tasks.items()},
    }


def _invented(plan: Plan) -> list[str]:
    """The streams of invented text that a plan draws from."""
    return [kind for kind in INVENTED if any(getattr(phase.mix, kind) for phase in plan.phases)]


def _closing(measured: HeldOut) -> dict[str, Any]:
    return {"what": "choice between ) ] } where one of them comes next in held-out code", **measured.closing.record()}


def as_text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown.

    Args:
        card: from `make_card`.
    """
    training, data, held_out = card["training"], card["data"], card["held_out"]
    results = {"induction, random tokens": card["induction"], **card["tasks"]}
    results["closing bracket, held-out code"] = held_out["closing_bracket"]
    table = "\n".join(_row(name, result) for name, result in results.items())
    phases = "".join(f"\n  - {_phase(phase)}" for phase in training["phases"])
    kept = "; `checkpoints/` holds the weights on the way" if training["checkpoints"] else ""
    return f"""# {card["name"]}

A language model of Python source, {card["parameters"]:,} parameters, trained by openwork's own recipe:

    {training["command"]}

## Data

- Source: {data["source"]}.
- Split: {data["split"]}.
- Training: {data["train"]["read"]:,} files, {data["train"]["tokens"]:,} tokens; sha256 of the files' hashes
  `{data["train"]["sha256"]}`.
- Held out: {data["held_out"]["read"]:,} files, {data["held_out"]["tokens"]:,} tokens; sha256
  `{data["held_out"]["sha256"]}`.
- Tokenizer: {card["tokenizer"]}.
{_sources(data)}- Rows of a batch, {training["context"]} tokens each:{phases}
- Beginning of text: {card["bos_policy"]}.

## Training

{training["steps"]:,} steps, {training["tokens"]:,} tokens, {training["seconds"]:,} seconds on {training["device"]} with
{training["threads"]} threads, seed {training["seed"]}. {training["optimizer"]}.
Learning rate {training["learning_rate"]}; {training["precision"]}.
`curve.json` holds the loss curve{kept}.

## What it can do

Held-out loss, nats per token, over {held_out["tokens"]:,} tokens: {held_out["loss_float32"]:.4f} in float32,
{held_out["loss_shipped"]:.4f} as shipped ({held_out["shipped_as"]}).

| behaviour | accuracy | 95 % interval | n | chance |
| --- | --- | --- | --- | --- |
{table}

"bracket" and "closing bracket" choose among three tokens, all others among the whole vocabulary.
"""


def _sources(data: dict[str, Any]) -> str:
    lines = [
        f"- {what}, of names and words of the training files:\n"
        f"  {data[name]['invented']:,}, {data[name]['tokens']:,} tokens.\n"
        for name, what in INVENTED.items()
        if name in data
    ]
    return "".join(lines)


def _phase(phase: dict[str, int]) -> str:
    rows = ", ".join(f"{phase[kind]} {words}" for kind, words in KINDS.items() if phase[kind])
    return f"until step {phase['until']:,}: {rows}"


def _row(name: str, result: dict[str, Any]) -> str:
    low, high = result["interval"]
    return f"| {name} | {result['accuracy']:.3f} | {low:.3f} to {high:.3f} | {result['n']:,} | {result['chance']:.3f} |"
