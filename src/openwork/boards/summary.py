"""A scoreboard in one row a method: what it recovers, what it supports falsely, what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from openwork.boards.schema import Board, Entry
from openwork.evidence import bootstrap_interval, wilson_interval
from openwork.finding import Interval

COLUMNS = (
    "method", "of", "n", "AUROC", "rank", "precision", "power", "nulls", "false support", "forwards", "s", "MB",
    "not asked",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One method on some of the networks of a board.

    Args:
        method: its name.
        items: what it names.
        asked: networks with something to find that it was asked about.
        auroc: mean over these, with its interval over networks; None without.
        rank: median place of the first true item.
        precision: share of all supported claims that are true; None without any.
        power: share of these networks in which it supports something true; None for a method that makes no claims.
        nulls: networks with nothing, or something else, to find that it was asked about.
        false: share of these in which it supports something false; None for a method that makes no claims.
        forwards: median number of forward passes of one row.
        seconds: median.
        bytes: median.
        refused: networks that it could not be asked about.
    """

    method: str
    items: str
    asked: int
    auroc: Interval | None
    rank: float | None
    precision: float | None
    power: Interval | None
    nulls: int
    false: Interval | None
    forwards: float | None
    seconds: float | None
    bytes: float | None
    refused: int


def rows(board: Board, families: Iterable[str] | None = None) -> list[Row]:
    """One row a method, in the board's order.

    Args:
        board: the scoreboard.
        families: of which networks; of all unless given.
    """
    chosen = None if families is None else set(families)
    entries = [e for e in board.entries if chosen is None or e.family in chosen]
    return [_row(name, [e for e in entries if e.method == name]) for name in board.methods]


def families(board: Board) -> list[str]:
    """The kinds of networks of a board, those with something to find first."""
    return sorted({e.family for e in board.entries}, key=lambda name: (name.startswith("null/"), name))


def _row(method: str, entries: Sequence[Entry]) -> Row:
    done = [(e, e.recovery) for e in entries if e.recovery is not None]
    planted = [r for e, r in done if not e.is_null]
    nulls = [r for e, r in done if e.is_null]
    aurocs = [r.auroc for r in planted if r.auroc is not None]
    ranks = [r.rank for r in planted if r.rank is not None]
    supported = sum(r.supported for r in planted)
    # a method that only ranks says nothing that could be supported
    claims = any(r.claims for _, r in done)
    costs = [e.cost for e, _ in done if e.cost is not None]
    return Row(
        method=method,
        items=entries[0].items if entries else "",
        asked=len(planted),
        auroc=bootstrap_interval(aurocs) if len(aurocs) > 1 else None,
        rank=_median(ranks),
        precision=1 - sum(r.false for r in planted) / supported if supported else None,
        power=_share([r.supported > r.false for r in planted]) if claims else None,
        nulls=len(nulls),
        false=_share([r.false > 0 for r in nulls]) if claims else None,
        forwards=_median([c.forwards for c in costs]),
        seconds=_median([c.seconds for c in costs]),
        bytes=_median([float(c.bytes) for c in costs]),
        refused=len(entries) - len(done),
    )


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


def _share(happened: Sequence[bool]) -> Interval | None:
    return wilson_interval(sum(happened), len(happened)) if happened else None


def table(board: Board, chosen: Iterable[str] | None = None) -> Table:
    """The rows for a terminal.

    Args:
        board: the scoreboard.
        chosen: families; all unless given.
    """
    made = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        made.add_column(name, justify="left" if name in ("method", "of") else "right", no_wrap=name == "method")
    for row in rows(board, chosen):
        if not row.asked + row.nulls + row.refused:
            continue
        size = None if row.bytes is None else row.bytes / 1e6
        made.add_row(
            row.method, row.items, str(row.asked), _said(row.auroc), _number(row.rank, "g"), _number(row.precision),
            _said(row.power), str(row.nulls), _said(row.false), _number(row.forwards, ",.0f"),
            _number(row.seconds, ".2g"), _number(size, ".2g"), str(row.refused),
        )  # fmt: skip
    return made


def overall(board: Board) -> dict[str, float | int]:
    """Numbers of the whole board: how many entries, and how long they took together."""
    costs = [e.cost for e in board.entries if e.cost is not None]
    return {
        "entries": len(board.entries),
        "networks": len({e.model for e in board.entries}),
        "methods": len(board.methods),
        "core_minutes": sum(c.seconds for c in costs) / 60,
    }


def _said(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)
