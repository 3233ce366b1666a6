"""What a piece of work costs."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from openwork.boards.cost import metered


def test_multiplications_of_linear_maps_are_counted_whatever_the_module_is_called() -> None:
    linear, conv, embedding = nn.Linear(8, 4), Conv1D(6, 4), nn.Embedding(5, 8)
    with metered() as meter:
        conv(linear(embedding(torch.zeros(2, 3, dtype=torch.long))))
    assert meter.multiplications == 6 * 8 * 4 + 6 * 4 * 6


def test_nothing_is_counted_afterwards_also_after_an_error() -> None:
    linear = nn.Linear(8, 4)
    try:
        with metered() as meter:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    linear(torch.zeros(1, 8))
    assert meter.multiplications == 0


def test_growth_of_the_process_is_seen() -> None:
    with metered() as meter:
        kept = torch.ones(64 << 18)
        meter.done.wait(0.1)
    assert kept.nbytes * 0.8 < meter.bytes < kept.nbytes * 4


def test_cost_is_in_forward_passes() -> None:
    linear = nn.Linear(8, 4)
    with metered() as meter:
        linear(torch.zeros(10, 8))
    cost = meter.cost(forward=32)
    assert cost.forwards == 10
    assert cost.seconds > 0
