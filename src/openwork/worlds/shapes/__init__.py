"""Pictures in which everything is known: what is where, of which parts, colours and textures.

`Shapes` is a corpus of scenes with exact masks, captions, questions and short clips. A `Scene` is data: change it with
`dataclasses.replace` and `render` it again to see what the change of one thing does.
"""

from openwork.worlds.shapes.clips import ACTIONS, Clip, Event, draw_clip
from openwork.worlds.shapes.corpus import Shapes
from openwork.worlds.shapes.drawing import SPLITS, draw_scene, split_of
from openwork.worlds.shapes.language import Question, caption, questions, seen
from openwork.worlds.shapes.names import BACKGROUNDS, CLASSES, COLOURS, CONCEPTS, ORIENTATIONS, PARTS, TEXTURES
from openwork.worlds.shapes.paint import masks, render, visible
from openwork.worlds.shapes.scene import Background, Blob, Scene, Surface, Thing

__all__ = [
    "ACTIONS",
    "BACKGROUNDS",
    "CLASSES",
    "COLOURS",
    "CONCEPTS",
    "ORIENTATIONS",
    "PARTS",
    "SPLITS",
    "TEXTURES",
    "Background",
    "Blob",
    "Clip",
    "Event",
    "Question",
    "Scene",
    "Shapes",
    "Surface",
    "Thing",
    "caption",
    "draw_clip",
    "draw_scene",
    "masks",
    "questions",
    "render",
    "seen",
    "split_of",
    "visible",
]
