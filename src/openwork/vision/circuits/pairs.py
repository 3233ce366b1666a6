"""Pairs of images that differ in one thing: a part covered up, or a scene drawn again with something else in it.

covered(pictures, "part", "wheel")                       # any corpus with masks
redrawn(Shapes(split="find"), swap)                      # any corpus of scenes, with your function of a scene
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from openwork.errors import BadInput, UnknownName
from openwork.pictures import Masked
from openwork.store.hashing import hash_state

if TYPE_CHECKING:
    from openwork.worlds.shapes import Scene, Shapes

SMALLEST, LARGEST = 0.004, 0.5
"""Shares of an image that a change must cover at least and at most."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images and what they are without one thing.

    Args:
        clean: bytes (image, channel, y, x).
        corrupted: the same without it.
        changed: where they may differ.
        name: what to call them in results.

    Raises:
        BadInput: if shapes do not fit, or a pair does not differ anywhere.
    """

    clean: UInt8[Tensor, "image channel y x"]
    corrupted: UInt8[Tensor, "_ _ _ _"]
    changed: Bool[Tensor, "_ _ _"]
    name: str = "pairs"

    def __post_init__(self) -> None:
        n, _, *size = self.clean.shape
        if self.corrupted.shape != self.clean.shape or tuple(self.changed.shape) != (n, *size) or not n:
            raise BadInput(
                "expected clean and corrupted images of one shape, and where they differ; got "
                f"{tuple(self.clean.shape)}, {tuple(self.corrupted.shape)} and {tuple(self.changed.shape)}"
            )
        differ = (self.clean != self.corrupted).any(1)
        same = (~(differ & self.changed).flatten(1).any(1)).nonzero().flatten().tolist()
        if same:
            raise BadInput(f"expected pairs that differ where they are said to; pair {same[0]} does not")

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def digest(self) -> str:
        """sha256 of all three."""
        return hash_state({"clean": self.clean, "corrupted": self.corrupted, "changed": self.changed})


def covered(pictures: Masked, category: str, concept: str, most: int = 200) -> Pairs:
    """Images that show a concept, and the same with it painted in the mean colour of what surrounds it.

    Args:
        pictures: images with masks.
        category: of the concept.
        concept: what is covered.
        most: pairs, at most.

    Raises:
        UnknownName: for a category or concept that does not exist.
        BadInput: without masks, or if no image shows it at a fitting size.
    """
    if not isinstance(pictures, Masked) or not pictures.concepts:
        raise BadInput(f"expected images with masks, which say what is where; {pictures.name} has none")
    if category not in pictures.concepts:
        raise UnknownName.among("category", category, pictures.concepts)
    if concept not in pictures.concepts[category]:
        raise UnknownName.among(f"concept of {category}", concept, pictures.concepts[category])
    number = list(pictures.concepts[category]).index(concept) + 1
    clean, corrupted, changed = [], [], []
    for row in range(len(pictures)):
        mask = pictures.masks([row])[category][0] == number
        if not SMALLEST <= float(mask.float().mean()) <= LARGEST:
            continue
        image = pictures.pixels([row])[0]
        around = _widened(mask) & ~mask
        colour = image[:, around if bool(around.any()) else ~mask].float().mean(1).round().to(torch.uint8)
        painted = image.clone()
        painted[:, mask] = colour[:, None]
        if bool((painted != image).any()):
            clean.append(image)
            corrupted.append(painted)
            changed.append(mask)
        if len(clean) == most:
            break
    if not clean:
        raise BadInput(f"expected images that show {concept} at a size that can be covered; {pictures.name} has none")
    name = f"{pictures.name}, {concept} covered"
    return Pairs(torch.stack(clean), torch.stack(corrupted), torch.stack(changed), name)


def redrawn(
    shapes: Shapes, change: Callable[[Scene], Scene | None], rows: Sequence[int], called: str = "changed"
) -> Pairs:
    """Scenes, and the same scenes drawn again after a change.

    Args:
        shapes: the corpus of the scenes.
        change: of a scene; None for a scene that it leaves out.
        rows: of the corpus.
        called: what was done, in a word.

    Raises:
        BadInput: if nothing is left.
    """
    from openwork.worlds.shapes import render

    clean, corrupted = [], []
    for row in rows:
        scene = shapes.scene(int(row))
        other = change(scene)
        if other is None:
            continue
        before, after = (torch.from_numpy(render(one, shapes.size)) for one in (scene, other))
        if bool((before != after).any()):
            clean.append(before)
            corrupted.append(after)
    if not clean:
        raise BadInput(f"expected scenes that the change makes others of; none of {len(rows)} is another one")
    both = torch.stack(clean), torch.stack(corrupted)
    return Pairs(*both, (both[0] != both[1]).any(1), f"{shapes.name}, {called}")


def swapped(scene: Scene, kind: str) -> Scene | None:
    """A scene with another object in the place of its main one, of the same size and surfaces."""
    from dataclasses import replace

    if scene.kind == kind:
        return None
    things = list(scene.things)
    things[scene.main] = replace(things[scene.main], kind=kind)
    return replace(scene, things=tuple(things))


def _widened(mask: Bool[Tensor, "y x"]) -> Bool[Tensor, "y x"]:
    """A mask and all within two pixels of it."""
    return torch.nn.functional.max_pool2d(mask[None, None].float(), 5, 1, 2)[0, 0] > 0
