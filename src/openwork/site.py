"""Addresses: `Site` names one tensor of a network, `Edge` one sender as read by one receiver, `Where` a part of it.

A site is written the way the grammar of docs/sites.md says, e.g. ``blocks.4.attn.z[3]`` (head 3 of block 4),
``blocks.*.resid_post`` (a pattern) or ``module:layer3.1.conv2.out[12]`` (channel 12 of any module's output).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import Any

from openwork.errors import BadInput

_INDEXED = re.compile(r"^(?P<path>[^\[\]]+?)(?:\[(?P<index>\*|[\d,\s\-]+)\])?$")


def _indices(text: str) -> tuple[int, ...]:
    out: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first or (dash and (not last or int(last) < int(first))):
            raise BadInput(f"expected indices such as 3, 0-5 or 1,4,7; got {text!r}")
        out.extend(range(int(first), int(last or first) + 1))
    return tuple(out)


def _integers(name: str, value: Any) -> tuple[int, ...]:
    try:
        return tuple(index(v) for v in (value if isinstance(value, Iterable) else (value,)))
    except TypeError as error:
        raise BadInput(f"expected {name} to be an integer or several; got {value!r}") from error


@dataclass(frozen=True, order=True)
class Site:
    """One tensor of a network, or some heads or units of it.

    Args:
        path: the name without brackets, e.g. ``blocks.4.attn.z``; it may be a pattern (``*`` for any one component,
            ``2-5`` for a range of blocks).
        index: heads, groups, units, channels or experts; empty for all of them.
    """

    path: str
    index: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read a site from its written form.

        Raises:
            BadInput: if the text is not a site or a pattern.
        """
        if isinstance(text, Site):
            return text
        match = _INDEXED.match(text.strip()) if isinstance(text, str) else None
        if not match:
            raise BadInput(f"expected a site such as 'blocks.4.attn.z[3]'; got {text!r}")
        index = match["index"]
        return cls(match["path"], () if index in (None, "*") else _indices(index))

    @property
    def block(self) -> int | None:
        """The number of the block it lies in, or None outside the blocks."""
        match = re.search(r"(?:^|\.)blocks\.(\d+)(?:\.|$)", self.path)
        return int(match[1]) if match else None

    @property
    def kind(self) -> str:
        """The name below the block, e.g. ``attn.z``; outside the blocks the whole path."""
        return re.sub(r"^(?:.*\.)?blocks\.[^.]+\.", "", self.path)

    def __getitem__(self, index: int | tuple[int, ...]) -> Site:
        return Site(self.path, (index,) if isinstance(index, int) else tuple(index))

    def __str__(self) -> str:
        return f"{self.path}[{','.join(map(str, self.index))}]" if self.index else self.path


@dataclass(frozen=True, order=True)
class Edge:
    """A sender site as it is read by one receiver site."""

    sender: Site
    receiver: Site

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}"


@dataclass(frozen=True)
class Where:
    """The part of a site that an edit writes or a keep reads, resolved for each example.

    Positions count the *real* tokens of a row: 0 is its first token whatever the padding, -1 its last.

    Args:
        positions: a position or several, held as a tuple; None for all of them.
        group: the name of a token group of the inputs (``"last"``, ``"first"`` always exist), instead of positions.
        rows: rows of the batch, likewise.
        steps: decoding steps at which it holds (0 is the prefill), likewise.
        since: it holds from this decoding step on.
    """

    positions: Any = None
    group: str | None = None
    rows: Any = None
    steps: Any = None
    since: int = 0

    def __post_init__(self) -> None:
        for name in ("positions", "rows", "steps"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _integers(name, value))
        if not isinstance(self.since, int) or not isinstance(self.group, str | None):
            raise BadInput(f"expected a group by name and since= as a step; got {self.group!r} and {self.since!r}")
        if self.positions is not None and self.group is not None:
            raise BadInput(f"expected positions or a token group; got both {self.positions} and {self.group!r}")

    @classmethod
    def of(cls, value: Any) -> Where:
        """Read a `Where` from positions (an int or several), the name of a token group, or None for everywhere."""
        if isinstance(value, Where):
            return value
        if value is None:
            return cls()
        return cls(group=value) if isinstance(value, str) else cls(positions=value)

    def holds_at(self, step: int) -> bool:
        """Whether it holds at this decoding step (0 is the prefill)."""
        return step >= self.since and (self.steps is None or step in self.steps)
