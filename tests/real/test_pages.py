"""The worked examples with models that others made: every block of their pages runs, where there are such models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..docs.test_code_blocks import ROOT, SHOWN, blocks, run_python

pytestmark = pytest.mark.extended

PAGES = sorted((ROOT / "docs").glob("examples-*.md"))
NEEDS = re.compile(r"^<!-- shown, not run: needs a model that others made.* -->$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_runs(page: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWORK_DATA", str(data.resolve()))
    monkeypatch.syspath_prepend(ROOT)
    text = NEEDS.sub("", page.read_text(encoding="utf-8"))
    assert not SHOWN.search(text), "a block that is not run for another reason"
    found = blocks(text)
    assert [block.language for block in found].count("python") == len(found) > 2
    namespace = {"__name__": page.stem}
    for block in found:
        run_python(block, namespace, page.name)
