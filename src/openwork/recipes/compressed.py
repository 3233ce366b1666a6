"""The matrices that squeeze each compiled program into fewer dimensions, as they ship with the zoo.

    python -m openwork.recipes.compressed           # all of them again, some minutes on one core

Most programs go into 65 % of their dimensions, some by the closed form alone, others by descent from it. Brackets, sort
and unique count with directions that all have to be exact to about a hundredth, and bear less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from openwork.zoo import compiled
from openwork.zoo.compiled.compression import SHIPPED, SqueezeSettings, squeezes
from openwork.zoo.compiled.rebase import rebased

DESCENT = SqueezeSettings(steps=1500, rate=0.01)
RECIPE: Mapping[str, tuple[float, SqueezeSettings]] = {
    "addition": (0.65, DESCENT),
    "brackets": (0.8, SqueezeSettings(rows=8000)),
    "fraction": (0.65, SqueezeSettings()),
    "histogram": (0.65, SqueezeSettings()),
    "induction": (0.65, DESCENT),
    "ioi": (0.65, SqueezeSettings()),
    "most-frequent": (0.65, SqueezeSettings()),
    "reverse": (0.65, DESCENT),
    "sort": (0.85, SqueezeSettings()),
    "two-hop": (0.65, replace(DESCENT, rate=0.002)),
    "unique": (0.9, SqueezeSettings()),
}
"""Program -> the part of its dimensions that is left, and how its matrices are found."""


def matrices(names: Iterable[str] = tuple(RECIPE)) -> dict[str, Tensor]:
    """The matrices of some programs.

    Args:
        names: programs.

    Returns:
        ``ioi.write``, ``ioi.read``, ``ioi.offset``, ... as single-precision tensors.

    Raises:
        TaskFailed: if a compressed network answers otherwise than its program.
    """
    found: dict[str, Tensor] = {}
    for name in names:
        member = compiled.open(name)
        share, settings = RECIPE[name]
        (made,) = squeezes(member, [round(share * member.network.config.width)], settings)
        rebased(member, made.write, made.read, made.offset, settings)
        for part in ("write", "read", "offset"):
            found[f"{name}.{part}"] = getattr(made, part).float().contiguous()
    return found


def build(path: Path = SHIPPED) -> Path:
    """Write the matrices of all programs to a file."""
    save_file(matrices(), path)
    return path


if __name__ == "__main__":
    print(build())
