"""Drawing scenes at random: class, pose, colours and textures independent of each other."""

from __future__ import annotations

from openwork.errors import BadInput, UnknownName
from openwork.worlds.shapes.draws import Draws
from openwork.worlds.shapes.names import BLOBS, CLASSES, COLOURS, TEXTURES
from openwork.worlds.shapes.scene import SIDE, VARIATIONS, Background, Blob, Scene, Surface, Thing

SPLITS = {"train": (0, 1, 2, 3, 4, 5, 6, 7), "find": (8,), "held-out": (9,)}
"""Split -> the last digits of the main object's x, so that no scene is in two of them."""
COLOUR_NAMES = tuple(COLOURS)
PATTERNED = TEXTURES[1:]
BACKGROUND_CHANCES = ("plain",) * 6 + ("gradient",) * 5 + ("textured",) * 4 + ("cluttered",) * 5
ANCHORS = ((140, 150), (500, 120), (860, 150), (130, 500), (870, 500), (140, 850), (500, 880), (860, 850))
"""Where lesser objects are, more or less."""
LIKELY_BESIDE = (0,) * 9 + (1,) * 6 + (2,) * 5
MAIN_SCALE, MAIN_SCALE_BESIDE, LESSER_SCALE = (560, 880), (520, 720), (210, 310)


def draw_scene(key: str, split: str) -> Scene:
    """A scene that depends on its key alone.

    Args:
        key: what to draw it from.
        split: one of `SPLITS`.

    Raises:
        UnknownName: if there is no such split.
    """
    if split not in SPLITS:
        raise UnknownName.among("split", split, SPLITS)
    draws = Draws(key)
    beside = draws.one_of(LIKELY_BESIDE)
    kinds = draws.some_of(CLASSES, 1 + beside)
    back_colour, body_colour = draws.some_of(COLOUR_NAMES, 2)
    background = _background(draws, back_colour, body_colour)
    scale = draws.between(*(MAIN_SCALE_BESIDE if beside else MAIN_SCALE))
    x = 10 * draws.between(40, 59) + draws.one_of(SPLITS[split])
    main = _thing(draws, kinds[0], x, draws.between(400, 600), scale, body_colour, back_colour)
    behind: list[Thing] = []
    before: list[Thing] = []
    for kind, (left, top) in zip(kinds[1:], draws.some_of(ANCHORS, beside), strict=True):
        colour = draws.one_of([name for name in COLOUR_NAMES if name != back_colour])
        at = left + draws.between(-40, 40), top + draws.between(-40, 40)
        lesser = _thing(draws, kind, *at, draws.between(*LESSER_SCALE), colour, back_colour)
        (before if draws.chance(70) else behind).append(lesser)
    occluders = (_occluder(draws, main, body_colour),) if draws.chance(25) else ()
    return Scene(background, (*behind, main, *before), len(behind), occluders, draws.between(780, 1000))


def split_of(scene: Scene) -> str:
    """The split that a scene belongs to.

    Raises:
        BadInput: never for a scene of this module; for one whose main object lies outside the picture.
    """
    digit = scene.things[scene.main].x % 10
    for name, digits in SPLITS.items():
        if digit in digits:
            return name
    raise BadInput(f"expected the last digit of a place; got {digit}")


def _surface(draws: Draws, colour: str, textured: int) -> Surface:
    texture = draws.one_of(PATTERNED) if draws.chance(textured) else "plain"
    return Surface(colour, texture, draws.between(-14, 14), draws.between(90, 150), draws.below(180), draws.below(SIDE))


def _thing(draws: Draws, kind: str, x: int, y: int, scale: int, colour: str, behind: str) -> Thing:
    large, detail = draws.some_of([name for name in COLOUR_NAMES if name not in (colour, behind)], 2)
    surfaces = (_surface(draws, colour, 60), _surface(draws, large, 30), _surface(draws, detail, 0))
    variation = tuple(draws.below(SIDE) for _ in range(VARIATIONS))
    return Thing(
        kind, x, y, scale, surfaces, draws.between(-25, 25), draws.chance(50), draws.between(-200, 200), variation
    )


def _background(draws: Draws, colour: str, avoided: str) -> Background:
    kind = draws.one_of(BACKGROUND_CHANCES)
    surface = _surface(draws, colour, 100 if kind == "textured" else 0)
    if kind != "cluttered":
        return Background(kind, surface)
    blobs = tuple(
        Blob(
            draws.one_of(BLOBS),
            draws.below(SIDE),
            draws.below(SIDE),
            draws.between(120, 340),
            draws.between(120, 340),
            draws.below(180),
            _surface(draws, draws.one_of([name for name in COLOUR_NAMES if name != avoided]), 30),
        )
        for _ in range(draws.between(3, 6))
    )
    return Background(kind, surface, blobs)


def _occluder(draws: Draws, main: Thing, avoided: str) -> Blob:
    """A bar across the main object or a blob on it, off its middle."""
    away = main.scale // 4
    x, y = (middle + draws.one_of((-1, 1)) * draws.between(away // 2, away) for middle in (main.x, main.y))
    surface = _surface(draws, draws.one_of([name for name in COLOUR_NAMES if name != avoided]), 30)
    if draws.chance(50):
        return Blob("box", x, y, draws.between(90, 150), 2 * SIDE, draws.below(180), surface)
    size = draws.between(200, 280)
    return Blob(draws.one_of(BLOBS), x, y, size, size, draws.below(180), surface)
