"""`openwork heads`, `registers`, `class-token`, `traits` and `drop-patches`: inside a vision transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.command import Common, command
from openwork.cli.inquiry import exit_code
from openwork.cli.options import Alpha
from openwork.cli.pictures import Corpus, Door, VisionModel, seen

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.results.result import Result

Steps = Annotated[int, typer.Option(help="Steps of learning, on half of the images; the other half tests.")]
Tick = Callable[[float], None]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "heads")(heads)
    command(app, "registers")(registers)
    command(app, "class-token")(class_token)
    command(app, "traits")(traits)
    command(app, "drop-patches")(drop_patches)


def heads(
    model: VisionModel,
    corpus: Corpus = Corpus(),
    category: Annotated[str, typer.Option(help="Of masks, whose concepts heads may follow.")] = "part",
    claims: Annotated[int, typer.Option(help="Pairs of head and concept to test on held-out images.")] = 5,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Say how far and how widely each head looks, and which follow a part of what is seen."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.vision.tokens.looks import Looking, look

        method = Looking(category, claims=claims, standard=_standard(alpha), seed=common.seed)
        return look(net, pictures, method, tick=tick)

    given = {"category": (category, "part"), "claims": (claims, 5), "alpha": (alpha, 0.05)}
    return exit_code(seen("heads", model, [], given, (door, corpus), common, run), False)


def registers(
    model: VisionModel,
    corpus: Corpus = Corpus(),
    deviations: Annotated[float, typer.Option(help="Robust deviations above the median that stand out.")] = 6.0,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Look for patch tokens of outlying norm, and test what the answer loses without them."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.vision.tokens.registers import Registers
        from openwork.vision.tokens.registers import registers as found

        return found(net, pictures, Registers(deviations, standard=_standard(alpha), seed=common.seed), tick=tick)

    given = {"deviations": (deviations, 6.0), "alpha": (alpha, 0.05)}
    result = seen("registers", model, [], given, (door, corpus), common, run)
    return exit_code(result, bool(result.findings))


def class_token(
    model: VisionModel, corpus: Corpus = Corpus(), alpha: Alpha = 0.05, door: Door = Door(), *, common: Common
) -> int:
    """Follow the class token: what it knows behind each block, and where it gathers that from the patches."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.vision.tokens.class_token import ClassToken
        from openwork.vision.tokens.class_token import class_token as followed

        return followed(net, pictures, ClassToken(standard=_standard(alpha), seed=common.seed), tick=tick)

    return exit_code(seen("class-token", model, [], {"alpha": (alpha, 0.05)}, (door, corpus), common, run), True)


def traits(
    model: VisionModel,
    corpus: Corpus = Corpus(),
    steps: Steps = 300,
    share: Annotated[float, typer.Option(help="Of the patches that are taken away as the trait.")] = 0.1,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Learn a prompt for each class, and show by which heads and patches the network knows it."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.vision.tokens.prompts import ClassPrompts, learn_prompts
        from openwork.vision.tokens.traits import Traits
        from openwork.vision.tokens.traits import traits as shown

        half = len(pictures) // 2
        prompts = learn_prompts(
            net, pictures, ClassPrompts(steps=steps, seed=common.seed), range(half), tick=lambda s: tick(s / 2)
        )
        method = Traits(share, standard=_standard(alpha), seed=common.seed)
        rows = range(half, len(pictures))
        return shown(net, prompts, pictures, method, rows, tick=lambda s: tick(0.5 + s / 2))

    given = {"steps": (steps, 300), "share": (share, 0.1), "alpha": (alpha, 0.05)}
    return exit_code(seen("traits", model, [], given, (door, corpus), common, run), True)


def drop_patches(
    model: VisionModel,
    corpus: Corpus = Corpus(),
    steps: Steps = 150,
    groups: Annotated[int, typer.Option(help="Groups of blocks, each with a judge before it.")] = 3,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Learn which patches the network can do without, and test the order on other images."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.vision.tokens.interpreters import Interpreters, learn_interpreters
        from openwork.vision.tokens.patch_dropping import Dropping
        from openwork.vision.tokens.patch_dropping import drop_patches as dropped

        half = len(pictures) // 2
        learning = Interpreters(groups, steps=steps, seed=common.seed)
        judges = learn_interpreters(net, pictures, learning, range(half), tick=lambda s: tick(0.7 * s))
        method = Dropping(standard=_standard(alpha), seed=common.seed)
        rows = range(half, len(pictures))
        return dropped(net, judges, pictures, method, rows, tick=lambda s: tick(0.7 + 0.3 * s))

    given = {"steps": (steps, 150), "groups": (groups, 3), "alpha": (alpha, 0.05)}
    return exit_code(seen("drop-patches", model, [], given, (door, corpus), common, run), True)


def _standard(alpha: float) -> Any:
    from openwork.results.claims import Standard

    return Standard(alpha=alpha)
