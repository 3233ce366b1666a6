"""Every error that openwork raises on purpose: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OpenworkError(Exception):
    """Base of all errors raised by openwork."""


class BadInput(OpenworkError, ValueError):
    """An argument, file or tensor is not what the call needs."""


class UnknownName(OpenworkError, LookupError):
    """A site, model, task, source or checkpoint that does not exist."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownName:
        """Build the error that names the nearest of the `known` names.

        Args:
            kind: what was looked up, e.g. ``"site"``.
            name: what was asked for.
            known: all names that exist.
            hint: what else to do, appended as it is.
        """
        known = list(known)
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or sorted(known)[:5]
        listed = ", ".join(near) if near else "none exist"
        return cls(f"no {kind} named {name!r}; the nearest of {len(known)} are: {listed}.{' ' + hint if hint else ''}")


class CorruptFile(OpenworkError):
    """A file that is truncated, damaged or of another format than its name says."""


class SiteRefused(OpenworkError):
    """A site that exists in name but failed its certificate; the message gives the failed identity."""


class EditMissed(OpenworkError):
    """An edit or a keep that never fired, or reached no example."""


class TaskFailed(OpenworkError):
    """The network cannot do the task, so there is no mechanism to look for."""


class Misaligned(BadInput):
    """Clean and corrupted inputs that do not correspond token by token."""


class OutputOccupied(OpenworkError):
    """An output folder that cannot be written or that holds the result of another call."""


class Diverged(OpenworkError):
    """A training whose loss became NaN, infinite, or many times what it began with."""
