"""Where the models that others made lie; every test of this folder is skipped where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of models and data: ``OPENWORK_DATA``, or ``shared/data`` beside the checkout."""
    folder = Path(os.environ.get("OPENWORK_DATA") or BESIDE)
    if not (folder / "README.md").is_file():
        pytest.skip(f"needs models that others made; there are none in {folder} (set OPENWORK_DATA)")
    return folder
