"""Stimuli drawn by rule, antialiased: gratings, edges, lines, curves and discs of colour around one place.

    stimuli("orientation", field=11)            # gratings, 0 to 180 degrees
    stimuli("curve", field=24)                  # arcs that bend towards 0 to 360 degrees
    draw("edge", {"orientation": [0.0, 90.0]}, size=(32, 32), centre=(15.5, 15.5))

Angles are in degrees, counter-clockwise as one sees the image, 0 to the right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput, UnknownName

GREY = 0.5
HUE_REACH = 0.6
"""The largest distance from grey at which every hue of one mean lies in the cube of colours (it is 0.612)."""
HUES = ((2 / 6**0.5, -1 / 6**0.5, -1 / 6**0.5), (0.0, 1 / 2**0.5, -1 / 2**0.5))
"""Two directions at right angles to grey: to red, and from blue to green."""
SMALLEST_RADIUS = 1.5
HIGHEST = 0.4
"""Cycles a pixel; beyond it a grating is mostly its own aliasing."""


@dataclass(frozen=True)
class Stimuli:
    """A feature that stimuli differ in, and what else is varied.

    Args:
        shape: grating, edge, line, curve, arc or disc.
        feature: the parameter of the shape that is tuned.
        values: of the feature, in order.
        period: after how much the feature is the same again; None if it is not circular.
        unit: of the values.
        scanned: parameter -> values, of which each unit gets what suits it, chosen on find trials.
        pooled: parameter -> values, over which a response is the largest.
        drawn: parameter -> range from which each trial draws; of a parameter that is pooled, a shift of its values.

    Raises:
        UnknownName: for a shape or a parameter that it has not.
        BadInput: if a parameter has two roles, or too few values.
    """

    shape: str
    feature: str
    values: tuple[float, ...]
    period: float | None = None
    unit: str = "degrees"
    scanned: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    pooled: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    drawn: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {"contrast": (0.5, 1.0), "right": (-0.5, 0.5), "up": (-0.5, 0.5)}
    )

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UnknownName.among("shape of a stimulus", self.shape, SHAPES)
        known = {*SHAPES[self.shape], *PLACED}
        for name in (self.feature, *self.scanned, *self.pooled, *self.drawn):
            if name not in known:
                raise UnknownName.among(f"parameter of a {self.shape}", name, known)
        fixed = [self.feature, *self.scanned]
        if len({*fixed}) < len(fixed) or {*fixed} & {*self.pooled, *self.drawn} or {*self.scanned} & {*self.pooled}:
            raise BadInput(f"expected each parameter once; got {self.feature}, {[*self.scanned, *self.pooled]}")
        if len({*self.values}) < 3 or len({*self.values}) < len(self.values):
            raise BadInput(f"expected three or more different values of {self.feature}; got {self.values}")
        if any(not len(v) for v in (*self.scanned.values(), *self.pooled.values())):
            raise BadInput("expected values of every parameter that is scanned or pooled; got none")
        for name, (low, high) in self.drawn.items():
            if low > high:
                raise BadInput(f"expected a range of {name} from low to high; got {(low, high)}")

    def trials(self, n: int, seed: int) -> dict[str, Float[np.ndarray, " trial"]]:
        """What each trial draws."""
        rng = np.random.default_rng(seed)
        return {name: rng.uniform(low, high, n) for name, (low, high) in self.drawn.items()}

    def to_json(self) -> dict[str, Any]:
        """A record for the settings of a result."""
        ranges = {name: [*map(float, v)] for name, v in self.drawn.items()}
        lists = ({k: [*map(float, v)] for k, v in some.items()} for some in (self.scanned, self.pooled))
        scanned, pooled = lists
        return {"shape": self.shape, "feature": self.feature, "values": [*map(float, self.values)],
                "period": self.period, "scanned": scanned, "pooled": pooled, "drawn": ranges}  # fmt: skip


def draw(
    shape: str,
    parameters: Mapping[str, Sequence[float] | np.ndarray],
    size: tuple[int, int],
    centre: tuple[float, float],
) -> Float[Tensor, "image 3 y x"]:
    """Draw stimuli on grey.

    Args:
        shape: grating, edge, line, curve, arc (the same by its radius) or disc.
        parameters: name -> one value an image; those left out are usual. Besides those of the shape, ``right`` and
            ``up`` move it, in pixels. ``orientation`` is that of the bars of a grating or of a line; the side to which
            an edge gets brighter; and the side to which a curve bends, where its centre lies. ``frequency`` is in
            cycles a pixel, ``curvature`` is 1 / radius (0 is a line), ``polarity`` 1 for bright and -1 for dark.
        size: (height, width).
        centre: (y, x) of the place that it is drawn at; pixel centres are whole numbers.

    Returns:
        pixels in [0, 1]. An edge, line or curve covers a pixel in part where it passes through it.

    Raises:
        UnknownName: for a shape or parameter that does not exist.
        BadInput: if the numbers of values differ.
    """
    if shape not in SHAPES:
        raise UnknownName.among("shape of a stimulus", shape, SHAPES)
    usual = {**SHAPES[shape], **PLACED}
    for name in parameters:
        if name not in usual:
            raise UnknownName.among(f"parameter of a {shape}", name, usual)
    counts = {len(values) for values in parameters.values()}
    if len(counts) != 1:
        raise BadInput(f"expected as many values of every parameter; got {sorted(counts)}")
    (n,) = counts
    given = {
        name: torch.as_tensor(np.asarray(parameters.get(name, [value] * n)), dtype=torch.float32)[:, None, None]
        for name, value in usual.items()
    }
    x = torch.arange(size[1], dtype=torch.float32)[None, None, :] - centre[1] - given["right"]
    up = centre[0] - torch.arange(size[0], dtype=torch.float32)[None, :, None] - given["up"]
    return PAINTERS[shape](x.expand(n, *size), up.expand(n, *size), given).clamp(0, 1)


Given = Mapping[str, Tensor]
Plane = Float[Tensor, "image y x"]


def _along(x: Plane, up: Plane, degrees: Tensor) -> Plane:
    """How far each pixel lies in a direction."""
    angle = torch.deg2rad(degrees)
    return x * torch.cos(angle) + up * torch.sin(angle)


def _grey(value: Plane) -> Float[Tensor, "image 3 y x"]:
    return (GREY + value)[:, None].expand(-1, 3, -1, -1)


def _grating(x: Plane, up: Plane, given: Given) -> Tensor:
    across = _along(x, up, given["orientation"] + 90)
    wave = torch.cos(2 * torch.pi * given["frequency"] * across + torch.deg2rad(given["phase"]))
    return _grey(GREY * given["contrast"] * wave)


def _edge(x: Plane, up: Plane, given: Given) -> Tensor:
    return _grey(GREY * given["contrast"] * (2 * _along(x, up, given["orientation"])).clamp(-1, 1))


def _band(distance: Plane, width: Tensor) -> Plane:
    """What share of a pixel lies in a band, about; a band narrower than a pixel never fills one."""
    return torch.minimum(width / 2 - distance.abs() + 0.5, width.clamp(max=1.0)).clamp(min=0.0)


def _line(x: Plane, up: Plane, given: Given) -> Tensor:
    across = _along(x, up, given["orientation"] + 90)
    return _grey(GREY * given["contrast"] * given["polarity"] * _band(across, given["width"]))


def _curve(x: Plane, up: Plane, given: Given) -> Tensor:
    # the distance to a circle through the place, written so that it holds for curvature 0
    inward, beside = _along(x, up, given["orientation"]), _along(x, up, given["orientation"] + 90)
    bend = given["curvature"]
    to_centre = torch.hypot(bend * beside, 1 - bend * inward)
    distance = (bend * (beside**2 + inward**2) - 2 * inward) / (to_centre + 1)
    near = ((1 - bend * inward) / bend.clamp(min=1e-6) + 0.5).clamp(0, 1)  # the half of the circle at the place
    return _grey(GREY * given["contrast"] * given["polarity"] * near * _band(distance, given["width"]))


def _arc(x: Plane, up: Plane, given: Given) -> Tensor:
    return _curve(x, up, {**given, "curvature": 1 / given["radius"]})


def _disc(x: Plane, up: Plane, given: Given) -> Tensor:
    inside = (given["radius"] - torch.hypot(x, up) + 0.5).clamp(0, 1)
    angle = torch.deg2rad(given["hue"])
    red, green = (torch.tensor(axis)[None, :, None, None] for axis in HUES)
    colour = torch.cos(angle)[:, None] * red + torch.sin(angle)[:, None] * green
    return GREY + HUE_REACH * (given["contrast"] * inside)[:, None] * colour


PLACED: Mapping[str, float] = MappingProxyType({"right": 0.0, "up": 0.0})
SHAPES: Mapping[str, Mapping[str, float]] = MappingProxyType({
    "grating": {"orientation": 0.0, "frequency": 0.1, "phase": 0.0, "contrast": 1.0},
    "edge": {"orientation": 0.0, "contrast": 1.0},
    "line": {"orientation": 0.0, "width": 1.0, "polarity": 1.0, "contrast": 1.0},
    "curve": {"orientation": 0.0, "curvature": 0.1, "width": 1.0, "polarity": 1.0, "contrast": 1.0},
    "arc": {"orientation": 0.0, "radius": 8.0, "width": 1.0, "polarity": 1.0, "contrast": 1.0},
    "disc": {"hue": 0.0, "radius": 4.0, "contrast": 1.0},
})  # fmt: skip
"""Shape -> its parameters and what they are unless given."""
PAINTERS: Mapping[str, Callable[[Tensor, Tensor, Given], Tensor]] = MappingProxyType({
    "grating": _grating, "edge": _edge, "line": _line, "curve": _curve, "arc": _arc,
    "disc": _disc,
})  # fmt: skip


def stimuli(name: str, field: float | int) -> Stimuli:
    """Stimuli of a usual kind.

    Args:
        name: ``orientation``, ``frequency`` or ``phase`` of gratings; ``edge`` or ``line`` for their orientation;
            ``curve`` for the side to which a curve bends, ``curvature`` or ``radius`` for how much; ``hue``.
        field: the receptive field in pixels, which sizes go by.

    Raises:
        UnknownName: for another name.
        BadInput: for a field below a pixel.
    """
    if name not in KINDS:
        raise UnknownName.among("kind of stimuli", name, KINDS)
    if not field >= 1:
        raise BadInput(f"expected a receptive field of a pixel or more; got {field}")
    return KINDS[name](field)


def _turn(whole: float | int, step: float | int) -> tuple[float, ...]:
    return tuple(np.arange(0.0, whole, step).tolist())


def _frequencies(field: float, n: int) -> tuple[float, ...]:
    """From half a cycle in the field up."""
    return tuple(np.geomspace(min(0.5 / field, HIGHEST / 4), HIGHEST, n).round(4).tolist())


def _widths(field: float) -> tuple[float, ...]:
    return tuple(sorted({max(1.0, round(field * share, 2)) for share in (0.1, 0.2, 0.4)}))


def _radii(field: float, shares: Sequence[float]) -> tuple[float, ...]:
    return tuple(sorted({max(SMALLEST_RADIUS, round(field * share, 2)) for share in shares}))


ANYWHERE = {"phase": (0.0, 360.0)}
SHAKEN = {"contrast": (0.5, 1.0), "right": (-0.5, 0.5), "up": (-0.5, 0.5)}
PHASES, BOTH = _turn(360, 60), (1.0, -1.0)


def _orientation(field: float) -> Stimuli:
    scanned = {"frequency": _frequencies(field, 5)}
    drawn = {**SHAKEN, **ANYWHERE}
    return Stimuli("grating", "orientation", _turn(180, 10), 180.0, "degrees", scanned, {"phase": PHASES}, drawn)


def _frequency(field: float) -> Stimuli:
    values, scanned = _frequencies(field, 9), {"orientation": _turn(180, 22.5)}
    return Stimuli(
        "grating", "frequency", values, None, "cycles a pixel", scanned, {"phase": PHASES}, {**SHAKEN, **ANYWHERE}
    )


def _phase(field: float) -> Stimuli:
    # moving a grating is changing its phase, so only its contrast is drawn
    scanned = {"orientation": _turn(180, 22.5), "frequency": _frequencies(field, 5)}
    drawn = {"contrast": SHAKEN["contrast"]}
    return Stimuli("grating", "phase", _turn(360, 22.5), 360.0, "degrees", scanned, {}, drawn)


def _edges(field: float) -> Stimuli:
    return Stimuli("edge", "orientation", _turn(360, 15), 360.0, "degrees", {}, {}, SHAKEN)


def _lines(field: float) -> Stimuli:
    return Stimuli(
        "line", "orientation", _turn(180, 10), 180.0, "degrees", {"width": _widths(field)}, {"polarity": BOTH}, SHAKEN
    )


def _curves(field: float) -> Stimuli:
    bends = tuple(round(1 / radius, 5) for radius in _radii(field, (0.25, 0.5, 1.0)))
    scanned = {"curvature": bends, "width": _widths(field)[:2]}
    return Stimuli("curve", "orientation", _turn(360, 15), 360.0, "degrees", scanned, {"polarity": BOTH}, SHAKEN)


def _curvature(field: float) -> Stimuli:
    largest = 1 / max(SMALLEST_RADIUS, 0.2 * field)
    values = tuple(np.linspace(0, largest, 9).round(5).tolist())
    scanned = {"orientation": _turn(360, 30), "width": _widths(field)[:2]}
    return Stimuli("curve", "curvature", values, None, "1 / pixel", scanned, {"polarity": BOTH}, SHAKEN)


def _radius(field: float) -> Stimuli:
    values = tuple(np.geomspace(max(SMALLEST_RADIUS, 0.2 * field), max(4 * SMALLEST_RADIUS, 2 * field), 9).round(2))
    scanned = {"orientation": _turn(360, 30), "width": _widths(field)[:2]}
    return Stimuli("arc", "radius", tuple(map(float, values)), None, "pixels", scanned, {"polarity": BOTH}, SHAKEN)


def _hue(field: float) -> Stimuli:
    # colour is a matter of amount: a disc of the field and one of half of it
    scanned = {"radius": _radii(field, (0.25, 0.5, 1.0))}
    return Stimuli("disc", "hue", _turn(360, 15), 360.0, "degrees", scanned, {}, SHAKEN)


KINDS: Mapping[str, Callable[[float], Stimuli]] = MappingProxyType({
    "orientation": _orientation, "frequency": _frequency, "phase": _phase, "edge": _edges, "line": _lines,
    "curve": _curves, "curvature": _curvature, "radius": _radius, "hue": _hue,
})  # fmt: skip
