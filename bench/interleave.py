"""Timing of several tools in one run: worker processes that take turns, and statistics paired by round."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BENCH = Path(__file__).parent
QUIET = 0.25
"""Processor cores that others may keep busy while we measure."""


class WorkerFailed(RuntimeError):
    """A worker stopped, or answered with an error."""


class Worker:
    """A process that runs one of a tool's programs, one request at a time, and is idle between requests."""

    def __init__(self, tool: str, interpreter: Path, case: Path, threads: int, program: str = "worker") -> None:
        self.tool = tool
        self._log = case / f"{tool}.log"
        self._process = subprocess.Popen(
            [interpreter, "-m", f"peers.{tool}.{program}", case, str(threads)],
            cwd=BENCH, env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log.open("w"), text=True,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            answer = json.loads(stdout.readline() or '{"error": "it stopped"}')
        except BrokenPipeError:
            answer = {"error": "it stopped"}
        if "error" in answer:
            tail = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:]
            raise WorkerFailed("\n".join([f"{self.tool}: {answer['error']} on {request}", *tail]))
        return answer

    def close(self) -> None:
        """Let it end, and wait for that."""
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Times:
    """Seconds a call of one mode of one tool: one number a round."""

    tool: str
    mode: str
    seconds: tuple[float, ...]


def interleave(
    modes: Mapping[Worker, Sequence[str]], rounds: int, warm: int, calls: int, seed: int, tick: Callable[[], None]
) -> list[Times]:
    """Time every mode once a round, tools in random order and the modes of a tool side by side in random order.

    Args:
        modes: worker -> its modes.
        rounds: how many.
        warm: untimed calls at the start of each request.
        calls: timed calls of each request, of which the median counts.
        seed: of the order.
        tick: called after each request.
    """
    order = random.Random(seed)
    found: dict[tuple[Worker, str], list[float]] = {(worker, mode): [] for worker in modes for mode in modes[worker]}
    for _ in range(rounds):
        for worker in order.sample(list(modes), len(modes)):
            for mode in order.sample(list(modes[worker]), len(modes[worker])):
                answer = worker.ask(do="time", mode=mode, warm=warm, calls=calls)
                found[worker, mode].append(answer["seconds"])
                tick()
    return [Times(worker.tool, mode, tuple(seconds)) for (worker, mode), seconds in found.items()]


@dataclass(frozen=True)
class Estimate:
    """A median over rounds with its 95 % bootstrap interval and the quartiles of the rounds."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float], resamples: int = 4000, seed: int = 0) -> Estimate:
        """Estimate the median of one value a round."""
        array = np.asarray(values)
        draws = np.random.default_rng(seed).integers(0, len(array), (resamples, len(array)))
        low, high = np.quantile(np.median(array[draws], axis=1), [0.025, 0.975])
        first, third = np.quantile(array, [0.25, 0.75])
        return cls(float(np.median(array)), float(low), float(high), (float(first), float(third)))


class Watch:
    """How busy others kept the machine, from when it is made until `foreign_cores` is asked."""

    def __init__(self) -> None:
        self.load = os.getloadavg()
        self._wall, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def foreign_cores(self) -> float | None:
        """Mean number of cores that other processes used; None where /proc/stat does not exist.

        Workers count as ours only after they were closed.
        """
        if self._busy is None:
            return None
        busy = (_busy_seconds() or 0.0) - self._busy - (_own_seconds() - self._own)
        return max(0.0, busy / (time.monotonic() - self._wall))


def _busy_seconds() -> float | None:
    try:
        user, nice, system, _, _, irq, soft, steal = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return None
    return sum(map(int, (user, nice, system, irq, soft, steal))) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])
