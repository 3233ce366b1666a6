"""How a tensor lies in the image that a network reads: which axes are rows, columns and channels, and what each place
sees.

A *place* is one entry along the spatial axes. Its field is the pixels that its value can depend on; where something
global came in between (attention, a mean over the map), that is the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

Axes = tuple[str | None, ...]
MAP = ("batch", "channel", "y", "x")


@dataclass(frozen=True)
class Reach:
    """Where the places of one direction lie, in pixels.

    Args:
        stride: from one place to the next.
        offset: the centre of the first place's field; pixel 0 has its centre at 0.
        field: how many pixels a place sees, centred on it.

    Source:
        Araujo, Norris, Sim 2019, "Computing receptive fields of convolutional neural networks", section 2.
    """

    stride: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    field: Fraction = Fraction(1)

    def window(self, size: int, step: int, padding: int, dilation: int = 1) -> Reach:
        """After a window of `size` places, `dilation` apart, that moves by `step` and starts `padding` places early."""
        span = (size - 1) * dilation
        offset = self.offset + self.stride * (Fraction(span, 2) - padding)
        return Reach(self.stride * step, offset, self.field + self.stride * span)

    def spread(self, size: int, step: int, padding: int, dilation: int = 1) -> Reach:
        """After a transposed convolution: the smallest field, centred, that holds all that may reach a place."""
        span = (size - 1) * dilation
        offset = self.offset + self.stride * (padding - Fraction(span, 2)) / step
        return Reach(self.stride / step, offset, self.field + self.stride * Fraction(span, step))

    def resized(self, before: int, after: int) -> Reach:
        """After interpolation, each new place reading old ones up to one and a half places away, as at the border."""
        ratio = Fraction(before, after)
        offset = self.offset + self.stride * (ratio / 2 - Fraction(1, 2))
        return Reach(self.stride * ratio, offset, self.field + 3 * self.stride)

    def sliced(self, start: int, step: int) -> Reach:
        """Every `step`-th place from `start` on."""
        return Reach(self.stride * step, self.offset + self.stride * start, self.field)

    def hull(self, other: Reach) -> Reach | None:
        """The smallest centred field that holds both; None where the strides differ."""
        if self.stride != other.stride:
            return None
        low = min(self.offset - self.field / 2, other.offset - other.field / 2)
        high = max(self.offset + self.field / 2, other.offset + other.field / 2)
        return Reach(self.stride, (low + high) / 2, high - low)


@dataclass(frozen=True)
class Lie:
    """How one tensor lies in the image.

    Args:
        axes: the name of every axis: ``batch``, ``channel``, ``y``, ``x``, ``position`` (rows and columns as one
            axis), or None where it is not known.
        y, x: of the places; None where the places are not known.
        size: (height, width) in places.
        prefix: positions before the first place, such as a class token.
        whole: whether a place may depend on the whole image.
    """

    axes: Axes
    y: Reach | None = None
    x: Reach | None = None
    size: tuple[int, int] = (0, 0)
    prefix: int = 0
    whole: bool = True

    @classmethod
    def unknown(cls, dimensions: int) -> Lie:
        """Of a tensor that may depend on anything."""
        return cls((None,) * dimensions)

    @property
    def placed(self) -> bool:
        """Whether its places are known."""
        return self.y is not None and self.x is not None

    def axis(self, name: str) -> int | None:
        """The number of an axis, or None."""
        return self.axes.index(name) if name in self.axes else None

    def named(self, axes: Axes) -> Lie:
        """The same places under other axes; they are lost where no axis holds them any more."""
        out = replace(self, axes=axes)
        return out if "position" in axes or ("y" in axes and "x" in axes) else out.lost()

    def lost(self) -> Lie:
        """With the same axes, of whose places nothing is known."""
        return Lie(self.axes)

    def globally(self) -> Lie:
        """Where every place may have seen the whole image."""
        return replace(self, whole=True)

    def moved(self, y: Reach, x: Reach, size: tuple[int, int]) -> Lie:
        """With other places on the same axes."""
        return replace(self, y=y, x=x, size=size)

    def ordered(self, order: Sequence[int]) -> Lie:
        """After a permutation of the axes."""
        return self.named(tuple(self.axes[i] for i in order))


def reshaped(lie: Lie, before: Sequence[int], after: Sequence[int]) -> Lie:
    """After a change of shape that leaves the elements in their order.

    An axis is the same where as many elements lie before it and it is as long. Rows and columns may become one axis and
    one axis rows and columns again.
    """
    axes: list[str | None] = []
    taken = 0
    number = 0
    while number < len(after):
        ahead = math.prod(after[:number])
        here = next((i for i in range(taken, len(before)) if math.prod(before[:i]) == ahead), None)
        here = _longer_than_one(before, here, after[number])
        name = None if here is None else lie.axes[here]
        joined = name == "y" and here is not None and lie.axes[here + 1 : here + 2] == ("x",)
        pair = tuple(after[number : number + 2])
        if here is not None and before[here] == after[number]:
            axes.append(name)
            taken = here + 1
        elif joined and here is not None and after[number] == before[here] * before[here + 1]:
            axes.append("position")
            taken = here + 2
        elif name == "position" and here is not None and not lie.prefix and pair == lie.size:
            axes.extend(("y", "x"))
            taken, number = here + 1, number + 1
        else:
            axes.append(None)
        number += 1
    return lie.named(tuple(axes))


def _longer_than_one(before: Sequence[int], here: int | None, wanted: int) -> int | None:
    """Axes of length one lie in front of others with as many elements before them; skip them unless they are meant."""
    while here is not None and wanted != 1 and here + 1 < len(before) and before[here] == 1:
        here += 1
    return here


def merged(lies: Sequence[tuple[Lie, Sequence[int]]], shape: Sequence[int]) -> Lie:
    """Of a tensor of which each element depends on those that broadcast to it.

    Args:
        lies: each with the shape of its tensor.
        shape: of the result.
    """
    axes: list[str | None] = []
    for back in range(len(shape), 0, -1):
        fitting = [lie.axes[-back] for lie, own in lies if len(own) >= back and own[-back] == shape[-back]]
        axes.append(next((name for name in fitting if name is not None), None))
    full = [lie for lie, own in lies if lie.placed and _fills(lie, own, shape)]
    whole = any(lie.whole for lie, _ in lies) or len(full) < len(lies)
    if not full:
        return Lie(tuple(axes))
    first = full[0]
    assert first.y is not None
    assert first.x is not None
    y, x = first.y, first.x
    for other in full[1:]:
        assert other.y is not None
        assert other.x is not None
        both = y.hull(other.y), x.hull(other.x)
        if both[0] is None or both[1] is None or (other.size, other.prefix) != (first.size, first.prefix):
            return Lie(tuple(axes))
        y, x = both[0], both[1]
    return Lie(tuple(axes), y, x, first.size, first.prefix, whole).named(tuple(axes))


def _fills(lie: Lie, own: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether the places of a tensor are those of what it broadcasts to."""
    held = [i - len(own) for i, name in enumerate(lie.axes) if name in ("y", "x", "position")]
    return all(own[i] == shape[i] for i in held)
