"""`openwork exemplars` and `tune`: which images a unit prefers, what they predict, and what it is tuned to."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.command import Common, command
from openwork.cli.inquiry import exit_code
from openwork.cli.options import Alpha
from openwork.cli.pictures import Corpus, Door, Units, VisionModel, seen

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.results.result import Result


class Pool(StrEnum):
    """How places become one number."""

    max = "max"
    mean = "mean"


class Feature(StrEnum):
    """What a unit may be tuned to."""

    orientation = "orientation"
    frequency = "frequency"
    phase = "phase"
    edge = "edge"
    line = "line"
    curve = "curve"
    curvature = "curvature"
    radius = "radius"
    hue = "hue"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "exemplars")(exemplars)
    command(app, "tune")(tune)


def exemplars(
    model: VisionModel,
    unit: Units,
    top: Annotated[int, typer.Option(help="Strongest and weakest images that are shown.")] = 9,
    intervals: Annotated[int, typer.Option(help="Even intervals of activation that examples come from.")] = 6,
    pool: Annotated[Pool, typer.Option(help="How places become one number.")] = Pool.max,
    pairs: Annotated[int, typer.Option(help="Pairs of held-out images that the examples must tell apart.")] = 40,
    judge: Annotated[
        str, typer.Option(help="What compares images: low-level, untrained, or another network by name or folder.")
    ] = "low-level",
    alpha: Alpha = 0.05,
    *,
    corpus: Corpus,
    door: Door,
    common: Common,
) -> int:
    """Show the images that a unit prefers, in even intervals, and test whether they predict what else activates it."""

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.results.result import Result as Both
        from openwork.vision.responses.exemplars import Exemplars
        from openwork.vision.responses.exemplars import exemplars as found
        from openwork.vision.responses.likeness import LOW_LEVEL, UNTRAINED
        from openwork.vision.responses.predicts import Predicting, predicts

        other = judge if judge in (LOW_LEVEL, UNTRAINED) else door.open(judge, common)
        shown = found(
            net, unit, pictures, Exemplars(top, top, intervals, pool=pool.value, seed=common.seed),
            tick=lambda share: tick(share / 2),
        )  # fmt: skip
        method = Predicting(top, pairs, pool=pool.value, standard=Standard(alpha=alpha), seed=common.seed)
        tested = predicts(net, unit, pictures, method, judge=other, tick=lambda share: tick((1 + share) / 2))
        return Both(
            "dataset examples", tested.findings, shown.table.merge(tested.table, combine_attrs="no_conflicts"),
            {**tested.settings, **shown.settings}, (*shown.remarks, *tested.remarks),
        )  # fmt: skip

    options = {"top": (top, 9), "intervals": (intervals, 6), "pool": (pool.value, "max"), "pairs": (pairs, 40),
               "judge": (judge, "low-level"), "alpha": (alpha, 0.05)}  # fmt: skip
    return exit_code(seen("exemplars", model, unit, options, (door, corpus), common, run), True)


def tune(
    model: VisionModel,
    unit: Units,
    feature: Annotated[Feature, typer.Option(help="What is varied.")] = Feature.orientation,
    trials: Annotated[int, typer.Option(help="Held-out trials; each draws contrast, place and phase.")] = 24,
    claims: Annotated[int, typer.Option(help="Units, the best on find trials, to claim.")] = 8,
    alpha: Alpha = 0.1,
    *,
    door: Door,
    common: Common,
) -> int:
    """Measure what a unit is tuned to with drawn stimuli, beside copies that have learned nothing."""

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.responses.tuning import Tuning
        from openwork.vision.responses.tuning import tune as tuned

        standard = Standard(min_share=Tuning().standard.min_share, alpha=alpha)
        method = Tuning(held_out=trials, claims=claims, standard=standard, seed=common.seed)
        return tuned(net, unit, feature.value, method, tick=tick)

    options = {"feature": (feature.value, "orientation"), "trials": (trials, 24), "claims": (claims, 8),
               "alpha": (alpha, 0.1)}  # fmt: skip
    return exit_code(seen("tune", model, unit, options, (door, None), common, run), claims > 0)
