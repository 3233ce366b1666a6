"""`openwork kernels`, `motifs`, `class-graph`, `patch-places` and `hierarchy`: circuits in networks that see."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.command import Common, command
from openwork.cli.inquiry import exit_code
from openwork.cli.options import Alpha, Claims
from openwork.cli.pictures import Corpus, Door, VisionModel, seen
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.results.result import Result

Images = Annotated[int, typer.Option(help="Images that are read of each half, at most.")]
Sites = Annotated[list[str], typer.Argument(metavar="SITE...", help="Maps of channels, early ones first.")]


class Slopes(StrEnum):
    """What stands for an activation function."""

    mean = "mean"
    one = "one"


class Ask(StrEnum):
    """Which motif."""

    families = "families"
    unions = "unions"
    superposition = "superposition"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "kernels")(kernels)
    command(app, "motifs")(motifs)
    command(app, "class-graph")(class_graph)
    command(app, "patch-places")(patch_places)
    command(app, "hierarchy")(hierarchy)


def kernels(
    model: VisionModel,
    sender: Annotated[str, typer.Argument(help="The earlier map, such as module:stem.out.")],
    receiver: Annotated[str, typer.Argument(help="The later one, such as module:stages.0.out[3,7], or logits.")],
    slopes: Annotated[Slopes, typer.Option(help="Of activation functions: mean on images, or one.")] = Slopes.mean,
    images: Images = 48,
    entries: Annotated[int, typer.Option(help="Entries that are tested by an intervention.")] = 24,
    alpha: Alpha = 0.05,
    *,
    corpus: Corpus,
    door: Door,
    common: Common,
) -> int:
    """Read the weights between channels of distant layers, and test on held-out images what they foretell."""

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.circuits.expanded import Expanding, expanded_weights

        method = Expanding(slopes.value, images, entries, standard=Standard(alpha=alpha), seed=common.seed)
        return expanded_weights(net, pictures, sender, receiver, method, tick=tick)

    options = {"slopes": (slopes.value, "mean"), "images": (images, 48), "entries": (entries, 24),
               "alpha": (alpha, 0.05)}  # fmt: skip
    found = seen("kernels", model, [sender, receiver], options, (door, corpus), common, run)
    return exit_code(found, True)


def motifs(
    model: VisionModel,
    site: Annotated[str, typer.Argument(help="The map whose units are looked at, such as module:stem.out.")],
    ask: Annotated[
        Ask, typer.Option(help="Turned copies; units that read all of such a family; units read with both signs.")
    ] = Ask.families,
    into: Annotated[
        str | None, typer.Option(help="The later map that reads them, for unions and superposition.")
    ] = None,
    angles: Annotated[int, typer.Option(help="Even steps of a full turn.")] = 16,
    images: Annotated[int, typer.Option(help="Images that are read of each half, at most.")] = 200,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    *,
    corpus: Corpus,
    door: Door,
    common: Common,
) -> int:
    """Find turned and mirrored copies of units, units that unite them, and units that unrelated concepts share."""
    if ask is not Ask.families and into is None:
        raise BadInput(f"expected --into SITE with --ask {ask.value}: the later map that reads the units")

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.circuits.motifs import Matching, families
        from openwork.vision.circuits.superposed import Sharing, superposed
        from openwork.vision.circuits.unions import Uniting, unions

        standard = Standard(alpha=alpha)
        if ask is Ask.superposition:
            assert into is not None
            sharing = Sharing(images=images, claims=claims, standard=standard, seed=common.seed)
            return superposed(net, pictures, site, into, sharing, tick=tick)
        few = min(images, 48)
        own = claims if ask is Ask.families else 0
        method = Matching(angles, images=few, claims=own, standard=standard, seed=common.seed)
        share = 1.0 if ask is Ask.families else 0.3
        found = families(net, pictures, site, method=method, tick=lambda s: tick(share * s))
        if ask is Ask.families:
            return found
        assert into is not None
        family = found.table["family"].to_numpy()
        channels = found.table["unit"].to_numpy()
        sets = [channels[family == number].tolist() for number in range(int(family.max(initial=-1)) + 1)]
        if not sets:
            raise BadInput(f"{site} has no family of turned units to unite: {found.remarks[0]}")
        uniting = Uniting(images=images, claims=claims, standard=standard, seed=common.seed)
        return unions(net, pictures, sets, site, into, uniting, tick=lambda s: tick(0.3 + 0.7 * s))

    options = {"ask": (ask.value, "families"), "into": (into, None), "angles": (angles, 16), "images": (images, 200),
               "claims": (claims, 3), "alpha": (alpha, 0.05)}  # fmt: skip
    found = seen("motifs", model, [site], options, (door, corpus), common, run)
    return exit_code(found, claims > 0)


def class_graph(
    model: VisionModel,
    of: Annotated[str, typer.Argument(metavar="CLASS", help="Name or number of a class of the images.")],
    site: Sites,
    width: Annotated[int, typer.Option(help="Channels of each layer that are traced further.")] = 4,
    images: Images = 48,
    claims: Claims = 5,
    alpha: Alpha = 0.05,
    *,
    corpus: Corpus,
    door: Door,
    common: Common,
) -> int:
    """Trace a class back through channels of some layers, each edge measured by an intervention on it alone."""

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.circuits.class_graph import Tracing
        from openwork.vision.circuits.class_graph import class_graph as traced

        method = Tracing(width, images, claims, Standard(0.01, alpha), seed=common.seed)
        return traced(net, pictures, int(of) if of.isdigit() else of, site, method, tick=tick)

    options = {"width": (width, 4), "images": (images, 48), "claims": (claims, 5), "alpha": (alpha, 0.05)}
    found = seen("class-graph", model, [of, *site], options, (door, corpus), common, run)
    return exit_code(found, claims > 0)


def patch_places(
    model: VisionModel,
    site: Annotated[str, typer.Argument(help="A map of channels, such as module:stages.1.out.")],
    cover: Annotated[str, typer.Option(help="What is covered in the corrupted images, as category:concept.")] = (
        "part:wheel"
    ),
    pairs: Annotated[int, typer.Option(help="Pairs of images of each half, at most.")] = 40,
    channels: Annotated[int, typer.Option(help="Channels that are mapped over places.")] = 6,
    alpha: Alpha = 0.05,
    *,
    corpus: Corpus,
    door: Door,
    common: Common,
) -> int:
    """Write what a map holds of whole images into images with a part covered, channel by channel and place by place."""
    category, colon, concept = cover.partition(":")
    if not colon:
        raise BadInput(f"expected --cover as category:concept, such as part:wheel; got {cover!r}")

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.circuits.pairs import covered
        from openwork.vision.circuits.places import Placing
        from openwork.vision.circuits.places import patch_places as patched

        method = Placing(pairs, channels, Standard(alpha=alpha), seed=common.seed)
        return patched(net, covered(pictures, category, concept, 2 * pairs), site, method, tick=tick)

    options = {"cover": (cover, "part:wheel"), "pairs": (pairs, 40), "channels": (channels, 6), "alpha": (alpha, 0.05)}
    return exit_code(seen("patch-places", model, [site], options, (door, corpus), common, run), True)


def hierarchy(
    model: VisionModel,
    site: Sites,
    images: Annotated[int, typer.Option(help="Images of interventions, of each half, at most.")] = 400,
    claims: Claims = 4,
    alpha: Alpha = 0.05,
    *,
    corpus: Corpus,
    door: Door,
    common: Common,
) -> int:
    """Say which layers detect edges, textures, parts and objects, and whether higher detectors rest on lower ones."""

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.circuits.hierarchy import Climbing
        from openwork.vision.circuits.hierarchy import hierarchy as climbed

        method = Climbing(images=images, claims=claims, standard=Standard(0.05, alpha), seed=common.seed)
        return climbed(net, pictures, site, method, tick=tick)

    options = {"images": (images, 400), "claims": (claims, 4), "alpha": (alpha, 0.05)}
    found = seen("hierarchy", model, site, options, (door, corpus), common, run)
    return exit_code(found, claims > 0)
