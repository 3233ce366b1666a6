"""The overhead bench: what it times, what it counts as held memory, and what it refuses."""
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from interleave import Estimate, Times, Worker, WorkerFailed, interleave
from overhead import line, measure
from overhead_tables import as_markdown
from peers.case import SHAPES, read, write
from peers.openwork.worker import modes as openwork_modes
from peers.serve import Mode, describe, distinct_bytes, seconds_per_call

SHAPE = replace(SHAPES["two-layer"], warm=1, calls=3)


def test_a_case_is_read_back_and_its_twin_is_on_the_same_weights(tmp_path: Path):
    write(SHAPE, tmp_path)
    case = read(tmp_path)
    twin = case.twin()
    pairs = zip(case.module.parameters(), twin.parameters(), strict=True)
    assert all(ours.data_ptr() == theirs.data_ptr() for ours, theirs in pairs)
    with torch.no_grad():
        assert torch.equal(twin(input_ids=case.ids).logits, case.reference)


def test_other_weights_than_those_written_are_refused(tmp_path: Path):
    write(SHAPE, tmp_path)
    record = tmp_path / "case.json"
    record.write_text(record.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(ValueError, match="write them again"):
        read(tmp_path)


def test_a_copy_of_what_is_kept_counts_as_held_and_a_view_does_not():
    logits = torch.zeros(1, 2, 3)
    value = torch.arange(1000.0)

    def holding(extra):
        def call():
            new = value.clone()
            return SimpleNamespace(kept={"site": new[:500], "rest": new[500:]}, extra=extra(new))

        return Mode(call, lambda result: logits, lambda result: result.kept)

    views = describe(holding(lambda new: new[1:]), logits, 0)
    copies = describe(holding(torch.clone), logits, 0)
    assert views["kept_bytes"] == views["held_bytes"] == copies["kept_bytes"] == 4000
    assert copies["held_bytes"] == 8000
    assert copies["extra_allocated_bytes"] >= 8000


def test_overlapping_views_never_add_up_to_more_than_their_storage():
    value = torch.zeros(4, 8)
    assert distinct_bytes([value, value.view(8, 4), value[:3], value[1:]]) == value.nbytes
    assert distinct_bytes([value[0], value[0]]) == 32


def test_warm_calls_are_not_timed():
    pauses = iter([0.2, 0.0, 0.0, 0.0])
    event = torch.zeros(1)

    def call():
        import time

        time.sleep(next(pauses))
        return event

    assert seconds_per_call(Mode(call, lambda result: result), warm=1, calls=3) < 0.1


def test_the_interval_covers_the_median_and_shrinks_with_rounds():
    few, many = (Estimate.of(torch.randn(n, generator=torch.Generator().manual_seed(0)).tolist()) for n in (10, 1000))
    assert few.low <= few.median <= few.high
    assert many.high - many.low < (few.high - few.low) / 3


@pytest.mark.parametrize(("seconds", "verdict"), [(1.0, "met"), (1.2, "missed")])
def test_a_goal_is_judged_by_the_whole_interval(seconds: float, verdict: str):
    facts = dict.fromkeys(("kept_sites", "kept_bytes", "held_bytes", "extra_allocated_bytes", "difference"), 0)
    mode = Times("openwork", "no keep", tuple(seconds + 0.001 * n for n in range(9)))
    found = line(SHAPES["gpt2-small"], mode, Times("openwork", "bare", (1.0,) * 9), facts)
    assert (found.goal, found.verdict) == (1.01, verdict)
    theirs = line(SHAPES["gpt2-small"], replace(mode, tool="nnsight"), Times("nnsight", "bare", (1.0,) * 9), facts)
    assert (theirs.goal, theirs.verdict) == (None, "")


def test_every_mode_is_timed_once_a_round_and_a_tool_keeps_its_modes_together():
    asked = []

    class Fake:
        def __init__(self, tool):
            self.tool = tool

        def ask(self, **request):
            asked.append((self.tool, request["mode"]))
            return {"seconds": 1.0}

    modes = {Fake("a"): ["bare", "x"], Fake("b"): ["bare", "x", "y"]}
    found = interleave(modes, rounds=4, warm=1, calls=1, seed=0, tick=lambda: None)  # type: ignore[arg-type]
    assert all(len(times.seconds) == 4 for times in found)
    for start in range(0, 20, 5):
        tools = [tool for tool, _ in asked[start : start + 5]]
        assert len(set(asked[start : start + 5])) == 5
        assert sum(left != right for left, right in pairwise(tools)) == 1


@torch.no_grad()
def test_openwork_keeps_every_site_without_a_copy(tmp_path: Path):
    write(SHAPE, tmp_path)
    case = read(tmp_path)
    found = {name: describe(mode, case.reference, 0) for name, mode in openwork_modes(case).items()}
    assert list(found) == ["bare", "bare again", "no keep", "residual streams", "every site"]
    assert found["residual streams"]["kept_sites"] == 2
    assert found["every site"]["kept_sites"] > 30
    for facts in found.values():
        assert facts["held_bytes"] == facts["kept_bytes"]
        assert facts["difference"] == 0


@pytest.mark.extended
def test_openwork_is_timed_in_a_process_of_its_own():
    result = measure(SHAPE, {"openwork": Path(sys.executable)}, 3, 1, 0, Console(quiet=True))
    assert all(found["milliseconds"]["median"] > 0 for found in result["lines"])
    record = {
        "measurement": False, "reasons": ["a test"], "rounds": 3, "threads": 1, "cores": 1, "machine": "any",
        "load_before": (0, 0, 0), "load_after": (0, 0, 0), "foreign_cores": None, "cases": [result],
    }  # fmt: skip
    page = as_markdown(record)
    assert "**Not a measurement:** a test." in page
    assert page.count("| openwork |") == 5


def test_a_worker_that_stops_says_why(tmp_path: Path):
    worker = Worker("nobody", Path(sys.executable), tmp_path, 1)
    with pytest.raises(WorkerFailed, match=r"nobody"):
        worker.ask(do="describe")
    worker.close()
