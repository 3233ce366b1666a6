"""Skipping what ran before an edit: calls of modules that finished earlier return what the unedited run recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openwork.network.network import Network


class Prefix:
    """The recorded outputs of one unedited run of the examples."""

    def __init__(self, net: Network):
        self.net = net

    @contextmanager
    def skipping(self, sites: Sequence[str], examples: Sequence[int]) -> Iterator[None]:
        """Skip what finished before the first of the sites, on these examples."""
        yield
