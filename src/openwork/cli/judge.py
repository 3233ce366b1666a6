"""`openwork judge`: which attribution method to believe, by what becomes of the tokens it names."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.inquiry import Inquiry, inquiry
from openwork.cli.options import Alpha

if TYPE_CHECKING:
    from openwork.results.result import Result

USUAL = ("relp", "integrated gradients", "patching")
PATCHING, GROUP = "patching", "group:"


class Judge(StrEnum):
    """What is asked of a method."""

    removal = "removal"
    infidelity = "infidelity"
    sensitivity = "sensitivity"
    randomisation = "randomisation"


class How(StrEnum):
    """What stands in the place of a removed token."""

    mean = "mean"
    resample = "resample"
    corrupted = "corrupted"
    token = "token"


def register(app: typer.Typer) -> None:
    """Add the command."""
    inquiry(app, "judge")(judge)


def judge(
    on: Inquiry,
    by: Annotated[
        Judge, typer.Option(help="Deletion and insertion (removal), infidelity, sensitivity or random weights.")
    ] = Judge.removal,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Attribution method, patching, or group:NAME for the tokens of a group; again for more."),
    ] = None,
    knob: Annotated[list[str] | None, typer.Option(help="Knob of the methods that have it, as name=value.")] = None,
    baseline: Annotated[How, typer.Option(help="What stands in the place of a removed token.")] = How.mean,
    token: Annotated[int | None, typer.Option(help="The token id of --baseline token, such as padding.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of a removal curve.")] = 8,
    radius: Annotated[float, typer.Option(help="How far embeddings are moved, in standard deviations.")] = 0.02,
    alpha: Alpha = 0.05,
) -> Result:
    """Judge attribution methods: do the tokens they name matter, are they steady, do they depend on the weights?"""
    from openwork.faithfulness.baseline import Baseline
    from openwork.faithfulness.infidelity import Infidelity, infidelity
    from openwork.faithfulness.randomisation import Randomisation, randomise
    from openwork.faithfulness.removal import Removal, remove
    from openwork.faithfulness.sensitivity import Sensitivity, sensitivity
    from openwork.results.claims import Standard

    explainers = named(method or USUAL, knob or [])
    standard, stands = Standard(alpha=alpha), Baseline(baseline.value, token, seed=on.seed)
    if by is Judge.removal:
        return remove(on.net, on.task, explainers, Removal(stands, steps, standard, on.seed), tick=on.tick)
    if by is Judge.infidelity:
        found = Infidelity(stands, standard=standard, seed=on.seed)
        return infidelity(on.net, on.task, explainers, found, tick=on.tick)
    if by is Judge.sensitivity:
        moved = Sensitivity(radius, standard=standard, seed=on.seed)
        return sensitivity(on.net, on.task, explainers, moved, tick=on.tick)
    return randomise(on.net, on.task, explainers, Randomisation(standard=standard, seed=on.seed), tick=on.tick)


def named(names: Sequence[str], knobs: Sequence[str]) -> dict[str, Any]:
    """What the options name: attribution methods, patching effects, and token groups that are said to matter."""
    from openwork.cli.attribute import methods
    from openwork.faithfulness.attributions import KnownTokens, PatchedPositions

    attributing = [name for name in names if name != PATCHING and not name.startswith(GROUP)]
    found: dict[str, Any] = {one.name: one for one in methods(attributing, knobs)} if attributing else {}
    for name in names:
        if name == PATCHING:
            found[name] = PatchedPositions()
        elif name.startswith(GROUP):
            found[name] = KnownTokens(tuple(name.removeprefix(GROUP).split(",")))
    return found
