"""`openwork see`: pictures of what units answer to, beside the images that activate them and the test of both."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.command import Common, command
from openwork.cli.inquiry import exit_code
from openwork.cli.options import Alpha, Memory
from openwork.cli.pictures import Corpus, Door, Units, VisionModel, seen
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.pictures import Pictures
    from openwork.results.result import Result
    from openwork.vision.synthesis.making import Making


class How(StrEnum):
    """How pictures are made."""

    ascent = "ascent"
    maco = "maco"
    accentuation = "accentuation"
    dream = "dream"
    caricature = "caricature"
    inversion = "inversion"


WHOLE = (How.dream, How.caricature, How.inversion)
"""These are of whole sites, which have no dataset examples."""
STARTED = (*WHOLE, How.accentuation)
"""These begin with, or go by, an image of the corpus."""
USUAL = {How.ascent: 512, How.maco: 256, How.accentuation: 128, How.dream: 20, How.caricature: 512, How.inversion: 512}
"""Steps."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "see")(see)


def see(
    model: VisionModel,
    unit: Units,
    corpus: Corpus = Corpus(),
    how: Annotated[How, typer.Option(help="How pictures are made.")] = How.ascent,
    steps: Annotated[int | None, typer.Option(help="Of the optimisation; what its source uses unless given.")] = None,
    variants: Annotated[int, typer.Option(help="Pictures of each unit.")] = 1,
    row: Annotated[int, typer.Option(help="Image of the corpus that a picture begins with or goes by.")] = 0,
    centre: Annotated[
        bool, typer.Option("--centre", help="One place of each unit, the middle, instead of all.")
    ] = False,
    transparent: Annotated[
        bool, typer.Option("--transparent", help="Learn where a picture may be transparent.")
    ] = False,
    alone: Annotated[bool, typer.Option("--alone", help="Pictures only: no images of the corpus beside them.")] = False,
    tests: Annotated[int, typer.Option(help="Views that each picture is tested in.")] = 32,
    alpha: Alpha = 0.05,
    memory: Memory = "2GiB",
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Make pictures of what units answer to, and show them beside the images that activate the units."""
    count = USUAL[how] if steps is None else steps
    needs_corpus = not alone or how in STARTED or how is How.maco

    def run(net: Network, pictures: Any, tick: Callable[[float], None]) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.beside import Beside
        from openwork.vision.synthesis.objectives import with_centre
        from openwork.vision.synthesis.visualise import visualise
        from openwork.vision.units import units_of

        shared = {
            "variants": variants, "tests": tests, "standard": Standard(min_share=0.5, alpha=alpha), "memory": memory,
            "seed": common.seed,
        }  # fmt: skip
        method = _method(how, count, transparent, pictures, row, shared)
        units: Any = list(unit) if how in WHOLE else list(units_of(net, unit))
        if centre and how not in WHOLE:
            units = [with_centre(net, one) for one in units]
        lonely = alone or how in WHOLE or variants > 1
        if lonely:
            return visualise(net, units, method, tick=tick)
        try:
            beside = Beside.of(net, units, pictures, common.seed, lambda share: tick(0.2 * share))
        except BadInput as error:
            raise BadInput(f"{error}. --alone makes pictures without any images beside them") from error
        made = visualise(net, units, method, pictures, tick=lambda share: tick(0.2 + 0.7 * share))
        return beside.joined(made, lambda share: tick(0.9 + 0.1 * share))

    options = {"how": (how.value, How.ascent.value), "steps": (steps, None), "variants": (variants, 1), "row": (row, 0),
               "centre": (centre, False), "transparent": (transparent, False), "alone": (alone, False),
               "tests": (tests, 32), "alpha": (alpha, 0.05), "memory": (memory, "2GiB")}  # fmt: skip
    result = seen("see", model, unit, options, (door, corpus if needs_corpus else None), common, run)
    return exit_code(result, tests > 0)


def _method(
    how: How, steps: int, transparent: bool, pictures: Pictures | None, row: int, shared: dict[str, Any]
) -> Making:
    from openwork.vision.synthesis.accentuate import Accentuation
    from openwork.vision.synthesis.caricature import Caricature, Inversion
    from openwork.vision.synthesis.dream import DeepDream
    from openwork.vision.synthesis.maco import Maco
    from openwork.vision.synthesis.making import Ascent
    from openwork.vision.synthesis.spectrum import Spectrum

    if transparent and how is not How.ascent:
        raise BadInput(f"expected --transparent with --how ascent; got {how.value}")
    if how is How.ascent:
        return Ascent(steps=steps, alpha=transparent, **shared)
    if pictures is None:
        raise BadInput(f"expected a corpus for --how {how.value}")
    if how is How.maco:
        return Maco(Spectrum.of(pictures, rows=range(min(256, len(pictures)))), steps=steps, **shared)
    if not 0 <= row < len(pictures):
        raise BadInput(f"expected --row below the {len(pictures)} images of {pictures.name}; got {row}")
    start = pictures.pixels([row])[0].float() / 255
    kinds = {
        How.accentuation: Accentuation, How.dream: DeepDream, How.caricature: Caricature, How.inversion: Inversion,
    }  # fmt: skip
    return kinds[how](start, steps=steps, **shared)
