"""Pictures as SVG: built as a tree, so that every text is escaped, and coloured by the page's own style sheet."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openwork.reports.style import STYLE
from openwork.store import write_text

Number = int | float
"""Places and sizes in user units, values on a scale."""


@dataclass(frozen=True)
class Picture:
    """A drawing with a description for those who cannot see it. A notebook shows it as it is.

    Args:
        svg: the drawing.
        title: what it shows.
        text: the same in words.
    """

    svg: str
    title: str
    text: str

    def standalone(self) -> str:
        """The drawing with its style inside, for a file or a notebook."""
        head, closing, rest = self.svg.partition(">")
        return f"{head}{closing}<style>{STYLE}</style>{rest}"

    def save(self, path: str | Path) -> Path:
        """Write it as an SVG file."""
        return write_text(path, self.standalone())

    def _repr_svg_(self) -> str:
        return self.standalone()


class Canvas:
    """An SVG in the making.

    Args:
        width: in user units, about a CSS pixel each.
        height: likewise.
        title: what it shows; a screen reader says it.
        text: the same in words.
    """

    def __init__(self, width: Number, height: Number, title: str, text: str) -> None:
        self.title, self.text = title, text
        size = {"viewBox": f"0 0 {_plain(width)} {_plain(height)}", "width": _plain(width), "height": _plain(height)}
        self.root = ET.Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "picture", "role": "img", **size}
        )
        ET.SubElement(self.root, "title").text = title
        ET.SubElement(self.root, "desc").text = text

    def add(self, tag: str, text: str | None = None, hint: str | None = None, **attributes: str | Number) -> ET.Element:
        """Add an element.

        Args:
            tag: its name.
            text: its text.
            hint: what a pointer resting on it shows.
            attributes: ``class_`` stands for ``class``, ``_`` in other names for ``-``.
        """
        named = {key.rstrip("_").replace("_", "-"): _plain(value) for key, value in attributes.items()}
        element = ET.SubElement(self.root, tag, named)
        if hint is not None:
            ET.SubElement(element, "title").text = hint
        if text is not None:
            element.text = text
        return element

    def text_at(self, x: Number, y: Number, text: str, kind: str = "", anchor: str = "middle") -> None:
        """Write a text; `kind` is one or more classes of the style sheet."""
        self.add("text", text, x=x, y=y, class_=kind, text_anchor=anchor)

    def line(self, x1: Number, y1: Number, x2: Number, y2: Number, kind: str = "axis") -> None:
        """Draw a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)

    def picture(self) -> Picture:
        """The finished drawing."""
        return Picture(ET.tostring(self.root, encoding="unicode"), self.title, self.text)


@dataclass(frozen=True)
class Scale:
    """A straight map from values to places.

    Args:
        low: the value at `start`.
        high: the value at `end`.
        start: in user units.
        end: in user units.
    """

    low: Number
    high: Number
    start: Number
    end: Number

    @classmethod
    def around(cls, values: Sequence[Number], start: Number, end: Number) -> Scale:
        """A scale that holds all values, 0 included, with some room."""
        low, high = min([0.0, *values]), max([0.0, *values])
        room = 0.06 * (high - low) or 1.0
        return cls(low - room * (low < 0), high + room, start, end)

    def __call__(self, value: Number) -> Number:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 6) -> Sequence[Number]:
        """About `count` round values within the scale."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / count))
        step = next(step * m for m in (1, 2, 2.5, 5, 10) if (self.high - self.low) / (step * m) <= count)
        first = -(-self.low // step)
        return [round(step * (first + k), 10) + 0.0 for k in range(int((self.high - step * first) / step) + 1)]


def _plain(value: str | Number) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
