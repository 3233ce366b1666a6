"""What a scene shows, in words: captions, and questions whose answers follow from the scene."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from openwork.worlds.shapes.draws import Draws
from openwork.worlds.shapes.names import CLASSES, COLOURS, TEXTURES
from openwork.worlds.shapes.paint import visible
from openwork.worlds.shapes.scene import Scene, Surface, Thing

SIDES = ("left of", "right of", "above", "below")
WORDS = {
    "plain": "plain",
    "stripes": "striped",
    "checks": "checked",
    "dots": "dotted",
    "waves": "wavy",
    "grid": "gridded",
    "noise": "speckled",
}
"""Texture -> adjective."""
GRAIN = 64
"""Pixels of a side at which it is decided what can be seen."""
SEEN = 12
"""Pixels of an object at that size, from which on it can be seen."""
NOTHING = "nothing"


@dataclass(frozen=True)
class Question:
    """A question about a scene or clip.

    Attributes:
        kind: such as "colour" or "presence".
        text: the question.
        answer: the right one.
        options: all answers that make sense, the right one among them.
    """

    kind: str
    text: str
    answer: str
    options: tuple[str, ...]


def seen(scene: Scene) -> tuple[Thing, ...]:
    """The objects of which enough is visible, farthest first."""
    counts = np.bincount(visible(scene, GRAIN).ravel() + 1, minlength=1 + len(scene.things))
    return tuple(thing for thing, count in zip(scene.things, counts[1:], strict=True) if count >= SEEN)


def side(of: Thing, seen_from: Thing) -> str:
    """On which side of an object another one is: one of `SIDES`."""
    dx, dy = of.x - seen_from.x, of.y - seen_from.y
    if abs(dx) >= abs(dy):
        return SIDES[0] if dx < 0 else SIDES[1]
    return SIDES[2] if dy < 0 else SIDES[3]


def described(surface: Surface) -> str:
    """A surface in words, as "red striped"."""
    return surface.colour if surface.texture == "plain" else f"{surface.colour} {WORDS[surface.texture]}"


def caption(scene: Scene) -> str:
    """The main object, what it is on, and the lesser ones where they are."""
    main = scene.things[scene.main]
    back = scene.background
    ground = described(back.surface) if back.kind == "textured" else f"{back.kind} {back.surface.colour}"
    lesser = [
        f", a small {described(thing.surfaces[0])} {thing.kind} {_place(side(thing, main))} it"
        for thing in seen(scene)
        if thing is not main
    ]
    return f"a {described(main.surfaces[0])} {main.kind} on a {ground} background{''.join(lesser)}"


def questions(scene: Scene) -> tuple[Question, ...]:
    """Questions of every kind that the scene can answer; of those about presence as many are answered yes as no.

    Args:
        scene: all of its randomness lies in itself, so that the questions are always the same.
    """
    draws = Draws("questions " + json.dumps(scene.to_json(), sort_keys=True))
    main, present = scene.things[scene.main], seen(scene)
    body, absent = main.surfaces[0], sorted(set(CLASSES) - {thing.kind for thing in scene.things})
    yes, no = draws.one_of(present or (main,)).kind, draws.one_of(absent)
    numbers = tuple(map(str, range(1, 4)))
    out = [
        Question("object", "What is the largest object?", main.kind, CLASSES),
        Question("colour", f"What colour is the body of the {main.kind}?", body.colour, tuple(COLOURS)),
        Question("texture", f"What is the pattern of the {main.kind}?", body.texture, TEXTURES),
        Question("background", "What colour is the background?", scene.background.surface.colour, tuple(COLOURS)),
        Question("count", "How many objects are there?", str(len(present)), numbers),
        Question("presence", f"Is there {_a(yes)}?", "yes", ("yes", "no")),
        Question("presence", f"Is there {_a(no)}?", "no", ("yes", "no")),
    ]
    beside = [thing for thing in present if thing is not main]
    options = (*CLASSES, NOTHING)
    found = {where: [thing.kind for thing in beside if side(thing, main) == where] for where in SIDES}
    asked = [where for where in SIDES if len(found[where]) == 1]
    empty = [where for where in SIDES if not found[where]]
    for where in (draws.some_of(asked, 1) if asked else []) + draws.some_of(empty, 1):
        answer = (found[where] or [NOTHING])[0]
        out.append(Question("relation", f"What is {_place(where)} the {main.kind}?", answer, options))
    return tuple(out)


def _place(where: str) -> str:
    return where if where in SIDES[2:] else f"to the {where}"


def _a(kind: str) -> str:
    return f"a {kind}"
