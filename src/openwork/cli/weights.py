"""`openwork direct` and `openwork weights`: which part writes the answer, and what heads are by their weights."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from openwork.cli.inquiry import Inquiry, inquiry
from openwork.cli.options import Alpha, Claims

if TYPE_CHECKING:
    from openwork.results.result import Result


class By(StrEnum):
    """What the stream is taken apart into."""

    component = "component"
    head = "head"
    neuron = "neuron"


class Ask(StrEnum):
    """What is asked of the weights."""

    heads = "heads"
    composition = "composition"
    paths = "paths"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    inquiry(app, "direct")(direct)
    inquiry(app, "weights")(weights)


def direct(
    on: Inquiry,
    by: Annotated[By, typer.Option(help="Whole sub-layers, heads and MLPs, or heads and neurons.")] = By.head,
    checked: Annotated[int, typer.Option(help="Parts whose contribution is taken out for a check.")] = 64,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
) -> Result:
    """Attribute the logit difference to the parts of the network, straight through the residual stream."""
    from openwork.lenses.direct import DirectAttribution, attribute
    from openwork.results.claims import Standard

    method = DirectAttribution(by.value, checked=checked, claims=claims, standard=Standard(alpha=alpha), seed=on.seed)
    return attribute(on.net, on.task, method, tick=on.tick)


def weights(
    on: Inquiry,
    ask: Annotated[
        Ask,
        typer.Option(
            help="Scores of heads; which heads compose; or all paths of one or two layers of attention alone."
        ),
    ] = Ask.heads,
    distance: Annotated[
        int, typer.Option(help="Tokens that queries stand after their keys, where positions turn them (composition).")
    ] = 0,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
) -> Result:
    """Read heads off the weights, and check what the weights say by interventions."""
    from openwork.results.claims import Standard

    standard = Standard(alpha=alpha)
    if ask == Ask.heads:
        from openwork.weights.scores import HeadScoring, score_heads

        return score_heads(
            on.net, on.task, HeadScoring(claims=min(3, claims), standard=standard, seed=on.seed), tick=on.tick
        )
    if ask == Ask.composition:
        from openwork.weights.composition import Composition, compose

        return compose(
            on.net,
            on.task,
            Composition(distance=distance, claims=claims, standard=standard, seed=on.seed),
            tick=on.tick,
        )
    from openwork.weights.paths import Expansion, expand

    return expand(on.net, on.task, Expansion(claims=claims, standard=standard, seed=on.seed), tick=on.tick)
