"""Networks that see and whose every channel is known: detectors of colours, turned filters, a union, a shared unit.

    made = sighted(0)                  # Sighted: the module and what is known of it
    pictures = spots(120, seed=1)      # a coloured square and a patch of bars on grey noise, with masks and classes

Made by hand, with the channels in an order that the seed draws. `scrambled` takes the knowledge out of pictures: masks
and classes of other images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.worlds.picture_array import PictureArray

SIDE, FIELD, SPOT = 24, 9, 5
EDGE = (FIELD - SPOT) // 2
COLOURS = ("red", "green", "blue")
ANGLES = (0.0, 45.0, 90.0, 135.0)
FIRST, SECOND = 15, 40
DEAD, ROUND, SHARED, RANDOM = 7, 8, 9, 10
UNION, READER, STRIPED, MIXED = 3, 4, 5, 8
"""Kinds of channels of the first layer, and of the second; from the last named on they are of one kind."""
BARS, BOTH = 1.2, 0.7
"""What bars weigh beside a colour, and what both must exceed together: either alone stays below it."""
PATCHES = {
    "colour": COLOURS,
    "texture": tuple(f"bars at {angle:g}" for angle in ANGLES),
    "object": (*(f"striped {colour}" for colour in COLOURS), "plain"),
    "pattern": ("bars",),
}
FIRST_SITE, SECOND_SITE = "module:act.out", "module:last.out"


class Eye(nn.Module):
    """Two layers of channels and three classes.

    Args:
        order: what each channel of the first layer is: 0-2 detectors of the colours, 3-6 one grating at four angles,
            7 nothing at all, 8 a round filter that fires at bars of any angle, 9 at red and at bars, the rest random
            filters.
        then: what each channel of the second is: 0-2 carry a colour on, 3 any grating and against 9, 4 red and 9,
            5-7 a colour and bars at one place, the rest mix the random filters at random.
        generator: of what is random.
    """

    def __init__(self, order: list[int], then: list[int], generator: torch.Generator):
        super().__init__()
        self.first = nn.Conv2d(3, FIRST, FIELD, padding=FIELD // 2, padding_mode="reflect")
        self.act = nn.ReLU()
        self.second = nn.Conv2d(FIRST, SECOND, 1)
        self.last = nn.ReLU()
        self.head = nn.Linear(SECOND, len(COLOURS))
        with torch.no_grad():
            self._first(order, generator)
            self._second(order, then, generator)

    def _first(self, order: list[int], generator: torch.Generator) -> None:
        weight = 0.1 * torch.randn(FIRST, 3, FIELD, FIELD, generator=generator)
        weight -= weight.mean((1, 2, 3), keepdim=True)
        weight[:RANDOM] = 0
        middle = slice(FIELD // 2 - 1, FIELD // 2 + 2)
        for colour in range(3):
            weight[colour, :, middle, middle] = -1 / 18
            weight[colour, colour, middle, middle] = 1 / 9
        for number, angle in enumerate(ANGLES):
            weight[3 + number] = grating(angle) / 3
        weight[ROUND] = rings() / 3
        weight[SHARED] = weight[0] + 1.5 * weight[ROUND]
        self.first.weight.copy_(weight[order])
        assert self.first.bias is not None
        self.first.bias.zero_()

    def _second(self, order: list[int], then: list[int], generator: torch.Generator) -> None:
        place = {kind: channel for channel, kind in enumerate(order)}
        weight = torch.zeros(SECOND, FIRST)
        rest = [place[kind] for kind in range(RANDOM, FIRST)]
        bias = torch.zeros(SECOND)
        for kind in range(SECOND):
            if kind < UNION:
                weight[kind, place[kind]] = 2.0
            elif kind == UNION:
                weight[kind, [place[k] for k in range(3, 7)]] = 1.0
                weight[kind, place[SHARED]] = -0.8
            elif kind == READER:
                weight[kind, [place[0], place[SHARED]]] = 1.0
            elif kind < MIXED:
                weight[kind, [place[kind - STRIPED], place[ROUND]]] = torch.tensor([1.0, BARS])
                bias[kind] = -BOTH
            else:
                weight[kind, rest] = 0.5 * torch.randn(len(rest), generator=generator)
        self.second.weight.copy_(weight[then][:, :, None, None])
        assert self.second.bias is not None
        self.second.bias.copy_(bias[then])
        head = 0.05 * torch.randn(len(COLOURS), SECOND, generator=generator)
        for channel, kind in enumerate(then):
            if kind < MIXED:
                head[:, channel] = 0
            if kind < len(COLOURS):
                head[kind, channel] = 30.0
        self.head.weight.copy_(head)
        self.head.bias.zero_()

    def forward(self, images: Float[Tensor, "image channel y x"]) -> Float[Tensor, "image class"]:
        """Logits of the colours."""
        return self.head(self.last(self.second(self.act(self.first(images)))).mean((2, 3)))


@dataclass(frozen=True, eq=False)
class Sighted:
    """A network with what is known of it.

    Args:
        module: reads pixels in [0, 1].
        detectors: unit -> the colour that it fires at, be it also at bars.
        gratings: units of the first layer that are one filter at several angles.
        union: the unit of the second layer that any of these excites.
        shared: the unit of the first layer that red and bars share, and that later units read with both signs.
        striped: units of the second layer that fire at one colour with bars on it -> the colour.
        dead: units that nothing moves.
        reads: (sender, receiver) with a weight between them.
        edges: those that carry the colours; each class speaks for its own and against the others.
        critical: class -> the one unit of the second layer that it rests on.
    """

    module: nn.Module
    detectors: Mapping[str, str]
    gratings: frozenset[str]
    union: str
    shared: str
    striped: Mapping[str, str]
    dead: frozenset[str]
    reads: frozenset[tuple[str, str]]
    edges: frozenset[tuple[str, str]]
    critical: Mapping[str, str]


def sighted(seed: int) -> Sighted:
    """A network made by hand.

    Args:
        seed: of the order of its channels and of what is random in it.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(FIRST, generator=generator).tolist()
    then = torch.randperm(SECOND, generator=generator).tolist()
    module = Eye(order, then, generator).eval()
    one = {kind: f"{FIRST_SITE}[{channel}]" for channel, kind in enumerate(order)}
    two = {kind: f"{SECOND_SITE}[{channel}]" for channel, kind in enumerate(then)}
    named = list(enumerate(COLOURS))
    detectors = {unit[k]: name for unit in (one, two) for k, name in named}
    weight = module.second.weight[:, :, 0, 0]
    return Sighted(
        module,
        {**detectors, one[SHARED]: COLOURS[0], two[READER]: COLOURS[0]},
        frozenset(one[k] for k in range(3, 7)),
        two[UNION],
        one[SHARED],
        {two[STRIPED + k]: name for k, name in named},
        frozenset({one[DEAD]}),
        frozenset((f"{FIRST_SITE}[{int(b)}]", f"{SECOND_SITE}[{int(a)}]") for a, b in weight.nonzero()),
        frozenset((one[k], two[k]) for k, _ in named),
        {name: two[k] for k, name in named},
    )


def blind(seed: int) -> nn.Module:
    """The same layers with random weights: nothing in it was made for anything.

    Args:
        seed: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    module = Eye(list(range(FIRST)), list(range(SECOND)), generator)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            width = parameter[0].numel() if parameter.ndim > 1 else 1
            spread = width**-0.5 if name.endswith("weight") else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def grating(angle: float) -> Float[Tensor, "y x"]:
    """Bars under a bump, counter-clockwise from the right, that sum to nothing and have length one.

    Args:
        angle: degrees.
    """
    reach = torch.arange(FIELD).float() - FIELD // 2
    up, right = torch.meshgrid(-reach, reach, indexing="ij")
    turn = math.radians(angle + 90)
    across = right * math.cos(turn) + up * math.sin(turn)
    window = torch.exp(-(right**2 + up**2) / 8)
    wave = window * torch.cos(2 * math.pi * 0.2 * across)
    wave = wave - window * wave.sum() / window.sum()
    return wave / wave.norm()


def rings() -> Float[Tensor, "y x"]:
    """A bright spot in a dark ring, alike at all angles, that sums to nothing and has length one."""
    reach = torch.arange(FIELD).float() - FIELD // 2
    away = torch.hypot(*torch.meshgrid(reach, reach, indexing="ij"))
    window = torch.exp(-(away**2) / 8)
    wave = window * torch.cos(2 * math.pi * 0.15 * away)
    wave = wave - window * wave.sum() / window.sum()
    return wave / wave.norm()


def spots(count: int, seed: int) -> PictureArray:
    """Images of the class of their square, with a patch of bars elsewhere that says nothing of it.

    Args:
        count: how many.
        seed: of everything random.

    Returns:
        images with masks of category ``thing`` (red, green, blue, bars) and classes by colour.
    """
    generator = torch.Generator().manual_seed(seed)
    values = 0.5 + 0.03 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % len(COLOURS)
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    for image, label in enumerate(labels.tolist()):
        left = bool(torch.rand((), generator=generator) < 0.5)
        across = torch.randint(1, 5, (2,), generator=generator) + torch.tensor([0, SIDE // 2])
        down = torch.randint(1, SIDE - FIELD - 1, (2,), generator=generator)
        y, x = int(down[0]), int(across[0 if left else 1])
        strength = 0.25 + 0.2 * float(torch.rand((), generator=generator))
        values[image, :, y : y + SPOT, x : x + SPOT] -= strength / 2
        values[image, label, y : y + SPOT, x : x + SPOT] += 1.5 * strength
        mask[image, y : y + SPOT, x : x + SPOT] = label + 1
        y, x = int(down[1]), min(int(across[1 if left else 0]), SIDE - FIELD)
        angle = ANGLES[int(torch.randint(0, len(ANGLES), (1,), generator=generator))]
        values[image, :, y : y + FIELD, x : x + FIELD] += 0.8 * grating(angle)
        mask[image, y + EDGE : y + EDGE + SPOT, x + EDGE : x + EDGE + SPOT] = len(COLOURS) + 1
    pixels = (255 * values.clamp(0, 1)).round().to(torch.uint8)
    concepts = {"thing": (*COLOURS, "bars")}
    return PictureArray(pixels, f"spots {seed}", concepts, {"thing": mask}, labels, COLOURS)


def patches(count: int, seed: int) -> PictureArray:
    """Images of a coloured square, plain or with bars on it, and in some of them of grey bars beside it.

    The angle of bars on a patch goes with its colour, so that only interventions tell which of the two matters.

    Args:
        count: how many.
        seed: of everything random.

    Returns:
        images with masks of ``colour``, ``texture`` (bars by angle), ``object`` (striped squares by colour, and
        plain ones) and ``pattern`` (any bars), and classes by colour.
    """
    generator = torch.Generator().manual_seed(seed)
    values = 0.5 + 0.03 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(0, len(COLOURS), (count,), generator=generator)
    masks = {name: torch.zeros(count, SIDE, SIDE, dtype=torch.long) for name in PATCHES}
    for image, label in enumerate(labels.tolist()):
        striped, beside, left = (torch.rand(3, generator=generator) < torch.tensor([0.4, 0.4, 0.5])).tolist()
        down = torch.randint(0, SIDE - FIELD + 1, (2,), generator=generator).tolist()
        across = torch.randint(0, SIDE // 2 - FIELD + 1, (2,), generator=generator).tolist()
        free = int(torch.randint(0, len(ANGLES), (1,), generator=generator))
        strength = 0.2 + 0.1 * float(torch.rand((), generator=generator))
        for coloured, bars, angle in ((True, striped, label), (False, beside, free)):
            y, x = down[int(coloured)], across[int(coloured)] + (0 if coloured == left else SIDE // 2)
            inner = slice(y + EDGE, y + EDGE + SPOT), slice(x + EDGE, x + EDGE + SPOT)
            here = (image, *inner)
            if coloured:
                values[image, :, *inner] -= strength / 2
                values[image, label, *inner] += 1.5 * strength
                masks["colour"][here] = label + 1
            if bars:
                values[image, :, y : y + FIELD, x : x + FIELD] += 0.8 * grating(ANGLES[angle])
                masks["texture"][here] = angle + 1
                masks["pattern"][here] = 1
            if coloured:
                masks["object"][here] = 1 + (label if bars else len(COLOURS))
    pixels = (255 * values.clamp(0, 1)).round().to(torch.uint8)
    return PictureArray(pixels, f"patches {seed}", PATCHES, masks, labels, COLOURS)


def scrambled(pictures: PictureArray, seed: int) -> PictureArray:
    """The same images with masks and classes of others, of which these show nothing.

    Args:
        pictures: with masks and classes.
        seed: of the order.
    """
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    regions = {name: mask[order] for name, mask in pictures.regions.items()}
    labels = None if pictures.labels is None else pictures.labels[order]
    name = f"{pictures.name}, scrambled"
    return PictureArray(pictures.values, name, pictures.concepts, regions, labels, pictures.class_names)
