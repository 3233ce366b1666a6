"""One torch thread and fixed seeds for every test, and a cache folder that is thrown away."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "src" / "openwork"


def with_shapes() -> list[str]:
    """The modules that state shapes: to check every call of the others would take as long as all tests."""
    found = (path for path in PACKAGE.rglob("*.py") if "from jaxtyping import" in path.read_text(encoding="utf-8"))
    return [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in found]


install_import_hook(with_shapes(), "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two workers share two cores; more threads only make them wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same numbers whatever ran before, in any order and on any worker."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the libraries under test draw from the global generator)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENWORK_CACHE", str(folder))
        yield folder
