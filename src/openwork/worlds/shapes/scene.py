"""A scene as data: what is where, of which surface. Whole numbers only, so that a scene is the same everywhere.

Places and lengths are in thousandths of the picture's side, from the left and the top; angles in degrees, clockwise as
one sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from openwork.errors import BadInput, UnknownName
from openwork.worlds.shapes.names import BACKGROUNDS, BLOBS, CLASSES, COLOURS, TEXTURES

SIDE = 1000
VARIATIONS = 3
"""Numbers by which two objects of one class differ in shape."""
SURFACES = 3
"""Of an object: its main surface, that of its larger parts, that of its details."""


@dataclass(frozen=True)
class Surface:
    """What something is covered with.

    Attributes:
        colour: one of `COLOURS`.
        texture: one of `TEXTURES`.
        shade: added to every channel, in bytes.
        period: of the texture.
        angle: of the texture, whatever the object's own.
        phase: where the texture begins, in thousandths of its period.
    """

    colour: str
    texture: str = "plain"
    shade: int = 0
    period: int = 110
    angle: int = 0
    phase: int = 0

    def __post_init__(self) -> None:
        _known("colour", self.colour, COLOURS)
        _known("texture", self.texture, TEXTURES)
        _within("shade", self.shade, -40, 40)
        _within("period", self.period, 20, SIDE)
        _within("angle", self.angle, -360, 360)
        _within("phase", self.phase, 0, SIDE)


@dataclass(frozen=True)
class Thing:
    """An object.

    Attributes:
        kind: its class, one of `CLASSES`.
        x, y: of its middle.
        scale: the side of the square that it was drawn in, before stretching.
        surfaces: of its body, its larger parts, its details.
        angle: by which it is turned.
        mirrored: looks to the other side.
        stretch: how much wider than high it is made, in thousandths.
        variation: of its shape, each from 0 to 999.
    """

    kind: str
    x: int
    y: int
    scale: int
    surfaces: tuple[Surface, ...]
    angle: int = 0
    mirrored: bool = False
    stretch: int = 0
    variation: tuple[int, ...] = (500,) * VARIATIONS

    def __post_init__(self) -> None:
        _known("class", self.kind, CLASSES)
        _within("x", self.x, -SIDE, 2 * SIDE)
        _within("y", self.y, -SIDE, 2 * SIDE)
        _within("scale", self.scale, 50, 2 * SIDE)
        _within("angle", self.angle, -360, 360)
        _within("stretch", self.stretch, -400, 400)
        if len(self.surfaces) != SURFACES:
            raise BadInput(f"expected {SURFACES} surfaces (body, larger parts, details); got {len(self.surfaces)}")
        if len(self.variation) != VARIATIONS or not all(0 <= v < SIDE for v in self.variation):
            raise BadInput(f"expected {VARIATIONS} variations from 0 to {SIDE - 1}; got {self.variation}")


@dataclass(frozen=True)
class Blob:
    """A simple form that is no object: clutter behind the objects, or what hides a part of them.

    Attributes:
        shape: one of `BLOBS`.
        x, y: of its middle.
        width, height: before it is turned.
        angle: by which it is turned.
        surface: its only one.
    """

    shape: str
    x: int
    y: int
    width: int
    height: int
    angle: int
    surface: Surface

    def __post_init__(self) -> None:
        _known("blob", self.shape, BLOBS)
        _within("width", self.width, 10, 3 * SIDE)
        _within("height", self.height, 10, 3 * SIDE)
        _within("angle", self.angle, -360, 360)


@dataclass(frozen=True)
class Background:
    """What is behind everything.

    Attributes:
        kind: one of `BACKGROUNDS`; a gradient runs from the first to the second tone along the surface's angle.
        surface: all over it.
        blobs: clutter on it.
    """

    kind: str
    surface: Surface
    blobs: tuple[Blob, ...] = ()

    def __post_init__(self) -> None:
        _known("background", self.kind, BACKGROUNDS)


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn.

    Attributes:
        background: behind everything.
        things: the objects, farthest first; each hides what is farther.
        main: which of them the picture is of.
        occluders: in front of everything.
        light: brightness of the whole, in thousandths.
    """

    background: Background
    things: tuple[Thing, ...]
    main: int = 0
    occluders: tuple[Blob, ...] = ()
    light: int = 1000

    def __post_init__(self) -> None:
        if not self.things or not 0 <= self.main < len(self.things):
            raise BadInput(f"expected the main object to be one of {len(self.things)} objects; got {self.main}")
        _within("light", self.light, 300, 1000)

    @property
    def kind(self) -> str:
        """The class of the main object."""
        return self.things[self.main].kind

    def to_json(self) -> dict[str, Any]:
        """A record for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Scene:
        """Read a record of `to_json`, from JSON or not.

        Raises:
            BadInput: if it is none.
        """
        try:
            back = dict(record["background"])
            return cls(
                Background(back["kind"], Surface(**back["surface"]), _blobs(back["blobs"])),
                tuple(_thing(one) for one in record["things"]),
                record["main"],
                _blobs(record["occluders"]),
                record["light"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"expected a record of Scene.to_json; got {record!r:.200} ({error})") from error


def _thing(record: Mapping[str, Any]) -> Thing:
    surfaces = tuple(Surface(**one) for one in record["surfaces"])
    return Thing(**{**record, "surfaces": surfaces, "variation": tuple(record["variation"])})


def _blobs(records: Any) -> tuple[Blob, ...]:
    return tuple(Blob(**{**one, "surface": Surface(**one["surface"])}) for one in records)


def _known(what: str, name: str, names: Any) -> None:
    if name not in names:
        raise UnknownName.among(what, name, names)


def _within(what: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise BadInput(f"expected {what} as a whole number from {low} to {high}; got {value!r}")
