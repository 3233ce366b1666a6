"""Stacked passes: each cell gets its own answer, and the same examples are prepared once."""

from __future__ import annotations

import pytest
import torch

from openwork import network
from openwork.edit import Ablate
from openwork.network.replay.stacked import Row, Stack
from openwork.task import Tensors

from ..seeing import images, see

UNITS = [Ablate(f"module:stages.0.out[{unit}]") for unit in range(3)]


def test_cells_are_those_of_single_runs_and_share_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    net, values = network.open(see("cnn"), name="cnn"), images(4)
    prepared: list[int] = []
    original = net.preparer.prepare
    monkeypatch.setattr(net.preparer, "prepare", lambda inputs: [prepared.append(len(inputs)), original(inputs)][1])
    stack = Stack(net, Tensors({net.preparer.main: values}), {}, {})
    passes = [stack.run([Row([0, 2], edits=[one]), Row([1], edits=[other])]) for one, other in [UNITS[:2], UNITS[1:]]]
    assert prepared == [3]
    stack.run([Row([3], edits=UNITS[:1])])
    assert prepared == [3, 1]
    for got, (one, other) in zip(passes, [UNITS[:2], UNITS[1:]], strict=True):
        whole = torch.cat([net.run(values[[0, 2]], edits=one).logits, net.run(values[[1]], edits=other).logits])
        torch.testing.assert_close(got, whole, rtol=1e-5, atol=1e-6)
