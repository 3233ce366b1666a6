# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
"""What seeing costs: `python bench/vision.py visualise` against torch-lucent, at equal steps and objective.

Both tools optimise the same channels of the same plain module with the same weights, with Lucid's parameterisation,
colours, optimiser and transformations. What the pictures reach is measured by one and the same network, on the pictures
as they are and in views that neither was optimised in. The floor is the forward and backward pass through the needed
layers alone, in batches, without parameterisation, transformations or optimiser.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from peers.pictures_net import loaded
from peers.setup import interpreter

BENCH = Path(__file__).parent
PEER = "torch_lucent"
GOAL = 3.0
"""Times the throughput of the peer's normal use, one picture a call."""
BATCH = 16

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def _parts() -> None:
    """Benchmarks of `openwork.vision`."""


@app.command()
def visualise(
    units: Annotated[int, typer.Option(help="Channels, from the first.")] = 16,
    steps: Annotated[int, typer.Option(help="Of Adam.")] = 128,
    layer: Annotated[str, typer.Option(help="Module of shapes-cnn.")] = "stages.1.0.conv2",
    threads: Annotated[int, typer.Option(help="Of each tool.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the pictures.")] = 0,
    peers: Annotated[bool, typer.Option(help="Run torch-lucent too.")] = True,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Pictures a second, and what they reach."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="openwork-vision-") as folder:
        case, net = _case(Path(folder), units, steps, layer, threads, seed)
        lines = {"openwork": _ours(net, case)}
        if peers:
            lines["torch-lucent"] = _theirs(case, Path(folder), False)
            lines["torch-lucent, one batch"] = _theirs(case, Path(folder), True)
    floor = _floor(net, case)
    for line in lines.values():
        line |= _reached(net, case, line.pop("pictures"))
    record = {
        "case": {k: case[k] for k in ("layer", "steps", "threads", "seed", "size")} | {"units": units},
        "floor": floor, "tools": lines, "versions": {"torch": torch.__version__}, "goal": GOAL,
        "met": _met(lines),
    }  # fmt: skip
    if out is not None:
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    Console().print(_table(record))


def _case(
    folder: Path, units: int, steps: int, layer: str, threads: int, seed: int
) -> tuple[dict[str, Any], torch.nn.Module]:
    from openwork.zoo.opening import open

    net = open("shapes-cnn")
    config = net.module.config
    torch.save(net.module.state_dict(), folder / "weights.pt")
    case = {
        "classes": config.classes, "widths": list(config.widths), "blocks": list(config.blocks),
        "weights": str(folder / "weights.pt"), "mean": list(net.images.mean), "sd": list(net.images.sd),
        "size": config.size, "layer": layer, "units": list(range(units)), "steps": steps, "threads": threads,
        "seed": seed,
    }  # fmt: skip
    return case, loaded(case)


def _ours(plain: torch.nn.Module, case: dict[str, Any]) -> dict[str, Any]:
    import openwork as ow
    from openwork.pictures import ImageFormat
    from openwork.vision.synthesis.making import Ascent
    from openwork.vision.synthesis.visualise import visualise as made

    size = (case["size"], case["size"])
    images = ImageFormat(size, tuple(case["mean"]), tuple(case["sd"]))
    net = ow.open(plain, images=images, example={"pixel_values": torch.zeros(2, 3, *size)})
    named = f"module:{case['layer']}.out[{','.join(map(str, case['units']))}]"
    wall, cpu = time.perf_counter(), time.process_time()
    result = made(net, named, Ascent(steps=case["steps"], tests=0, seed=case["seed"]))
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {**took, "pictures": result.table["pixels"].to_numpy(), "version": "this tree"}


def _theirs(case: dict[str, Any], folder: Path, batched: bool) -> dict[str, Any]:
    path, out = folder / "case.json", folder / "pictures.npy"
    path.write_text(json.dumps({**case, "batched": batched, "out": str(out)}), encoding="utf-8")
    if not interpreter(PEER).exists():
        sys.exit(f"expected the environment of {PEER}; make it with python bench/peers/setup.py {PEER}")
    run = subprocess.run(
        [interpreter(PEER), "-m", f"peers.{PEER}.vision", path], cwd=BENCH,
        env=os.environ | {"PYTHONWARNINGS": "ignore"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"{PEER} failed:\n{run.stderr[-2000:]}")
    return {**json.loads(run.stdout.strip().splitlines()[-1]), "pictures": np.load(out)}


def _seen(net: torch.nn.Module, case: dict[str, Any], pixels: torch.Tensor) -> torch.Tensor:
    """The maps of the layer, and nothing behind it."""
    mean, sd = (torch.tensor(case[name])[:, None, None] for name in ("mean", "sd"))
    held: list[torch.Tensor] = []

    class Stop(Exception):
        pass

    def keep(module: Any, given: Any, output: torch.Tensor) -> None:
        held.append(output)
        raise Stop

    handle = net.get_submodule(case["layer"]).register_forward_hook(keep)
    try:
        net((pixels - mean) / sd)
    except Stop:
        return held[0]
    finally:
        handle.remove()
    raise RuntimeError(f"{case['layer']} did not run")


def _reached(net: torch.nn.Module, case: dict[str, Any], pictures: np.ndarray) -> dict[str, Any]:
    from openwork.vision.synthesis.robustness import unseen

    pixels = torch.tensor(pictures, dtype=torch.float32).clamp(0, 1)
    own = torch.arange(len(pixels))
    with torch.no_grad():
        plain = _seen(net, case, pixels).mean((2, 3))[own, case["units"]]
        views = torch.stack([
            _seen(net, case, v).mean((2, 3))[own, case["units"]] for v in unseen(pixels, 16, case["seed"])
        ]).mean(0)  # fmt: skip
    return {"plain": plain.tolist(), "views": views.tolist()}


def _floor(net: torch.nn.Module, case: dict[str, Any]) -> dict[str, float]:
    """Forward and backward through the layers alone, for all units and steps, from the median of a few batches."""
    pixels = torch.rand(BATCH, 3, case["size"], case["size"]).contiguous(memory_format=torch.channels_last)
    pixels.requires_grad_()
    walls, cpus = [], []
    for _ in range(12):
        wall, cpu = time.perf_counter(), time.process_time()
        torch.autograd.grad(_seen(net, case, pixels)[:, 0].mean(), pixels)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    scale = case["steps"] * len(case["units"]) / BATCH
    return {"wall": float(np.median(walls[2:])) * scale, "cpu": float(np.median(cpus[2:])) * scale}


def _met(lines: dict[str, Any]) -> dict[str, Any]:
    if "torch-lucent" not in lines:
        return {}
    ours, theirs = lines["openwork"], lines["torch-lucent"]
    higher = np.array(ours["views"]) >= np.array(theirs["views"])
    return {
        "times faster, wall": theirs["wall"] / ours["wall"], "times faster, cpu": theirs["cpu"] / ours["cpu"],
        "units that reach as much or more": float(higher.mean()),
        "goal": theirs["cpu"] / ours["cpu"] >= GOAL,
    }  # fmt: skip


def _table(record: dict[str, Any]) -> Table:
    case = record["case"]
    title = f"{case['units']} channels of {case['layer']}, {case['steps']} steps, {case['threads']} threads"
    table = Table("tool", "seconds", "CPU seconds", "pictures a minute", "reached", "in new views", title=title)
    for name, line in record["tools"].items():
        table.add_row(
            name, f"{line['wall']:.1f}", f"{line['cpu']:.1f}", f"{60 * case['units'] / line['wall']:.1f}",
            f"{np.mean(line['plain']):.3g}", f"{np.mean(line['views']):.3g}",
        )  # fmt: skip
    table.add_row("the layers alone", f"{record['floor']['wall']:.1f}", f"{record['floor']['cpu']:.1f}", "", "", "")
    for name, value in record["met"].items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value), "", "", "", "")
    return table


if __name__ == "__main__":
    app()
