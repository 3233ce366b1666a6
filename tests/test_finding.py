"""Findings: consistent, versioned, escaped, and light to import."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from openwork.errors import BadInput, CorruptFile
from openwork.finding import Control, Criteria, Evidence, Finding, Interval, Provenance, Rival, Verdict

INTERVAL = Interval(0.1 + 0.2, 0.2, 0.4, 0.98, 64, "studentised bootstrap")
PROVENANCE = Provenance(
    model="py-4l", model_hash="a", data_hash="b", code_hash="c", openwork="0.1.0", python="3.11", torch="2.13",
    device="cpu", dtype="float32", threads=2, command="openwork study",
)  # fmt: skip
FIELDS: dict[str, Any] = {
    "claim": "two heads do induction",
    "estimate": INTERVAL.estimate,
    "unit": "nats",
    "interval": INTERVAL,
    "p_value": 0.001,
    "control": Control("random circuits", 500, 0.1, 0.0, 0.2, 1 / 501),
    "rival": Rival("one head", INTERVAL, 0.002),
    "detectable": 0.05,
    "n": 64,
    "split": "held-out",
    "evidence": Evidence.HELD_OUT,
    "criteria": Criteria(min_effect=0.1, unit="nats"),
    "verdict": Verdict.SUPPORTED,
    "reasons": ("it beats its controls",),
    "settings": {"top": (1, 2), "pi": 3.141592653589793},
    "seed": 0,
    "provenance": PROVENANCE,
}
FOUND = Finding(**FIELDS)


def test_json_round_trip_is_exact_and_stable():
    text = FOUND.to_json()
    assert Finding.from_json(text) == FOUND
    assert Finding.from_json(text).to_json() == text
    body = json.loads(text)
    assert (body["schema"], body["schema_version"]) == ("openwork/finding", 1)
    assert body["evidence"] == "held-out with controls"
    assert body["interval"]["estimate"] == 0.1 + 0.2


def test_round_trip_without_the_optional_parts():
    bare = Finding(
        **{
            **FIELDS,
            **dict.fromkeys(("interval", "p_value", "control", "rival", "detectable", "criteria")),
            "verdict": "inconclusive",
            "evidence": "observed",
        }
    )
    assert Finding.from_json(bare.to_json()) == bare
    assert "0.3 nats" in str(bare)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 2}, "expected openwork/finding version 1, got 2"),
        ({"schema": "openwork/study"}, "another document"),
        ({"estimate": "high"}, "estimate"),
        ({"colour": "red"}, "colour"),
        ({"verdict": "proved"}, "verdict"),
        ({"interval": {**vars(INTERVAL), "low": 9.0}}, "low <= high"),
    ],
)
def test_documents_that_do_not_hold_are_corrupt(change, says):
    body = {**json.loads(FOUND.to_json()), **change}
    with pytest.raises(CorruptFile, match=says):
        Finding.from_json(json.dumps(body))


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_text_that_is_no_finding(text):
    with pytest.raises(CorruptFile, match="expected"):
        Finding.from_json(text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"estimate": 0.5}, "interval of estimate 0.5"),
        ({"estimate": float("nan")}, "finite"),
        ({"control": None}, "needs a control"),
        ({"split": "find"}, "held-out split"),
        ({"evidence": Evidence.INTERVENED}, "supported claim needs"),
        ({"reasons": ()}, "reasons"),
        ({"settings": {"x": float("inf")}}, "finite numbers"),
        ({"settings": {"x": object()}}, "JSON values"),
        ({"p_value": 0.0}, "p_value"),
    ],
)
def test_contradictions_cannot_be_built(change, says):
    with pytest.raises(ValidationError, match=says):
        Finding(**{**FIELDS, **change})


def test_a_finding_cannot_be_changed():
    with pytest.raises(ValidationError):
        FOUND.verdict = Verdict.REJECTED


def test_hostile_text_reaches_neither_page_nor_terminal():
    claim = "<script>alert(1)</script> [bold]x[/nope] \x1b[31m\u202e"
    hostile = FOUND.model_copy(update={"claim": claim, "settings": {"<i>": "&"}, "unit": "<u>"})
    page = hostile._repr_html_()
    assert "<script>" not in page
    assert "<i>" not in page
    assert "<u>" not in page
    assert "&lt;script&gt;" in page
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(hostile)
    shown = console.export_text()
    assert "[bold]x[/nope]" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\x1b" not in str(hostile)


def test_evidence_is_ordered():
    assert Evidence.OBSERVED < Evidence.INTERVENED < Evidence.HELD_OUT
    assert max(Evidence) is Evidence.HELD_OUT


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: replace(INTERVAL, low=1.0), "low <= high"),
        (lambda: replace(INTERVAL, high=float("inf")), "finite"),
        (lambda: replace(INTERVAL, level=95.0), "level"),
        (lambda: Criteria(min_effect=0.0, unit="nats"), "above 0"),
        (lambda: Criteria(min_effect=1.0, unit="nats", alpha=0.0), "alpha 0.0"),
        (lambda: Criteria(min_effect=1.0, unit="nats", min_examples=1), "min_examples"),
    ],
)
def test_bad_values_say_what_was_expected(make, says):
    with pytest.raises(BadInput, match=says):
        make()


def test_controls_needed_follow_from_alpha():
    assert [Criteria(min_effect=1.0, unit="", alpha=a).controls_needed for a in (0.05, 0.01, 0.001)] == [100, 500, 5000]


def test_import_is_light():
    heavy = ("torch", "transformers", "scipy", "rich")
    code = f"import sys, openwork.finding; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
