"""The commands about circuits in vision, on the embedded network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FEW = ("--count", "24", "--alpha", "0.2", "-q")


@pytest.mark.parametrize(
    ("words", "axis", "picture"),
    [
        (("kernels", "shapes-cnn", "module:stem.out", "module:stages.0.0.conv1.out[0-2]", "--entries", "4"),
         "out_unit", "Kernels from"),
        (("motifs", "shapes-cnn", "module:stem.out", "--angles", "4", "--claims", "0", "--images", "8"), "unit", ""),
    ],
)  # fmt: skip
def test_a_command_prints_json_and_writes_a_page(
    call: Callable[..., Any], tmp_path: Path, words: tuple[str, ...], axis: str, picture: str
) -> None:
    done = call(*words, *FEW, "--json", "--out", "out")
    assert done.exit_code in (0, 4), done.output
    record = json.loads(done.stdout)
    assert axis in {dim for dims in record["axes"]["variables"].values() for dim in dims}
    assert picture in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.extended
@pytest.mark.parametrize(
    ("words", "picture"),
    [
        (("class-graph", "shapes-cnn", "car", "module:stages.2.out", "--images", "4", "--count", "120"),
         "What car is made of"),
        (("patch-places", "shapes-cnn", "module:stages.2.out", "--pairs", "3", "--channels", "1", "--count", "60"),
         "brings back, place by place"),
        (("hierarchy", "shapes-cnn", "module:stem.out", "module:stages.2.out", "--claims", "0", "--images", "12"),
         "What units of each layer detect"),
    ],
)  # fmt: skip
def test_a_slower_command_writes_its_pictures(
    call: Callable[..., Any], tmp_path: Path, words: tuple[str, ...], picture: str
) -> None:
    done = call(*words, *(() if "--count" in words else ("--count", "24")), "--alpha", "0.2", "-q", "--out", "out")
    assert done.exit_code in (0, 4), done.output
    assert picture in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("motifs", "shapes-cnn", "module:stem.out", "--ask", "unions"), "--into"),
        (("patch-places", "shapes-cnn", "module:stem.out", "--cover", "wheel"), "category:concept"),
        (("class-graph", "shapes-cnn", "bicycle", "module:stem.out", "--count", "8"), "bicycle"),
        (("kernels", "py-attn2", "module:stem.out", "logits"), "images"),
    ],
)
def test_what_does_not_fit_is_said(call: Callable[..., Any], words: tuple[str, ...], said: str) -> None:
    done = call(*words, "-q")
    assert done.exit_code == 1
    assert said in done.stderr


def test_only_options_that_were_changed_are_told_again(call: Callable[..., Any], tmp_path: Path) -> None:
    call("kernels", "shapes-cnn", "module:stem.out", "module:stages.0.0.conv1.out[0]", "--entries", "4", *FEW,
         "--out", "out")  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "openwork kernels shapes-cnn module:stem.out" in page
    assert "--entries 4" in page
    assert "--claims" not in page
