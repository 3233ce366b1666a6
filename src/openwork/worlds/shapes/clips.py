"""Short clips: a scene in which objects act one after the other; questions about what they do, and in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from openwork.errors import BadInput, UnknownName
from openwork.worlds.shapes.draws import Draws
from openwork.worlds.shapes.language import Question, seen
from openwork.worlds.shapes.paint import render
from openwork.worlds.shapes.scene import Scene, Thing

Array = np.ndarray
ACTIONS: Mapping[str, tuple[int, int, int, int]] = {
    "moves left": (-60, 0, 0, 0),
    "moves right": (60, 0, 0, 0),
    "moves up": (0, -60, 0, 0),
    "moves down": (0, 60, 0, 0),
    "turns": (0, 0, 14, 0),
    "grows": (0, 0, 0, 90),
    "shrinks": (0, 0, 0, -70),
}
"""Action -> what a step of it adds to x, y, angle, and to the scale in thousandths of it."""
STEPS = 3
"""Of each action, a frame each."""


@dataclass(frozen=True)
class Event:
    """What an object does.

    Attributes:
        thing: index of the object in the scene.
        action: one of `ACTIONS`.
    """

    thing: int
    action: str

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise UnknownName.among("action", self.action, ACTIONS)


@dataclass(frozen=True)
class Clip:
    """A scene and what happens in it, one event after the other; the first frame is the scene itself.

    Attributes:
        scene: at the beginning.
        events: in their order.
    """

    scene: Scene
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        things = len(self.scene.things)
        if not self.events or not all(0 <= event.thing < things for event in self.events):
            raise BadInput(f"expected events of the {things} objects of the scene; got {self.events}")

    def __len__(self) -> int:
        return 1 + STEPS * len(self.events)

    def frame(self, i: int) -> Scene:
        """The scene at a frame.

        Raises:
            BadInput: if there is no such frame.
        """
        if not 0 <= i < len(self):
            raise BadInput(f"expected a frame from 0 to {len(self) - 1}; got {i}")
        things = list(self.scene.things)
        for k, event in enumerate(self.events):
            steps = min(STEPS, max(0, i - k * STEPS))
            things[event.thing] = _acted(things[event.thing], event.action, steps)
        return replace(self.scene, things=tuple(things))

    def pixels(self, size: int) -> UInt8[Array, "frame channel y x"]:
        """The pictures of all frames.

        Args:
            size: of a picture's side in pixels.
        """
        return np.stack([render(self.frame(i), size) for i in range(len(self))])

    def reordered(self) -> Clip:
        """The same events in the opposite order: what a question about order must tell apart."""
        return replace(self, events=self.events[::-1])

    def questions(self) -> tuple[Question, ...]:
        """What each object does, and what comes first; yes and no balanced."""
        first, second = self.events[0], self.events[-1]
        actor, other = (f"the {self.scene.things[event.thing].kind}" for event in (first, second))
        doings = tuple(ACTIONS)
        early, late = f"{actor} {first.action}", f"{other} {second.action}"
        options = tuple(sorted((early, late)))
        before = "Is it true that {} before {}?"
        return (
            Question("motion", f"What does {actor} do first?", first.action, doings),
            Question("motion", f"What does {other} do last?", second.action, doings),
            Question("order", "What happens first?", early, options),
            Question("order", "What happens last?", late, options),
            Question("order", before.format(early, late), "yes", ("yes", "no")),
            Question("order", before.format(late, early), "no", ("yes", "no")),
        )

    def to_json(self) -> dict[str, Any]:
        """A record for `from_json`."""
        return {"scene": self.scene.to_json(), "events": [asdict(event) for event in self.events]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Clip:
        """Read a record of `to_json`.

        Raises:
            BadInput: if it is none.
        """
        try:
            return cls(Scene.from_json(record["scene"]), tuple(Event(**event) for event in record["events"]))
        except (KeyError, TypeError) as error:
            raise BadInput(f"expected a record of Clip.to_json; got {record!r:.200} ({error})") from error


def draw_clip(scene: Scene) -> Clip:
    """Two events of one object, or of two where there are two.

    Args:
        scene: all of the randomness lies in it, so that the clip is always the same.
    """
    draws = Draws("clip " + json.dumps(scene.to_json(), sort_keys=True))
    actors = [scene.things.index(thing) for thing in seen(scene)] or [scene.main]
    one, other = draws.some_of(actors, 2) if len(actors) > 1 and draws.chance(60) else [draws.one_of(actors)] * 2
    first, second = draws.some_of(tuple(ACTIONS), 2)
    return Clip(scene, (Event(one, first), Event(other, second)))


def _acted(thing: Thing, action: str, steps: int) -> Thing:
    x, y, angle, scale = (steps * value for value in ACTIONS[action])
    return replace(
        thing,
        x=thing.x + x,
        y=thing.y + y,
        angle=thing.angle + angle,
        scale=thing.scale * (1000 + scale) // 1000,
    )
