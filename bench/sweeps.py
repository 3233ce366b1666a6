"""Sweeps of patches: openwork against TransformerLens, nnsight and a plain loop, beside the floor.

All tools load the same weights and inputs, checked by hash, and take turns. openwork runs all cells of a sweep. The
others take one full forward pass a cell, so each round gives them the same random sample of cells; their time for them
is scaled to all, that for the clean run is not. Every value of the sample is compared. The floor is what
`sweeps_floor.py` counts.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from interleave import QUIET, Estimate, Watch, Worker, WorkerFailed
from peers.case import Shape, read, write
from peers.setup import interpreter
from peers.sweeping import KINDS, MIDDLE, PAIRS, cells_of, write_pairs
from sweeps_floor import Cost

OURS, NAIVE = "openwork", "naive"
PEERS = ("transformer_lens", "nnsight")
GOALS = {("every token", kind): 0.85 for kind in KINDS}
"""The least share of the floor's ratio to reach over the plain loop."""
AGAINST_PEER = 8.0
"""The least ratio over TransformerLens in the residual sweep with two tokens changed."""


@dataclass(frozen=True)
class Line:
    """One sweep by one tool.

    Args:
        shape: of the network and the inputs.
        pair: where clean and corrupted inputs differ.
        kind: which cells.
        tool: which tool.
        cells: cells of the whole sweep.
        seconds: for all cells.
        ratio: its time over openwork's, paired by round.
        floor: how many times fewer multiply-adds the affected cones need than one full pass a cell.
        share: of the floor's ratio that openwork reaches over the plain loop.
        difference: largest absolute difference of its values from openwork's.
    """

    shape: str
    pair: str
    kind: str
    tool: str
    cells: int
    seconds: Estimate
    ratio: Estimate
    floor: float
    share: Estimate | None
    difference: float


def shape_of(layers: int = 12, length: int = 16, examples: int = 8) -> Shape:
    """GPT-2-small, or as many of its layers, on some examples of some tokens."""
    name = f"{layers} layers of GPT-2-small, {examples} × {length} tokens"
    return Shape(name, layers, 768, 12, 50257, examples, length, warm=0, calls=1)


def measure(
    shape: Shape,
    tools: Mapping[str, Path],
    wanted: Sequence[tuple[str, str]],
    rounds: int,
    sample: int,
    threads: int,
    seed: int,
    console: Console,
) -> tuple[list[Line], dict[str, Any]]:
    """Run the wanted (pair, kind) sweeps on one shape."""
    order = random.Random(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openwork-sweeps-")))
        sha256 = write(shape, folder, seed)
        case = read(folder)
        write_pairs(folder, case.ids, shape.vocabulary, seed + 1)
        workers = {
            tool: stack.enter_context(closing(Worker(tool, path, folder, threads, "sweeps")))
            for tool, path in tools.items()
        }
        versions = {tool: worker.ask(do="describe")["versions"] for tool, worker in workers.items()}
        progress = stack.enter_context(Progress(console=console))
        task = progress.add_task(shape.name, total=len(wanted) * (rounds + 1) * len(workers))
        seconds: dict[tuple[str, str, str], list[float]] = {}
        worst: dict[tuple[str, str, str], float] = {}
        for pair, kind in wanted:
            count = len(cells_of(kind, case))
            for number in range(rounds + 1):  # the first one warms up
                some = sorted(order.sample(range(count), min(count, sample if number else 4)))
                values: dict[str, np.ndarray] = {}
                for tool in order.sample(list(workers), len(workers)):
                    if tool == OURS and not number and (pair, kind) != wanted[0] and kind != "heads":
                        continue  # the sites were certified by an earlier sweep
                    cells = list(range(count)) if tool == OURS else some
                    out = folder / f"{tool}.npy"
                    answer = workers[tool].ask(do="sweep", kind=kind, pair=pair, cells=cells, out=str(out))
                    values[tool] = np.load(out)
                    progress.advance(task)
                    if number:
                        scaled = answer["once"] + answer["seconds"] * count / len(cells)
                        seconds.setdefault((pair, kind, tool), []).append(scaled)
                for tool in workers if number else ():
                    got, ours = values[tool], values[OURS]
                    off = float(np.abs(got - (ours if tool == OURS else ours[some])).max())
                    worst[pair, kind, tool] = max(off, worst.get((pair, kind, tool), 0.0))
    cost = Cost(shape.layers, shape.width, shape.vocabulary, shape.length)
    lines = []
    for pair, kind, tool in ((p, k, t) for p, k in wanted for t in tools):
        times = seconds[pair, kind, tool]
        cone, full = cost.sweep(kind, shape.heads, PAIRS[pair])
        ours = seconds[pair, kind, OURS]
        ratio = Estimate.of([theirs / mine for theirs, mine in zip(times, ours, strict=True)])
        share = None
        if tool == NAIVE:
            share = Estimate.of([t / m / (full / cone) for t, m in zip(times, ours, strict=True)])
        lines.append(
            Line(
                shape.name, pair, kind, tool, len(cells_of(kind, case)), Estimate.of(times), ratio, full / cone, share,
                worst[pair, kind, tool],
            )
        )  # fmt: skip
    return lines, {"sha256": sha256, "versions": versions}


def said(e: Estimate) -> str:
    """A median with its interval."""
    return f"{e.median:.2f} [{e.low:.2f}, {e.high:.2f}]"


def rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """The table of all lines."""
    head = ("shape", "differ at", "sweep", "cells", "tool", "seconds", "× openwork", "floor ×", "of the floor", "diff")
    return [head] + [
        (
            x.shape, x.pair, x.kind, str(x.cells), x.tool, said(x.seconds), said(x.ratio), f"{x.floor:.2f}",
            said(x.share) if x.share else "", f"{x.difference:.0e}",
        )
        for x in lines
    ]  # fmt: skip


def judged(lines: Sequence[Line]) -> list[str]:
    """Each goal with what was reached."""
    out = []
    for x in lines:
        if x.tool == NAIVE and (x.pair, x.kind) in GOALS and x.share and "12 layers" in x.shape and "× 16" in x.shape:
            met = x.share.median >= GOALS[x.pair, x.kind]
            out.append(f"{x.kind}, every token: {said(x.share)} of the floor ratio, goal 0.85: {_word(met)}")
        if x.tool == "transformer_lens" and (x.pair, x.kind) == ("two tokens", "residual"):
            out.append(f"residual, two tokens: {said(x.ratio)} × TransformerLens, goal {AGAINST_PEER:g}: "
                       f"{_word(x.ratio.median >= AGAINST_PEER)}")  # fmt: skip
        if x.difference > 1e-4:
            out.append(f"{x.kind}, {x.pair}, {x.tool}: values differ by {x.difference:.0e}, more than 1e-4")
    return out


def _word(met: bool) -> str:
    return "met" if met else "missed"


def main(
    rounds: Annotated[int, typer.Option(help="Timed rounds of each sweep.", min=1)] = 5,
    sample: Annotated[int, typer.Option(help="Cells of each round for tools that take a full pass a cell.")] = 48,
    peers: Annotated[str, typer.Option(help="Comma-separated peers; empty for none.")] = ",".join(PEERS),
    growth: Annotated[bool, typer.Option(help="How the ratio grows with layers and length instead.")] = False,
    threads: Annotated[int, typer.Option(help="Torch threads of every process; 0 for all cores.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, inputs and order.")] = 0,
    force: Annotated[bool, typer.Option(help="Run on a busy machine; the output says it is no measurement.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write everything here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
) -> None:
    """Time sweeps on GPT-2-shaped networks with random weights."""
    console = Console(stderr=True, width=200)
    tools = {OURS: Path(sys.executable), NAIVE: Path(sys.executable)}
    tools |= {} if growth else {name: interpreter(name) for name in peers.split(",") if name}
    if missing := [name for name, path in tools.items() if not path.exists()]:
        raise typer.BadParameter(f"no environment for {', '.join(missing)}; make it: python bench/peers/setup.py")
    watch, threads = Watch(), threads or os.cpu_count() or 1
    reasons = [f"load average {watch.load[0]:.2f} at the start"] if watch.load[0] > QUIET else []
    if reasons and not force:
        console.print(f"[red]{reasons[0]}: others are using this machine. Wait, or pass --force for a rough look.[/]")
        raise typer.Exit(1)
    shapes = [shape_of()]
    wanted = [(pair, kind) for pair in PAIRS for kind in KINDS if pair == "every token" or kind == "residual"]
    if growth:
        shapes = [shape_of(3), shape_of(6), *(shape_of(length=length, examples=1) for length in (64, 256))]
        shapes.append(shape_of(3, 512, 1))
    lines: list[Line] = []
    facts = []
    try:
        for shape in shapes:
            if growth:
                wanted = [("two tokens", "residual" if shape.length == 16 and shape.batch > 1 else MIDDLE)]
            found, fact = measure(shape, tools, wanted, rounds, sample, threads, seed, console)
            lines += found
            facts.append(fact)
    except WorkerFailed as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    foreign = watch.foreign_cores()
    if foreign is not None and foreign > QUIET:
        reasons.append(f"others used {foreign:.2f} cores while it ran")
    head, *body = rows(lines)
    table = Table(*head)
    for row in body:
        table.add_row(*row)
    console.print(table)
    verdicts = judged(lines)
    for verdict in verdicts:
        console.print(verdict, markup=False)
    if reasons:
        console.print(f"[red]Not a measurement: {'; '.join(reasons)}.[/]")
    record = {
        "schema": 1, "measurement": not reasons, "reasons": reasons, "rounds": rounds, "sample": sample, "seed": seed,
        "threads": threads, "torch": torch.__version__, "cases": facts, "lines": [asdict(x) for x in lines],
        "goals": verdicts,
    }  # fmt: skip
    if json_out:
        json_out.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if markdown:
        text = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *body)]
        text += ["", *(f"- {verdict}" for verdict in verdicts)]
        text += [f"- Not a measurement: {'; '.join(reasons)}."] if reasons else []
        markdown.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
