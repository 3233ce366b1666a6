"""Interventions as data: frozen, hashable, JSON round trip, checked before anything runs.

A value that an edit writes comes from a named source run (`Patch(site, source="clean")` together with
``net.run(..., sources={"clean": inputs_or_run})``), from a statistic of a source run, or from an `Array`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from operator import index
from typing import Any, ClassVar, Literal

import numpy as np

from openwork.errors import BadInput, UnknownName
from openwork.site import Site, Where

UNEDITED = "unedited"
"""The source that always exists: the same inputs, run without edits."""


@dataclass(frozen=True)
class Array:
    """A small float32 tensor as a value: equal and hashed by content, written to JSON with its digest.

    Args:
        shape: its shape.
        data: its elements, little-endian float32 bytes.
    """

    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, value: Any) -> Array:
        """Make one from a tensor, an array, a number or nested lists.

        Raises:
            BadInput: if it is not made of finite numbers.
        """
        if isinstance(value, Array):
            return value
        if hasattr(value, "detach"):
            value = value.detach().float().cpu().numpy()
        try:
            given = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise BadInput(f"expected numbers of a regular shape in the array of an edit; {error}") from error
        if given.dtype.kind not in "biuf":
            raise BadInput(f"expected numbers in the array of an edit; got {str(value)[:100]!r}")
        array = np.ascontiguousarray(given.astype("<f4"))
        if not np.isfinite(array).all():
            raise BadInput("expected finite values; got NaN or infinity in the array of an edit")
        return cls(tuple(array.shape), array.tobytes())

    @property
    def digest(self) -> str:
        """sha256 of shape and elements."""
        return hashlib.sha256(repr(self.shape).encode() + self.data).hexdigest()

    def numpy(self) -> np.ndarray:
        """The elements as a float32 array of `shape`."""
        return np.frombuffer(self.data, dtype="<f4").reshape(self.shape).copy()

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "sha256": self.digest, "data": base64.b64encode(self.data).decode()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Array:
        try:
            shape = tuple(index(n) for n in record["shape"])
            array = cls(shape, base64.b64decode(record["data"], validate=True))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput("expected an array record: shape, sha256, and data in base64") from error
        if array.digest != record.get("sha256") or len(array.data) != 4 * int(np.prod(array.shape)):
            raise BadInput("expected an array that matches its sha256; the record was altered or cut short")
        return array


@dataclass(frozen=True)
class Edit:
    """One intervention at a site. Edits at one site apply in the order given.

    Fields annotated `Any` are given in any readable form and held as the noun that the description names.

    Args:
        site: a `Site`, from a site or pattern; an index selects heads, units or channels.
        where: a `Where`, from positions or a token group; None for everywhere.
    """

    site: Any
    where: Any = Where()
    serialisable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", Site.parse(self.site))
        object.__setattr__(self, "where", Where.of(self.where))

    @property
    def needs(self) -> str | None:
        """The name of the source run whose value at this site it reads, or None."""
        return getattr(self, "source", None)

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable record from which `edit_from_json` makes an equal edit.

        Raises:
            BadInput: for a `Custom` edit, which holds a function.
        """
        if not self.serialisable:
            raise BadInput(f"{type(self).__name__} holds a function and has no JSON form; use an edit that is data")
        record: dict[str, Any] = {"edit": type(self).__name__}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Site):
                value = str(value)
            elif isinstance(value, Where):
                value = {f.name: getattr(value, f.name) for f in fields(value)}
            elif isinstance(value, (Array, Edit)):
                value = value.to_json()
            record[item.name] = value
        return record


@dataclass(frozen=True)
class Patch(Edit):
    """Write the value that the site has in another run (activation patching).

    Args:
        source: name of the source run.
        source_where: where to read in the source run, if elsewhere; it must select as many positions.
    """

    source: str = "clean"
    source_where: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source_where is not None:
            object.__setattr__(self, "source_where", Where.of(self.source_where))


@dataclass(frozen=True)
class Ablate(Edit):
    """Remove what a site carries.

    Args:
        how: ``zero``; ``mean`` over the real positions of all rows of the source run; ``resample`` from another row
            of the source run, same position (rows deranged by `seed`); ``noise``, Gaussian with the source run's mean
            and standard deviation.
        source: the run that statistics come from; the unedited run of the same inputs unless named.
        seed: of ``resample`` and ``noise``.
    """

    how: Literal["zero", "mean", "resample", "noise"] = "zero"
    source: str = UNEDITED
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in ("zero", "mean", "resample", "noise"):
            raise BadInput(f"expected how to be zero, mean, resample or noise; got {self.how!r}")

    @property
    def needs(self) -> str | None:
        return None if self.how == "zero" else self.source


@dataclass(frozen=True)
class Set(Edit):
    """Write a constant: a number, or an array that broadcasts against the selected part."""

    value: Any = Array((), b"\0\0\0\0")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", Array.of(self.value))


@dataclass(frozen=True)
class Add(Edit):
    """Add ``scale * vector``; the vector broadcasts against the selected part."""

    vector: Any = Array((), b"\0\0\0\0")
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vector", Array.of(self.vector))


@dataclass(frozen=True)
class Scale(Edit):
    """Multiply by a factor."""

    factor: float = 0.0


@dataclass(frozen=True)
class Project(Edit):
    """Project out a subspace, or everything else.

    Args:
        directions: (count, channel) or (channel,), not necessarily orthonormal.
        keep: keep only the subspace instead of removing it.
    """

    directions: Any = Array((), b"\0\0\0\0")
    keep: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "directions", _directions(self.directions))


@dataclass(frozen=True)
class Steer(Edit):
    """Move every vector along one direction in a way that depends on the vector.

    Args:
        direction: (channel,), not zero.
        amount: how far.
        how: ``turn`` adds ``amount * direction`` and gives the vector its former length back; ``clamp`` sets its
            coordinate along the direction, taken at unit length, to `amount`.
    """

    direction: Any = Array((1,), b"\0\0\x80?")
    amount: float = 1.0
    how: str = "turn"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "direction", Array.of(self.direction))
        if len(self.direction.shape) != 1 or not self.direction.numpy().any():
            raise BadInput(f"expected a direction of shape (channel,) that is not zero; got {self.direction.shape}")
        if self.how not in ("turn", "clamp"):
            raise BadInput(f"expected how to be turn or clamp; got {self.how!r}")


@dataclass(frozen=True)
class SwapAlong(Edit):
    """Replace the component within a subspace by that of another run, leaving the complement as it is.

    Source: interchange intervention in a subspace, h' = h + P (h_source - h) with P the projection on the directions.
    """

    directions: Any = Array((), b"\0\0\0\0")
    source: str = "clean"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "directions", _directions(self.directions))


@dataclass(frozen=True)
class KnockOut(Edit):
    """Cut attention edges before the softmax: queries in `where` no longer see keys in `keys`.

    A query whose every key is cut attends to nothing (its pattern row is zero).

    Args:
        site: ``blocks.4.attn`` or ``blocks.4.attn.scores[3]`` (head 3); patterns as everywhere.
        where: the queries.
        keys: the keys.
    """

    keys: Any = Where()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keys", Where.of(self.keys))
        if self.site.path.endswith("attn"):
            object.__setattr__(self, "site", Site(self.site.path + ".scores", self.site.index))


@dataclass(frozen=True)
class Substitute(Edit):
    """Write what a surrogate makes of the site (a dictionary's reconstruction, a transcoder's output).

    Args:
        by: name of the surrogate in ``net.run(..., surrogates={name: callable})``.
        reads: the site it reads; the written site itself unless named.
    """

    by: str = ""
    reads: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.by:
            raise BadInput("expected by= to name a surrogate given to the run; got an empty name")
        if self.reads is not None:
            object.__setattr__(self, "reads", Site.parse(self.reads))


@dataclass(frozen=True)
class Twin(Edit):
    """The matched control of another edit: wherever that changes a token, a change as long, in one random direction.

    The direction is the same for all tokens of all rows. Tokens that the other edit leaves alone are left alone.

    Args:
        of: the other edit; its site is taken unless one is given, and so is its place.
        seed: of the direction.
    """

    site: Any = None
    of: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.of, Edit) or isinstance(self.of, (KnockOut, Substitute, Twin, Insert, Drop)):
            raise BadInput(f"expected of= as an edit that writes values of its site; got {self.of!r}")
        if self.site is None:
            object.__setattr__(self, "site", self.of.site)
            object.__setattr__(self, "where", self.of.where)
        super().__post_init__()
        object.__setattr__(self, "serialisable", self.of.serialisable)

    @property
    def needs(self) -> str | None:
        return self.of.needs


@dataclass(frozen=True)
class Insert(Edit):
    """Put further tokens behind the last one; they take part in everything after the site.

    For sites of networks whose tokens are patches of an image: nothing there depends on how many come in, while texts
    bring masks and positions of their own.

    Args:
        site: a site with axes (batch, position, channel).
        tokens: (count, channel), the same for every example.
    """

    tokens: Any = Array((), b"\0\0\0\0")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tokens", Array.of(self.tokens))
        if len(self.tokens.shape) != 2 or not self.tokens.data:
            raise BadInput(f"expected tokens of shape (count, channel); got {self.tokens.shape}")
        _needs_no_place(self)


@dataclass(frozen=True)
class Drop(Edit):
    """Take tokens out; what follows never sees them, and costs less.

    Args:
        site: as for `Insert`.
        positions: (count,) to drop in every example, or (example, count), as many in each.
    """

    positions: Any = Array((), b"\0\0\0\0")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "positions", Array.of(self.positions))
        rows = np.atleast_2d(self.positions.numpy())
        whole = rows.size and bool((rows >= 0).all() and (rows == rows.round()).all())
        if len(self.positions.shape) not in (1, 2) or not whole or any(len(set(r)) < len(r) for r in rows.tolist()):
            raise BadInput(
                "expected different positions from 0 on, of shape (count,) or (example, count); "
                f"got {rows.tolist()!r:.60}"
            )
        _needs_no_place(self)


def _needs_no_place(edit: Edit) -> None:
    if edit.where != Where() or edit.site.index:
        raise BadInput(f"expected {type(edit).__name__} without where= and without an index; got {edit.where}")


@dataclass(frozen=True)
class Custom(Edit):
    """The escape hatch: ``fn(value) -> value`` on the whole tensor of the site, which has no JSON form."""

    fn: Callable[[Any], Any] | None = None
    serialisable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.fn):
            raise BadInput(f"expected fn to be a function of one tensor; got {self.fn!r}")


EDITS: dict[str, type[Edit]] = {
    cls.__name__: cls
    for cls in (Patch, Ablate, Set, Add, Scale, Project, Steer, SwapAlong, KnockOut, Substitute, Twin, Insert, Drop)
}


def _directions(value: Any) -> Array:
    array = Array.of(value)
    matrix = np.atleast_2d(array.numpy())
    if matrix.ndim != 2 or not matrix.size or np.linalg.matrix_rank(matrix) < min(matrix.shape):
        raise BadInput(
            f"expected linearly independent directions of shape (count, channel); got shape {array.shape} "
            f"of rank {np.linalg.matrix_rank(matrix) if matrix.size else 0}"
        )
    return Array.of(matrix)


def edit_from_json(record: Any) -> Edit:
    """The edit of which `record` is the JSON form.

    Raises:
        UnknownName: if the record names no edit.
        BadInput: if a field is missing or wrong.
    """
    kind = record.get("edit") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in EDITS:
        raise UnknownName.among("edit", str(kind), EDITS)
    cls, values = EDITS[kind], {}
    for item in fields(cls):
        if item.name not in record:
            raise BadInput(f"expected a field {item.name!r} in the record of {kind}; it is missing")
        values[item.name] = _value(kind, item, record[item.name])
    return cls(**values)


def _value(kind: str, item: Field[Any], value: Any) -> Any:
    """The value of one field of an edit from its JSON form; fields that hold nouns check theirs themselves."""
    if item.type != "Any":
        wanted = type(item.default)
        if not (type(value) is wanted or (wanted is float and type(value) is int)):
            raise BadInput(f"expected {item.name!r} in the record of {kind} to be a {wanted.__name__}; got {value!r}")
        return wanted(value)
    if not isinstance(value, dict):
        return value
    if "sha256" in value:
        return Array.from_json(value)
    if "edit" in value:
        return edit_from_json(value)
    unknown = set(value) - {f.name for f in fields(Where)}
    if unknown:
        raise BadInput(f"expected {item.name!r} in the record of {kind} to be an array or a place; got {value!r}")
    return Where(**value)


def edits_to_json(edits: Iterable[Edit]) -> str:
    """The edits as one JSON text."""
    return json.dumps([edit.to_json() for edit in edits])


def edits_from_json(text: str) -> list[Edit]:
    """The edits of a JSON text written by `edits_to_json`.

    Raises:
        UnknownName: if a record names no edit.
        BadInput: if the text is no JSON list, or a field is missing or wrong.
    """
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"expected edits as a JSON list; the text does not parse ({error})") from error
    if not isinstance(records, list):
        raise BadInput(f"expected edits as a JSON list; got a {type(records).__name__}")
    return [edit_from_json(record) for record in records]
