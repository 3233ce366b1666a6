"""Keeping more than fits: byte counts before running, the batch in parts, kept values to CPU, disk or a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openwork.errors import BadInput
from openwork.network.layout import Layout
from openwork.network.run import Run, execute, make_plan, resolve_sources
from openwork.site import Site
from openwork.task import Inputs

if TYPE_CHECKING:
    from openwork.network.network import Network

Sink = str | Path | Callable[[str, Tensor], None] | None
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class MemoryPlan:
    """What keeping sites costs.

    Args:
        bytes_of: site -> bytes for the whole batch.
        rows: rows of the batch.
        copied: sites whose values are copied when kept (in-place operations would change them, or an index selects).
    """

    bytes_of: dict[str, int]
    rows: int
    copied: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.bytes_of.values())

    def rows_within(self, budget: int) -> int:
        """How many rows at a time fit a budget in bytes.

        Raises:
            BadInput: if not even one row fits.
        """
        per_row = -(-self.total // self.rows)
        if per_row > budget:
            raise BadInput(f"expected a memory budget of at least {per_row} bytes (one row); got {budget}")
        return min(self.rows, max(1, budget // max(per_row, 1)))

    def __str__(self) -> str:
        largest = sorted(self.bytes_of.items(), key=lambda item: -item[1])[:3]
        listed = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in largest)
        return f"{len(self.bytes_of)} sites, {self.total / 2**20:.1f} MiB for {self.rows} rows (largest: {listed})"


def parse_bytes(budget: str | int) -> int:
    """Bytes from ``"2GiB"``, ``"500 MB"`` or a number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(budget))
    if not match or match[2].upper() not in _UNITS:
        raise BadInput(f"expected a memory budget such as '2GiB'; got {budget!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def memory_plan(net: Network, layout: Layout, keep: Any) -> MemoryPlan:
    """The bytes that the kept sites take for a batch of this layout."""
    bytes_of: dict[str, int] = {}
    copied = []
    for pattern in [keep] if isinstance(keep, (str, Site)) else keep:
        for site in net.map.resolve(pattern):
            info = net.map.info(site.path)
            count = 1
            for axis, (name, n) in enumerate(zip(info.axes, info.shape, strict=True)):
                if name == "batch":
                    n = layout.rows
                elif name in ("position", "query", "key") and n == net.map.width:
                    n = layout.width
                elif axis == info.part_axis and site.index:
                    n = len(site.index)
                count *= n
            bytes_of[str(site)] = count * info.itemsize
            if site.index or getattr(net.map.port(site.path), "volatile", False):
                copied.append(str(site))
    return MemoryPlan(bytes_of, layout.rows, tuple(copied))


def run_in_chunks(
    net: Network,
    inputs: Any,
    keep: Any,
    edits: Any,
    sources: Mapping[str, Any],
    surrogates: Mapping[str, Callable[[Tensor], Tensor]],
    until: Any,
    to: Sink,
    memory: str | int | None,
) -> Run:
    """Run with kept values going to CPU, disk or a function, in as many parts as the budget asks for."""
    prepared = net.preparer.prepare(inputs)
    rows = prepared.layout.rows
    step = rows if memory is None else memory_plan(net, prepared.layout, keep).rows_within(parse_bytes(memory))
    if step < rows and (sources or not isinstance(inputs, (Inputs, Tensor, list, tuple))):
        raise BadInput("expected Inputs, texts or token ids without sources to run in parts; split the batch yourself")
    whole = make_plan(net, keep, edits, until, grads=False)
    if step < rows and any(edit.needs for here in whole.edits.values() for edit in here):
        raise BadInput("expected a batch in one part for edits that read another run or its statistics; raise memory=")
    collected: dict[str, list[Tensor]] = {}
    sink, close = _sink(to, collected, whole.axes(net))
    runs: list[Run] = []
    try:
        for first in range(0, rows, step):
            part = prepared if step == rows else net.preparer.prepare(_rows(inputs, first, min(first + step, rows)))
            plan = replace(whole, sink=sink)
            runs.append(execute(net, part, plan, resolve_sources(net, plan, part, sources), surrogates))
    except BaseException:  # Ctrl-C too: nothing half-written may look whole; the exception goes on
        close(False)
        raise
    values = close(True)
    if len(runs) == 1:
        runs[0].values.update(values)
        return runs[0]
    lengths = tuple(n for run in runs for n in run.layout.lengths)
    offsets = tuple(n for run in runs for n in run.layout.offsets)
    layout = Layout(offsets, lengths, max(run.layout.width for run in runs))
    return Run(None, values, layout, [x for run in runs for x in run.ledger], axes_of=runs[0].axes_of)


def _rows(inputs: Any, first: int, last: int) -> Any:
    if isinstance(inputs, Inputs):
        return inputs.take(range(first, last))
    return inputs[first:last]


def _sink(
    to: Sink, collected: dict[str, list[Tensor]], axes: dict[str, tuple[str, ...]]
) -> tuple[Callable[[str, Tensor], Tensor | None], Callable[[bool], dict[str, Tensor]]]:
    """Where values go as they come, and how to finish; finishing gives what the run holds."""
    if callable(to):

        def reduce(name: str, value: Tensor) -> None:
            to(name, value)

        return reduce, lambda done: {}
    if to is None or to == "cpu":

        def move(name: str, value: Tensor) -> None:
            collected.setdefault(name, []).append(value.detach().to("cpu", copy=True))

        return move, lambda done: {name: _stacked(name, parts) for name, parts in collected.items()}
    from openwork.store.activations import ActivationWriter

    writer = ActivationWriter(Path(to), axes)

    def write(name: str, value: Tensor) -> None:
        writer.append(name, value.detach().cpu())

    def close(done: bool) -> dict[str, Tensor]:
        if done:
            writer.close()
        else:
            writer.abort()
        return {}

    return write, close


def _stacked(name: str, parts: Iterable[Tensor]) -> Tensor:
    parts = list(parts)
    if len({p.shape[1:] for p in parts}) > 1:
        raise BadInput(f"expected rows of one length to join the parts of {name}; give to= a folder or a function")
    return torch.cat(parts)
