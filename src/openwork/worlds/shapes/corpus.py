"""The world as a corpus of images with masks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from openwork.errors import BadInput
from openwork.worlds.shapes.clips import Clip, draw_clip
from openwork.worlds.shapes.drawing import draw_scene
from openwork.worlds.shapes.language import Question, caption, questions
from openwork.worlds.shapes.names import CLASSES, CONCEPTS
from openwork.worlds.shapes.paint import LARGEST, SMALLEST, masks, render
from openwork.worlds.shapes.scene import Scene

VERSION = 1
"""Of the pixels; a seed gives the same for ever within a version."""
KEPT = 2**24
"""Bytes of scenes, and of masks, that are kept of those drawn last: methods read the same ones again and again."""


@dataclass(frozen=True)
class Shapes:
    """Scenes of one seed and split: a `pictures.Masked`, drawn and rendered when asked for.

    Args:
        seed: of the scenes.
        size: of a picture's side in pixels.
        split: train, find or held-out; no scene is in two of them.
        count: how many; scene i is the same in every count.

    Raises:
        BadInput: if a seed, size or count is none.
        UnknownName: if there is no such split.
    """

    seed: int = 0
    size: int = 64
    split: str = "train"
    count: int = 10_000

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise BadInput(f"expected a seed of 0 or more; got {self.seed!r}")
        if self.count < 1:
            raise BadInput(f"expected one scene or more; got a count of {self.count!r}")
        if not SMALLEST <= self.size <= LARGEST:
            raise BadInput(f"expected a size from {SMALLEST} to {LARGEST} pixels; got {self.size!r}")
        draw_scene("", self.split)

    @property
    def name(self) -> str:
        """Of the corpus in results."""
        return f"shapes {self.split}, seed {self.seed}, {self.size} px"

    @property
    def digest(self) -> str:
        """A sha256 of what the pixels follow from."""
        key = f"openwork shapes {VERSION}: seed {self.seed}, split {self.split}, size {self.size}, count {self.count}"
        return hashlib.sha256(key.encode()).hexdigest()

    @property
    def concepts(self) -> Mapping[str, tuple[str, ...]]:
        """The names in the masks: objects, parts, textures, colours, orientations of edges."""
        return CONCEPTS

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the main object."""
        return CLASSES

    def __len__(self) -> int:
        return self.count

    def scene(self, i: int) -> Scene:
        """A scene.

        Raises:
            BadInput: if there is none of that number.
        """
        if not 0 <= i < self.count:
            raise BadInput(f"expected a scene from 0 to {self.count - 1}; got {i}")
        return draw_scene(f"shapes {VERSION}|{self.seed}|{self.split}|{i}", self.split)

    def caption(self, i: int) -> str:
        """What a scene shows, in a sentence."""
        return caption(self.scene(i))

    def questions(self, i: int) -> tuple[Question, ...]:
        """Questions about a scene, with their answers; as many are answered yes as no."""
        return questions(self.scene(i))

    def clip(self, i: int) -> Clip:
        """A short clip that begins as a scene does."""
        return draw_clip(self.scene(i))

    def pixels(self, rows: Sequence[int]) -> UInt8[Tensor, "image channel y x"]:
        """RGB bytes of some scenes."""
        out = np.empty((len(rows), 3, self.size, self.size), np.uint8)
        for k, row in enumerate(rows):
            out[k] = self._render(int(row))
        return torch.from_numpy(out)

    def masks(self, rows: Sequence[int]) -> Mapping[str, Int[Tensor, "image y x"]]:
        """Category -> what each pixel of some scenes shows, k for the k-th concept from 1, 0 for nothing."""
        out = {category: np.empty((len(rows), self.size, self.size), np.int64) for category in CONCEPTS}
        for k, row in enumerate(rows):
            for category, found in self._masks(int(row)).items():
                out[category][k] = found
        return {category: torch.from_numpy(found) for category, found in out.items()}

    def classes(self, rows: Sequence[int]) -> Int[Tensor, " image"]:
        """The class of the main object of some scenes."""
        return torch.tensor([CLASSES.index(self.scene(int(row)).kind) for row in rows], dtype=torch.int64)

    @cached_property
    def _render(self) -> Callable[[int], UInt8[np.ndarray, "channel y x"]]:
        return lru_cache(KEPT // (3 * self.size**2))(lambda row: render(self.scene(row), self.size))

    @cached_property
    def _masks(self) -> Callable[[int], Mapping[str, Int[np.ndarray, "y x"]]]:
        def drawn(row: int) -> Mapping[str, Int[np.ndarray, "y x"]]:
            return {name: found.astype(np.int16) for name, found in masks(self.scene(row), self.size).items()}

        return lru_cache(KEPT // (2 * len(CONCEPTS) * self.size**2))(drawn)
