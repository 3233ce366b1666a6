"""A scoreboard as a picture: what each method recovers, what it finds where nothing is, and what it costs."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from openwork.boards.schema import Board
from openwork.boards.summary import Row, families, rows
from openwork.errors import BadInput
from openwork.finding import Interval

COLOURS = ("#2563a8", "#c26a1b", "#3f8f4f", "#8a4fa3", "#a33b3b", "#5c6b73")
INK, FAINT = "#20262b", "#c9d0d6"
ROW, TITLE = 0.42, 0.3
"""Inches: of a row, and of what stands between the axes and their legend."""


def draw_board(board: Board, to: Path) -> Path:
    """Draw a scoreboard.

    Args:
        board: the scoreboard.
        to: an .svg, .png or .pdf file.

    Returns:
        the file.

    Raises:
        BadInput: for another kind of file, or a board without entries.
    """
    if to.suffix not in (".svg", ".png", ".pdf") or not board.entries:
        raise BadInput(f"expected a board with entries and an .svg, .png or .pdf file; got {len(board.entries)}, {to}")
    known = [name for name in families(board) if not name.startswith("null/")]
    nulls = [name for name in families(board) if name.startswith("null/")]
    methods = list(board.methods)
    figure = Figure(figsize=(12, 1.6 + ROW * len(methods)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(4, 4, 2))
    for number, family in enumerate(known):
        offset = 0.18 * (number - (len(known) - 1) / 2)
        here = rows(board, [family])
        _points(left, [row.auroc for row in here], offset, COLOURS[number % len(COLOURS)], "o", family)
    _points(
        middle, [_over(board, method, known).power for method in methods], -0.2, INK, "D", "something true, planted"
    )
    for number, family in enumerate(nulls):
        offset = 0.13 * (number - (len(nulls) - 1) / 2) + 0.1
        label = family.removeprefix("null/")
        _points(middle, [r.false for r in rows(board, [family])], offset, COLOURS[number % len(COLOURS)], "x", label)
    middle.axvline(board.alpha, color=INK, linewidth=0.8, linestyle=":")
    everything = rows(board)
    right.barh(range(len(methods)), [row.seconds or 0 for row in everything], color=FAINT, height=0.5)
    for place, row in enumerate(everything):
        if row.seconds:
            right.text(row.seconds, place, f" {row.seconds:.2g} s", va="center", fontsize=8, color=INK)
    left.axvline(0.5, color=INK, linewidth=0.8, linestyle=":")
    left.set_xlim(0, 1.03)
    middle.set_xlim(-0.03, 1.03)
    right.set_xlim(0, 1.35 * max([row.seconds or 0 for row in everything] or [1]) + 1e-9)
    left.set_title("AUROC against what is true (.5: chance)", fontsize=10, loc="left")
    middle.set_title(f"supports something (dotted: alpha {board.alpha:g})", fontsize=10, loc="left")
    right.set_title("seconds", fontsize=10, loc="left")
    left.set_yticks(range(len(methods)), methods)
    left.set_ylim(len(methods) - 0.4, -0.6)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9)
    above = 1 + TITLE / (ROW * len(methods))
    for axes in (left, middle):
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, above), ncols=3, frameon=False)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=150, metadata={"Date": None} if to.suffix == ".svg" else None)
    return to


def _over(board: Board, method: str, chosen: list[str]) -> Row:
    return next(row for row in rows(board, chosen) if row.method == method)


def _points(axes, intervals: list[Interval | None], offset: float, colour: str, marker: str, label: str) -> None:
    here = [(place + offset, found) for place, found in enumerate(intervals) if found is not None]
    for place, found in here:
        axes.plot((found.low, found.high), (place, place), color=colour, linewidth=1, alpha=0.6)
    axes.plot(
        [found.estimate for _, found in here], [place for place, _ in here], marker, color=colour, markersize=5,
        label=label, linestyle="none",
    )  # fmt: skip
