"""The tables of the overhead bench: in a terminal, and in Markdown for the docs."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

COLUMNS = ("tool", "mode", "sites", "ms a call", "× bare", "µs over bare", "kept MB", "held MB", "extra MB", "goal", "")
MODES = {"bare": "bare", "bare again": "bare again (noise floor)"}


def as_table(record: dict[str, Any], case: dict[str, Any]) -> Table:
    """One shape for the terminal; the tool has a line of its own, and the quartiles are left to the files."""
    mark = "" if record["measurement"] else "  ·  NOT A MEASUREMENT"
    table = Table(
        title=_title(case) + mark, caption=_caption(record, case), caption_justify="left",
        box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for number, column in enumerate(COLUMNS[1:]):
        table.add_column(column, justify="right" if number else "left")
    tool = None
    for line in case["lines"]:
        if tool != line["tool"]:
            tool = line["tool"]
            table.add_row(f"[bold]{tool}[/]")
        mode, sites, times, *others = _cells(line)[1:]
        style = {"met": "green", "missed": "red", "open": "yellow"}.get(line["verdict"])
        table.add_row(f"  {mode}", sites, times.split(" ")[0], *(escape(cell) for cell in others), style=style)
    return table


def as_markdown(record: dict[str, Any]) -> str:
    """All shapes as one page."""
    parts = ["# What keeping activations costs", ""]
    if not record["measurement"]:
        parts += [f"**Not a measurement:** {'; '.join(record['reasons'])}.", ""]
    parts += [
        "Each time is divided by that of the bare model in the same process and the same round. Medians over rounds; "
        "in brackets the 95 % bootstrap interval of the median, after the times the quartiles of the rounds. "
        "*Kept* is what was asked for, *held* all memory that the result keeps alive, *extra* what the call allocates "
        "beyond the bare model, freed again or not; logits and weights count for none of them.",
        "",
    ]
    for case in record["cases"]:
        parts += [f"## {_title(case)}", "", _row(COLUMNS), _row(["---"] * 2 + ["---:"] * (len(COLUMNS) - 2))]
        parts += [_row(_cells(line)) for line in case["lines"]]
        parts += ["", _caption(record, case), ""]
    return "\n".join(parts)


def _cells(line: dict[str, Any]) -> list[str]:
    mode = str(line["mode"])
    goal = "" if line["goal"] is None else f"{line['goal']:.2f} ×" if line["goal"] < 2 else f"{line['goal']:.0f} µs"
    times, extra, ratio = line["milliseconds"], line["microseconds"], line["ratio"]
    return [
        line["tool"],
        MODES.get(mode, mode),
        str(line["kept_sites"]),
        f"{times['median']:.4g} ({times['quartiles'][0]:.4g}–{times['quartiles'][1]:.4g})",
        "1" if mode == "bare" else f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]",
        "0" if mode == "bare" else f"{extra['median']:+.0f} [{extra['low']:+.0f}, {extra['high']:+.0f}]",
        f"{line['kept_bytes'] / 1e6:.4g}",
        f"{line['held_bytes'] / 1e6:.4g}",
        f"{line['extra_allocated_bytes'] / 1e6:.4g}",
        goal,
        line["verdict"],
    ]


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _title(case: dict[str, Any]) -> str:
    shape = case["shape"]
    return (
        f"{shape['name']}: GPT-2, {shape['layers']} layers, d {shape['width']}, {shape['heads']} heads, "
        f"vocabulary {shape['vocabulary']}, random weights, batch {shape['batch']} × {shape['length']}"
    )


def _caption(record: dict[str, Any], case: dict[str, Any]) -> str:
    versions = {name: number for tool in case["versions"].values() for name, number in tool.items()}
    foreign = record["foreign_cores"]
    return (
        f"{record['rounds']} rounds, {record['threads']} threads of {record['cores']} cores ({record['machine']}), "
        f"load {record['load_before'][0]:.2f} before and {record['load_after'][0]:.2f} after"
        + ("" if foreign is None else f", {foreign:.2f} cores used by others")
        + f"; {', '.join(f'{name} {number}' for name, number in sorted(versions.items()))}; "
        f"weights and inputs sha256 {case['sha256'][:16]}."
    )
