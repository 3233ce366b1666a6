"""A network with a planted induction circuit, and the task that it does."""

from __future__ import annotations

import pytest
import torch

from openwork.faithfulness import Component
from openwork.faithfulness.planted import Plant, PlantedInduction
from openwork.network import Network
from openwork.network import open as open_network
from openwork.task import Task
from openwork.tasks.examples import Example, assemble

VOCABULARY, SPAN = 48, 10
PREVIOUS, INDUCTION = Component(0, "head", 1), Component(1, "head", 4)


@pytest.fixture(scope="session")
def net() -> Network:
    """Head 1 of block 0 looks back, head 4 of block 1 does induction; six heads a block."""
    module = PlantedInduction(VOCABULARY, Plant((1,), (4,), heads=6), context=32).eval()
    return open_network(module, example={"input_ids": torch.arange(2 * SPAN)[None]})


@pytest.fixture(scope="session")
def task() -> Task:
    """Repeated random tokens, of unequal length."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for i in range(16):
        *span, wrong = torch.randperm(VOCABULARY, generator=generator)[: SPAN + 1].tolist()
        k = 2 + i % (SPAN - 4)
        broken = [*span[: k + 1], wrong, *span[k + 2 :]]
        clean, corrupted = ((*first, *span[: k + 1]) for first in (span, broken))
        examples.append(Example(clean, corrupted, span[k + 1], wrong, {"source": (k + 1,)}))
    return assemble("repeats", examples, 0, 1 / VOCABULARY, "A B … A predicts B")
