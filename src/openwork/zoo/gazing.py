"""Vision transformers of which every head is known: which follow the part of a class, which look elsewhere or nowhere.

    made = gazing(0)                   # Gazing: the module and what is known of it
    pictures = glances(120, seed=1)    # a bright part on grey noise among pale patches, with masks and classes

Wired by hand, with the heads of each block, the basis of the stream and the course of events drawn by the seed. The
class token asks in one block for the part of each class; a patch at the rim gathers the tint of the rim, grows to an
outlying norm, and is read in another block, where its tint sways the answer. Fresh tokens may ask the heads of the last
block too. `vacant` has random weights instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openwork.pictures import ImageFormat
from openwork.worlds.picture_array import PictureArray

SIDE, PATCH = 5, 4
SIZE = SIDE * PATCH
COLOURS = ("red", "green", "blue")
FORMAT = ImageFormat((SIZE, SIZE), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
WIDTH, HEADS, BLOCKS = 64, 8, 3
SPACE = WIDTH // HEADS
PALE, SHARE, FAVOURITE = 8, 0.5, 0.6
"""How many patches of the rim are pale, how much of a colour they have, and how many of them have the image's own."""
RIM = tuple(i for i in range(SIDE * SIDE) if i // SIDE in (0, SIDE - 1) or i % SIDE in (0, SIDE - 1))
COURSES = ((2, 1, 0), (1, 2, 0), (1, 2, 1))
"""Blocks in which the class is gathered, the register read, and the register filled."""
TEXTURES, IDLE = 8, 14
STREAM = (
    "ballast", "flag", "dark",
    *(f"{kind} {c}" for kind in ("chroma", "part", "ask", "answer", "tint") for c in COLOURS),
    "rim", "register", "big", "x cos", "x sin", "y cos", "y sin",
    *(f"texture {i}" for i in range(TEXTURES)), *(f"idle {i}" for i in range(IDLE)),
)  # fmt: skip
"""What the stream holds, each along a direction of its own."""
UNIT = float(WIDTH**0.5)
"""Length of a token behind a layer norm, and of the ballast that keeps lengths alike."""
Weights = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Gazing:
    """A network with what is known of it.

    Args:
        module: reads images of `FORMAT`.
        follows: class -> (block, head) by which the class token looks at its part.
        traits: class -> the head of the last block that looks at its part if asked.
        silent: (block, head) of the heads that write nothing.
        register: the place of outlying norm, which carries the tint of the rim.
        filled: the block behind which it first stands out.
        gathers: the block in which the class token gathers its answer.
    """

    module: nn.Module
    follows: Mapping[str, tuple[int, int]]
    traits: Mapping[str, int]
    silent: frozenset[tuple[int, int]]
    register: int
    filled: int
    gathers: int


class _Wiring:
    """Sets weights by what they do to named directions of the stream."""

    def __init__(self, module: nn.Module, generator: torch.Generator):
        self.module, self.generator = module, generator
        # across the vector of ones, so that the mean that a layer norm takes off is nought
        raw = torch.randn(WIDTH, len(STREAM), generator=generator)
        basis, _ = torch.linalg.qr(torch.cat((torch.ones(WIDTH, 1), raw), 1))
        self.along = dict(zip(STREAM, basis.T[1:], strict=True))
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if "layernorm" not in name:
                    parameter.zero_()

    def mixed(self, weights: Weights) -> Float[Tensor, " channel"]:
        """A vector of the stream."""
        return sum((w * self.along[name] for name, w in weights.items()), torch.zeros(WIDTH))

    def head(
        self, block: int, head: int, query: Sequence[Weights], key: Sequence[Weights], value: Sequence[Weights],
        out: Sequence[Weights],
    ) -> None:  # fmt: skip
        """One head: what each of its dimensions asks, is, carries and writes; "one" is a constant."""
        layer = self.module.get_submodule(f"vit.layers.{block}.attention")
        first = head * SPACE
        for name, rows in (("q_proj", query), ("k_proj", key), ("v_proj", value)):
            linear = layer.get_submodule(name)
            for i, weights in enumerate(rows):
                rest = {n: w for n, w in weights.items() if n != "one"}
                linear.weight[first + i] = self.mixed(rest)  # pyright: ignore
                linear.bias[first + i] = weights.get("one", 0.0)  # pyright: ignore
        for i, weights in enumerate(out):
            layer.get_submodule("o_proj").weight[:, first + i] = self.mixed(weights)  # pyright: ignore

    def switch(self, block: int, unit: int, reads: Weights, writes: Weights) -> None:
        """Two neurons that together write all of something or nothing: GELU(x) - GELU(x - 5)."""
        into, out = (self.module.get_submodule(f"vit.layers.{block}.mlp.{name}") for name in ("fc1", "fc2"))
        for number, (shift, sign) in enumerate(((0.0, 1.0), (-5.0, -1.0))):
            at = 2 * unit + number
            into.weight[at] = self.mixed({n: w for n, w in reads.items() if n != "one"})  # pyright: ignore
            into.bias[at] = reads.get("one", 0.0) + shift  # pyright: ignore
            out.weight[:, at] = sign / 5 * self.mixed(writes)  # pyright: ignore


def gazing(seed: int) -> Gazing:
    """A network wired by hand.

    Args:
        seed: of the order of heads, the basis of the stream, the place of the register, and the blocks in which things
            happen.
    """
    generator = torch.Generator().manual_seed(seed)
    module = _module()
    wiring = _Wiring(module, generator)
    gathers, read, filled = COURSES[seed % len(COURSES)]
    register = RIM[int(torch.randint(len(RIM), (1,), generator=generator))]
    orders = [torch.randperm(HEADS, generator=generator).tolist() for _ in range(BLOCKS)]
    silent = []
    with torch.no_grad():
        _embed(wiring, register)
        for block, order in enumerate(orders):
            following = block in (gathers, BLOCKS - 1)
            for colour, head in zip(COLOURS, order[:3], strict=True):
                _follow(wiring, block, head, colour) if following else _stray(wiring, block, head)
            _beside(wiring, block, order[3], 1.0)
            _beside(wiring, block, order[4], 0.0)
            _middle(wiring, block, order[5])
            if block == read:
                _read(wiring, block, order[6])
            elif block == filled:
                _fill(wiring, block, order[6])
            else:
                _stray(wiring, block, order[6])
            _stray(wiring, block, order[7])
            module.get_submodule(f"vit.layers.{block}.attention.o_proj").weight[:, _rows(order[7])] = 0  # pyright: ignore
            silent.append((block, order[7]))
        # once the class token has its answer it asks no more
        wiring.switch(gathers, 3, {"flag": 20.0, "one": -10.0}, {f"ask {c}": -ASK for c in COLOURS})
        wiring.switch(filled, 4, {"register": 20.0}, {"big": 60.0})
        for number, colour in enumerate(COLOURS):
            # neither a pale patch nor one of another colour is a part
            wiring.switch(0, number, {f"chroma {colour}": 10.0, "one": -12.0}, {f"part {colour}": 2.0})
            module.get_submodule("classifier").weight[number] = wiring.mixed({f"answer {colour}": 1.5})  # pyright: ignore
    heads = {colour: orders[gathers][i] for i, colour in enumerate(COLOURS)}
    return Gazing(
        module,
        {colour: (gathers, head) for colour, head in heads.items()},
        {colour: orders[-1][i] for i, colour in enumerate(COLOURS)},
        frozenset(silent), register, filled, gathers,
    )  # fmt: skip


ASK = 4.5
"""How strongly the class token asks for each part."""


def _rows(head: int) -> slice:
    return slice(head * SPACE, (head + 1) * SPACE)


def _embed(wiring: _Wiring, register: int) -> None:
    """Colour, darkness and texture of each patch, its place, and the class token's questions."""
    embeddings = wiring.module.get_submodule("vit.embeddings")
    projection = wiring.module.get_submodule("vit.embeddings.patch_embeddings.projection")
    weight = torch.zeros(WIDTH, 3, PATCH, PATCH)
    for number, colour in enumerate(COLOURS):
        own = torch.full((3,), -0.5)
        own[number] = 1.0
        weight += 1.25 / PATCH**2 * torch.einsum("d,c->dc", wiring.along[f"chroma {colour}"], own)[:, :, None, None]
    weight -= 8 / 3 / PATCH**2 * wiring.along["dark"][:, None, None, None]
    for number in range(TEXTURES):
        grain = torch.randn(PATCH, PATCH, generator=wiring.generator)
        grain -= grain.mean()
        weight += 8 / 3 * wiring.along[f"texture {number}"][:, None, None, None] * grain / grain.norm()
    projection.weight.copy_(weight)  # pyright: ignore
    projection.bias.copy_(wiring.mixed({"ballast": UNIT}))  # pyright: ignore
    asks = {f"ask {colour}": ASK for colour in COLOURS}
    embeddings.cls_token[0, 0] = wiring.mixed({"ballast": UNIT, "flag": 3.0, **asks})  # pyright: ignore
    for place in range(SIDE * SIDE):
        y, x = (math.pi / 4 * number for number in divmod(place, SIDE))
        here = {"x cos": math.cos(x), "x sin": math.sin(x), "y cos": math.cos(y), "y sin": math.sin(y)}
        embeddings.position_embeddings[0, place + 1] = wiring.mixed(  # pyright: ignore
            {name: 1.5 * value for name, value in here.items()}
            | {"rim": 1.5 if place in RIM else -1.5, "register": 2.0 if place == register else 0.0}
        )


def _follow(wiring: _Wiring, block: int, head: int, colour: str) -> None:
    """Looks at the part if asked for it, or everywhere alike where there is none, and writes the answer."""
    part = f"part {colour}"
    wiring.head(block, head, [{f"ask {colour}": 3.0}], [{part: 2.5}], [{part: 1.0}], [{f"answer {colour}": 2.5}])


def _fill(wiring: _Wiring, block: int, head: int) -> None:
    """The register looks at the rim and takes its colours; all others rest on the class token."""
    wiring.head(
        block, head, [{"register": 5.0}, {"one": 6.0, "register": -10.0}], [{"rim": 3.0}, {"flag": 2.0}],
        [{f"chroma {c}": 1.0} for c in COLOURS], [{f"tint {c}": 100.0} for c in COLOURS],
    )  # fmt: skip


def _read(wiring: _Wiring, block: int, head: int) -> None:
    """The class token looks at the register, whose tint sways its answer."""
    wiring.head(
        block, head, [{"flag": 3.0}], [{"big": 1.0}], [{f"tint {c}": 1.0} for c in COLOURS],
        [{f"answer {c}": 0.4} for c in COLOURS],
    )  # fmt: skip


def _beside(wiring: _Wiring, block: int, head: int, right: float) -> None:
    """Patches look so many places to the right of themselves, and carry textures along that nothing reads."""
    turn = math.pi / 4 * right
    query = [
        {"x cos": math.cos(turn), "x sin": -math.sin(turn)}, {"x sin": math.cos(turn), "x cos": math.sin(turn)},
        {"y cos": 1.0}, {"y sin": 1.0},
    ]  # fmt: skip
    names = ("x cos", "x sin", "y cos", "y sin")
    _idly(wiring, block, head, [{n: 6 * w for n, w in one.items()} for one in query], [{n: 6.0} for n in names])


def _middle(wiring: _Wiring, block: int, head: int) -> None:
    """The class token looks at the middle of the picture, whatever is there."""
    _idly(wiring, block, head, [{"flag": 3.0}], [{"rim": -3.0}])


def _stray(wiring: _Wiring, block: int, head: int) -> None:
    """Looks by chance."""
    told = ("ballast", "big", "tint", "ask", "answer", "chroma", "part", "dark")
    names = [name for name in STREAM if not name.startswith(told)]
    query, key = (
        [dict(zip(names, (0.5 * torch.randn(len(names), generator=wiring.generator)).tolist(), strict=True))
         for _ in range(SPACE)] for _ in range(2)
    )  # fmt: skip
    _idly(wiring, block, head, query, key)


def _idly(wiring: _Wiring, block: int, head: int, query: Sequence[Weights], key: Sequence[Weights]) -> None:
    """A head that carries textures where nothing reads them."""
    value = [{f"texture {i}": 1.0} for i in range(SPACE)]
    picked = torch.randint(IDLE, (SPACE,), generator=wiring.generator).tolist()
    wiring.head(block, head, query, key, value, [{f"idle {i}": 0.5} for i in picked])


def vacant(seed: int) -> nn.Module:
    """The same layers with random weights: no head of it was made for anything.

    Args:
        seed: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    module = _module()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "layernorm" in name:
                continue
            fan = parameter[0].numel() if parameter.ndim > 1 and "embeddings." not in name.replace("patch_", "") else 1
            spread = 1.5 * fan**-0.5 if name.endswith("weight") else (1.0 if parameter.ndim > 1 else 0.1)
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return module


def _module() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, intermediate_size=16, image_size=SIZE,
        patch_size=PATCH,
    )  # fmt: skip
    config.num_labels = len(COLOURS)
    return ViTForImageClassification(config).eval()


def glances(count: int, seed: int, bare: float = 0.0) -> PictureArray:
    """Grey noise with a bright part of the class's colour in the middle, and a pale rim whose tint says nothing.

    Args:
        count: how many.
        seed: of everything random.
        bare: share of images that show no part, whose class nothing tells; with some of them to learn from, no class
            is known by what it lacks.

    Returns:
        images with masks of category ``part`` (two patches side by side, named by their colour) and classes by colour.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(COLOURS)
    patches = torch.zeros(count, SIDE * SIDE, 3)
    parts = torch.zeros(count, SIDE * SIDE, dtype=torch.long)
    colours = torch.eye(3) * 0.8 - 0.4
    for image, label in enumerate(labels.tolist()):
        favourite, y, x = (int(torch.randint(n, (1,), generator=generator)) for n in (3, SIDE - 2, SIDE - 3))
        pale = torch.tensor(RIM)[torch.randperm(len(RIM), generator=generator)[:PALE]]
        own = torch.rand(PALE, generator=generator) < FAVOURITE
        hue = torch.where(own, favourite, torch.randint(3, (PALE,), generator=generator))
        patches[image, pale] = SHARE * colours[hue]
        if float(torch.rand((), generator=generator)) < bare:
            continue
        at = (y + 1) * SIDE + x + 1
        patches[image, at : at + 2] = colours[label]
        parts[image, at : at + 2] = label + 1
    shades, masks = (
        values.unflatten(1, (SIDE, SIDE)).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        for values in (patches, parts)
    )
    noise = 0.08 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    pixels = (255 * (0.5 + shades.permute(0, 3, 1, 2) + noise).clamp(0, 1)).round().to(torch.uint8)
    return PictureArray(pixels, f"glances {seed}", {"part": COLOURS}, {"part": masks}, labels, COLOURS)
