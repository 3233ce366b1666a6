"""What every worker does: check its modes against the reference, then answer timing requests, one JSON line each."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from peers.case import AGREEMENT, Case, read


@dataclass(frozen=True)
class Mode:
    """One way of running the network.

    Args:
        call: the timed call; what it returns is all that the caller would hold.
        logits: reads the logits off that.
        kept: reads the kept tensors off that, by the tool's name of them.
    """

    call: Callable[[], Any]
    logits: Callable[[Any], torch.Tensor]
    kept: Callable[[Any], dict[str, torch.Tensor]] = field(default=lambda result: {})


def bare(module: torch.nn.Module, ids: torch.Tensor) -> Mode:
    """The network called without any tool."""
    return Mode(lambda: module(input_ids=ids), lambda result: result.logits)


def seconds_per_call(mode: Mode, warm: int, calls: int) -> float:
    """Median time of a call in seconds; what a call returns is freed outside the timed part."""
    for _ in range(warm):
        mode.call()
    gc.collect()
    gc.disable()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        result = mode.call()
        times.append(time.perf_counter() - start)
        del result
    gc.enable()
    return statistics.median(times)


def describe(mode: Mode, reference: torch.Tensor, plain_bytes: int) -> dict[str, Any]:
    """Agreement of the logits, number of kept sites, and the memory that keeping them takes.

    Args:
        mode: the mode.
        reference: (batch, position, vocabulary), the logits to agree with.
        plain_bytes: what a call of the plain network allocates.

    Returns:
        ``kept_bytes``: the elements of the kept tensors, each piece of memory counted once; ``held_bytes``: all
        memory that the result holds alive; ``extra_allocated_bytes``: what the call allocates beyond the plain
        network, freed again or not. Logits and weights count for neither.
    """
    mode.call()
    gc.collect()
    before = storages(live_tensors())
    result = mode.call()
    gc.collect()
    after = storages(live_tensors())
    logits, kept = mode.logits(result), mode.kept(result)
    output = storages([logits])
    held = {key: size for key, size in after.items() if key not in before and key not in output}
    difference = (logits - reference).abs().max().item()
    return {
        "difference": difference,
        "agrees": difference <= AGREEMENT,
        "kept_sites": len(kept),
        "kept_bytes": distinct_bytes(t for t in kept.values() if t.untyped_storage().data_ptr() not in output),
        "held_bytes": sum(held.values()),
        "extra_allocated_bytes": allocated_bytes(mode) - plain_bytes,
    }


def live_tensors() -> list[torch.Tensor]:
    """Every tensor that Python can reach."""
    return [value for value in gc.get_objects() if issubclass(type(value), torch.Tensor)]


def storages(tensors: Sequence[torch.Tensor]) -> dict[int, int]:
    """Address -> bytes of the memory behind the tensors."""
    found = [t.untyped_storage() for t in tensors if t.device.type == "cpu" and t.layout == torch.strided]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def distinct_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the elements, each piece of memory once: views of one storage never add up to more than it."""
    views: dict[int, dict[tuple[int, int], int]] = {}
    sizes = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        piece = {(tensor.data_ptr(), tensor.numel()): tensor.numel() * tensor.element_size()}
        views.setdefault(storage.data_ptr(), {}).update(piece)
    return sum(min(sizes[address], sum(pieces.values())) for address, pieces in views.items())


def allocated_bytes(mode: Mode) -> int:
    """Bytes that one call allocates, freed again or not."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        mode.call()
    events = profile.profiler.kineto_results.events()
    return sum(max(event.nbytes(), 0) for event in events if event.name() == "[memory]")


Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(modes: Callable[[Case], dict[str, Mode]], packages: Sequence[str]) -> None:
    """Answer ``{"do": "describe"}`` and ``{"do": "time", "mode": …, "warm": …, "calls": …}``.

    Args:
        modes: makes the modes of the case; ``bare`` must be among them.
        packages: those whose version the answer names.
    """

    def prepare(case: Case, folder: Path) -> Answer:
        table = modes(case)

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            if request["do"] == "describe":
                return _describe_all(case, table, packages)
            return {"seconds": seconds_per_call(table[request["mode"]], request["warm"], request["calls"])}

        return answer

    answer_requests(prepare)


def answer_requests(prepare: Callable[[Case, Path], Answer]) -> None:
    """Load the case named on the command line and answer requests, one JSON line each, until the input ends.

    Args:
        prepare: makes, of the case and its folder, what answers a request.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not land between the answers
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    answer = prepare(read(folder), folder)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = answer(request)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


def _describe_all(case: Case, table: dict[str, Mode], packages: Sequence[str]) -> dict[str, Any]:
    plain = table["bare"]
    plain.call()
    plain_bytes = allocated_bytes(plain)
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "threads": torch.get_num_threads(),
        "modes": {name: describe(mode, case.reference, plain_bytes) for name, mode in table.items()},
    }
