"""`openwork dissect`, `remove`, `describe`, `concepts`: what units detect, what rests on them, words, concepts."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.command import Common, command
from openwork.cli.inquiry import exit_code
from openwork.cli.loading import open_network
from openwork.cli.options import Alpha, Claims
from openwork.cli.pictures import Corpus, Door, VisionModel, seen
from openwork.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.results.result import Result
    from openwork.vision.dissection.describe import Bank

SITES = "blocks.*.resid_post"
Tick = Callable[[float], None]
Sites = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SITE]...", help=f"Sites whose channels are the units; {SITES} unless given."),
]
OneSite = Annotated[str, typer.Argument(metavar="SITE", help="One site, such as blocks.2.resid_post.")]


class How(StrEnum):
    """How concepts are found."""

    craft = "craft"
    patches = "patches"
    score = "score"


class Pool(StrEnum):
    """How the places of an image become one number."""

    mean = "mean"
    max = "max"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (dissect, remove, describe, concepts):
        command(app, function.__name__)(function)


def dissect(
    model: VisionModel,
    site: Sites = None,
    corpus: Corpus = Corpus(),
    share: Annotated[float, typer.Option(help="Of all places, those above a unit's threshold.")] = 0.005,
    least: Annotated[float, typer.Option(help="Intersection over union that makes a detector.")] = 0.04,
    rotations: Annotated[int, typer.Option(help="Random bases to compare with, at least.")] = 10,
    claims: Claims = 5,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Which units fire where a concept is, on images with masks, against randomly rotated units."""
    sites = list(site or [SITES])

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.dissection.dissect import Dissection
        from openwork.vision.dissection.dissect import dissect as verb

        method = Dissection(share, least, rotations, claims, standard=Standard(alpha=alpha), seed=common.seed)
        return verb(net, sites, with_masks(pictures), method, tick=tick)

    given = {"share": (share, 0.005), "least": (least, 0.04), "rotations": (rotations, 10), "claims": (claims, 5),
         "alpha": (alpha, 0.05)}  # fmt: skip
    return exit_code(seen("dissect", model, sites, given, (door, corpus), common, run), claims=False)


def remove(
    model: VisionModel,
    site: OneSite,
    corpus: Corpus = Corpus(),
    best: Annotated[int, typer.Option(help="Best units of a class that are removed together in a claim.")] = 4,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Which units each class rests on: balanced accuracy with units at zero, against random sets."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.dissection.removal import Removal
        from openwork.vision.dissection.removal import remove as verb

        sizes = tuple(sorted({1, 2, 4, 8, 16, best}))
        method = Removal(sizes, best, claims, standard=Standard(alpha=alpha), seed=common.seed)
        return verb(net, site, with_classes(pictures), method, tick=tick)

    given = {"best": (best, 4), "claims": (claims, 3), "alpha": (alpha, 0.05)}
    return exit_code(seen("remove", model, [site], given, (door, corpus), common, run), claims > 0)


def describe(
    model: VisionModel,
    site: OneSite,
    corpus: Corpus = Corpus(),
    clip: Annotated[
        Path | None, typer.Option(help="Folder of a model of transformers that embeds texts and images, with --words.")
    ] = None,
    words: Annotated[Path | None, typer.Option(help="File with a word or phrase a line, for --clip.")] = None,
    way: Annotated[str, typer.Option(help="soft-wpmi, wpmi, cos-cubed or rank-reorder.")] = "soft-wpmi",
    pool: Annotated[Pool, typer.Option(help="Of a unit over the places of an image.")] = Pool.mean,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps activations and similarities.")] = None,
    claims: Claims = 5,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Words for units: those of the images' masks, or of an encoder of texts and images."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.dissection.describe import Description
        from openwork.vision.dissection.describe import describe as verb

        method = Description(way, pool.value, claims=claims, standard=Standard(alpha=alpha), seed=common.seed)
        return verb(net, site, pictures, bank_of(pictures, clip, words, common), method, cache=cache, tick=tick)

    given = {"clip": (clip, None), "words": (words, None), "way": (way, "soft-wpmi"), "pool": (pool.value, "mean"),
         "cache": (cache, None), "claims": (claims, 5), "alpha": (alpha, 0.05)}  # fmt: skip
    return exit_code(seen("describe", model, [site], given, (door, corpus), common, run), claims=False)


def concepts(
    model: VisionModel,
    site: OneSite,
    corpus: Corpus = Corpus(),
    how: Annotated[
        How,
        typer.Option(help="craft: of one class; patches: shared by all images; score: how much concepts carry at all."),
    ] = How.craft,
    target: Annotated[str, typer.Option(help="Class of craft, by its number or by its name in the corpus.")] = "0",
    number: Annotated[int, typer.Option(help="How many concepts.")] = 10,
    claims: Claims = 3,
    alpha: Alpha = 0.05,
    door: Door = Door(),
    *,
    common: Common,
) -> int:
    """Concepts that activations are made of, how much each matters, and where it is."""

    def run(net: Network, pictures: Any, tick: Tick) -> Result:
        from openwork.results.claims import Standard
        from openwork.vision.concepts.craft import Craft, craft
        from openwork.vision.concepts.interpretability import Score, interpretability
        from openwork.vision.concepts.patch_concepts import PatchConcepts, patch_concepts

        shared: dict[str, Any] = {"standard": Standard(alpha=alpha), "seed": common.seed}
        if how is How.patches:
            return patch_concepts(net, site, pictures, PatchConcepts(number, **shared), tick=tick)
        if how is How.score:
            return interpretability(net, site, with_classes(pictures), Score(number, **shared), tick=tick)
        wanted = class_of(pictures, target)
        return craft(net, site, pictures, wanted, Craft(number, claims=claims, **shared), tick=tick)

    given = {"how": (how.value, "craft"), "target": (target, "0"), "number": (number, 10), "claims": (claims, 3),
         "alpha": (alpha, 0.05)}  # fmt: skip
    result = seen("concepts", model, [site], given, (door, corpus), common, run)
    return exit_code(result, how is not How.score and claims > 0)


def with_masks(pictures: Any) -> Any:
    """Refuse images without masks.

    Raises:
        BadInput: if nothing says what their pixels show.
    """
    if not getattr(pictures, "concepts", None):
        raise BadInput(
            f"expected images with masks; {pictures.name} has none. Give --masks FOLDER with an id map of each image "
            "and concepts.json, or --pictures shapes"
        )
    return pictures


def with_classes(pictures: Any) -> Any:
    """Refuse images without classes.

    Raises:
        BadInput: if nothing says of what class they are.
    """
    if not getattr(pictures, "class_names", None):
        raise BadInput(
            f"expected images with classes; {pictures.name} has none. Give a folder with a sub-folder a class, or "
            "--pictures shapes"
        )
    return pictures


def class_of(pictures: Any, target: str) -> int:
    """The number of a class.

    Raises:
        UnknownName: for a name that the corpus does not have.
    """
    if target.isdigit():
        return int(target)
    names = list(getattr(pictures, "class_names", ()))
    if target not in names:
        raise UnknownName.among("class", target, names, "A number names a class of the network.")
    return names.index(target)


def bank_of(pictures: Any, clip: Path | None, words: Path | None, common: Common) -> Bank:
    """Words of a file by an encoder of texts and images, or the concepts of the images' masks.

    Raises:
        BadInput: for one without the other, or a file without words.
    """
    from openwork.vision.dissection.describe import MaskBank, paired_bank

    if clip is None and words is None:
        return MaskBank(with_masks(pictures))
    if clip is None or words is None:
        raise BadInput("expected --clip and --words together, or neither: then the words are those of the masks")
    try:
        lines = words.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"expected a file of words at {words}; {error.strerror}") from error
    found = [line.strip() for line in lines if line.strip()]
    if len(found) < 2:
        raise BadInput(f"expected two words or more in {words}, one a line; it has {len(found)}")
    return paired_bank(open_network(str(clip), common), found)
