from __future__ import annotations

import pytest
import torch

from openwork.faithfulness.planted import Plant, PlantedInduction


def accuracy(network: PlantedInduction) -> float:
    ids = torch.stack([torch.randperm(48)[:12] for _ in range(16)])
    logits = network(torch.cat((ids, ids), 1))
    return (logits[:, 12:-1].argmax(-1) == ids[:, 1:]).float().mean().item()


@pytest.mark.parametrize("plant", [Plant(heads=12), Plant(tuple(range(12)), tuple(range(12)), 12, uneven=0.5)])
def test_planted_network_does_induction(plant: Plant) -> None:
    assert accuracy(PlantedInduction(48, plant)) > 0.9


def test_it_fails_without_either_planted_head() -> None:
    for block, head in ((0, 2), (1, 7)):
        network = PlantedInduction(48)
        network.blocks[block].attn.o.weight.data[:, head * 32 : (head + 1) * 32] = 0  # type: ignore[union-attr]
        assert accuracy(network) < 0.2


def test_planted_head_attends_to_the_previous_token(net) -> None:
    pattern = net.run(torch.arange(20)[None], keep=["blocks.0.attn.pattern"])["blocks.0.attn.pattern"]
    assert pattern[0, 1].diagonal(-1).min() > 0.9
    assert pattern[0, 0].diagonal(-1).mean() < 0.5
