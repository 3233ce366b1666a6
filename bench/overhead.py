"""What keeping activations costs: openwork, TransformerLens and nnsight against the bare model, interleaved in one run.

    python bench/peers/setup.py          # once: one environment a peer
    python bench/overhead.py --json overhead.json --markdown docs/overhead.md

Everything is built from a configuration and a seed; nothing is downloaded. Each tool runs in a process of its own, on
weights and inputs that it checks by sha256, and every time is divided by that of the bare model in the same process and
the same round.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from interleave import QUIET, Estimate, Times, Watch, Worker, WorkerFailed, interleave
from overhead_tables import as_markdown, as_table
from peers.case import SHAPES, Shape, write
from peers.setup import PEERS, interpreter

OURS = "openwork"
RATIO_GOALS = {"no keep": 1.01, "residual streams": 1.03, "every site": 1.12}
BASE_MICROSECONDS, SITE_MICROSECONDS = 150.0, 10.0


@dataclass(frozen=True)
class Line:
    """One mode of one tool on one shape.

    Args:
        kept_sites: how many tensors it keeps.
        kept_bytes, held_bytes, extra_allocated_bytes: memory; see `peers.serve.describe`.
        difference: largest difference of its logits from the reference.
        milliseconds: a call.
        ratio: a call over a bare call of the same process and round.
        microseconds: a call minus such a bare call.
        goal: what we want of `ratio` (``gpt2-small``) or of `microseconds` (``two-layer``); None for others' tools.
        verdict: ``met`` or ``missed`` where the whole interval says so, else ``open``; empty without a goal.
    """

    shape: str
    tool: str
    mode: str
    kept_sites: int
    kept_bytes: int
    held_bytes: int
    extra_allocated_bytes: int
    difference: float
    milliseconds: Estimate
    ratio: Estimate
    microseconds: Estimate
    goal: float | None
    verdict: str


def line(shape: Shape, times: Times, bare: Times, facts: dict[str, Any]) -> Line:
    """Summarise one mode."""
    pairs = list(zip(times.seconds, bare.seconds, strict=True))
    ratio = Estimate.of([mode / plain for mode, plain in pairs])
    extra = Estimate.of([1e6 * (mode - plain) for mode, plain in pairs])
    goal, judged = None, ratio
    if times.tool == OURS and times.mode in RATIO_GOALS:
        small = shape.name == "two-layer"
        goal = BASE_MICROSECONDS + SITE_MICROSECONDS * facts["kept_sites"] if small else RATIO_GOALS[times.mode]
        judged = extra if small else ratio
    verdict = "" if goal is None else "met" if judged.high <= goal else "missed" if judged.low > goal else "open"
    names = ("kept_sites", "kept_bytes", "held_bytes", "extra_allocated_bytes", "difference")
    return Line(
        shape=shape.name,
        tool=times.tool,
        mode=times.mode,
        **{name: facts[name] for name in names},
        milliseconds=Estimate.of([1e3 * mode for mode, _ in pairs]),
        ratio=ratio,
        microseconds=extra,
        goal=goal,
        verdict=verdict,
    )


def measure(shape: Shape, tools: dict[str, Path], rounds: int, threads: int, seed: int, console: Console) -> dict:
    """Run all tools on one shape.

    Returns:
        ``sha256`` of the case, ``versions`` of each tool, ``lines``, and the raw ``seconds`` of each round.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openwork-overhead-")))
        sha256 = write(shape, folder, seed)
        workers = [stack.enter_context(closing(Worker(tool, path, folder, threads))) for tool, path in tools.items()]
        facts = {worker: worker.ask(do="describe") for worker in workers}
        for worker, fact in facts.items():
            if astray := {name: mode["difference"] for name, mode in fact["modes"].items() if not mode["agrees"]}:
                raise WorkerFailed(f"{worker.tool}: logits that differ from the bare model's cannot be timed: {astray}")
        progress = stack.enter_context(
            Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console)
        )
        modes = {worker: list(fact["modes"]) for worker, fact in facts.items()}
        task = progress.add_task(shape.name, total=rounds * sum(map(len, modes.values())))
        found = interleave(modes, rounds, shape.warm, shape.calls, seed, lambda: progress.advance(task))
    bare = {times.tool: times for times in found if times.mode == "bare"}
    by_tool = {worker.tool: fact for worker, fact in facts.items()}
    return {
        "shape": asdict(shape),
        "sha256": sha256,
        "versions": {tool: fact["versions"] for tool, fact in by_tool.items()},
        "lines": [asdict(line(shape, t, bare[t.tool], by_tool[t.tool]["modes"][t.mode])) for t in found],
        "seconds": [asdict(times) for times in found],
    }


def main(
    rounds: Annotated[int, typer.Option(help="Timing rounds of each shape.", min=3)] = 40,
    shapes: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(SHAPES)}.")] = ",".join(SHAPES),
    tools: Annotated[str, typer.Option(help="Comma-separated tools.")] = ",".join([OURS, *PEERS]),
    threads: Annotated[int, typer.Option(help="Torch threads of every process; 0 for all cores.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, inputs, order and resampling.")] = 0,
    force: Annotated[bool, typer.Option(help="Run on a busy machine; the output says it is no measurement.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write everything here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables here.")] = None,
) -> None:
    """Time openwork and its peers on GPT-2-shaped networks with random weights."""
    console = Console(stderr=True)
    interpreters = {name: Path(sys.executable) if name == OURS else interpreter(name) for name in tools.split(",")}
    if missing := [name for name, path in interpreters.items() if not path.exists()]:
        raise typer.BadParameter(f"no environment for {', '.join(missing)}; make it: python bench/peers/setup.py")
    if unknown := set(shapes.split(",")) - set(SHAPES):
        raise typer.BadParameter(f"expected some of {', '.join(SHAPES)}; got {', '.join(unknown)}")
    watch, threads = Watch(), threads or os.cpu_count() or 1
    reasons = [f"load average {watch.load[0]:.2f} at the start"] if watch.load[0] > QUIET else []
    if reasons and not force:
        console.print(f"[red]{reasons[0]}: others are using this machine. Wait, or pass --force for a rough look.[/]")
        raise typer.Exit(1)
    try:
        cases = [measure(SHAPES[s], interpreters, rounds, threads, seed, console) for s in shapes.split(",")]
    except WorkerFailed as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    foreign = watch.foreign_cores()
    if foreign is not None and foreign > QUIET:
        reasons.append(f"others used {foreign:.2f} cores while it ran")
    record = {
        "schema": 1, "measurement": not reasons, "reasons": reasons, "rounds": rounds, "seed": seed, "threads": threads,
        "cores": os.cpu_count(), "machine": _processor(), "load_before": watch.load, "load_after": os.getloadavg(),
        "foreign_cores": foreign, "cases": cases,
    }  # fmt: skip
    for case in cases:
        console.print(as_table(record, case))
    if reasons:
        console.print(f"[red]Not a measurement: {'; '.join(reasons)}.[/]")
    if json_out:
        json_out.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if markdown:
        markdown.write_text(as_markdown(record), encoding="utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    typer.run(main)
