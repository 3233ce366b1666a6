"""Networks that write into their own tensors: what is replayed is what they computed, not what they left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openwork import network
from openwork.edit import Ablate, Edit
from openwork.network import Behind, Network
from openwork.task import LOGIT_DIFFERENCE, Batch, Tensors

WIDTH, SIDE, ROWS = 3, 4, 5


class Overwriting(nn.Module):
    """Doubles a value that was read before where it is large, and, if asked, halves what it was given."""

    def __init__(self, halves: bool):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(3))
        self.halves = halves

    def forward(self, images: Tensor) -> Tensor:
        if self.halves:
            images.mul_(0.5)
        held = self.first(images)
        after = self.third(self.second(held)) + held
        held.mul_(1 + (held.abs() > 10))
        return (after + held).mean((2, 3))


def opened(halves: bool) -> Network:
    torch.manual_seed(0)
    return network.open(Overwriting(halves).eval(), example={"images": torch.randn(2, WIDTH, SIDE, SIDE)})


@pytest.mark.parametrize("halves", [False, True], ids=["its own", "its input"])
@pytest.mark.parametrize("memory", [None, "10KiB"], ids=["together", "in parts"])
def test_cells_after_what_is_overwritten_are_those_of_full_passes(halves: bool, memory: str | None) -> None:
    values = 30 * torch.randn(ROWS, WIDTH, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    cells: list[tuple[Edit, ...]] = [(Ablate(f"module:second.out[{unit}]"),) for unit in range(WIDTH)]
    inputs = Tensors({"images": values})
    zeros = (0,) * ROWS
    batch = Batch(inputs, inputs, zeros, (1,) * ROWS, zeros)
    found = network.measure(opened(halves), batch, LOGIT_DIFFERENCE, cells, memory=memory)
    module = Overwriting(halves)
    module.load_state_dict(opened(halves).root.state_dict())
    assert set(found.how) == {"layers"}
    for unit in range(WIDTH):

        def zero(module: nn.Module, args: object, output: Tensor, unit: int = unit) -> Tensor:
            return output.index_fill(1, torch.tensor([unit]), 0.0)

        handle = module.second.register_forward_hook(zero)
        logits = module(values.clone()).detach()
        handle.remove()
        np.testing.assert_allclose(found.values[unit], (logits[:, 0] - logits[:, 1]).numpy(), rtol=1e-4, atol=1e-3)


def test_runs_from_a_site_on_leave_what_they_were_given() -> None:
    net, values = opened(halves=True), 30 * torch.randn(ROWS, WIDTH, SIDE, SIDE)
    given, edit = values.clone(), Ablate("module:second.out[0]")
    later = Behind(net, given, "module:second.out")
    found = [later.run(edits=edit).logits for _ in range(2)]
    assert torch.equal(given, values)
    for logits in found:
        torch.testing.assert_close(logits, net.run(values, edits=edit).logits)
