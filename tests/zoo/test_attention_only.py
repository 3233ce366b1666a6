"""The attention-only network against a reading of its equations head by head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openwork.zoo import AttentionOnly, AttentionOnlyConfig
from openwork.zoo.attention_only import Block

CONFIG = AttentionOnlyConfig(vocabulary=23, width=12, heads=3, layers=2, context=10)


@pytest.fixture
def network() -> AttentionOnly:
    torch.manual_seed(0)
    return AttentionOnly(CONFIG).double().eval()


def slow_logits(network: AttentionOnly, ids: list[int]) -> Tensor:
    """One row, one head and one query at a time."""
    x = torch.stack([network.embed.weight[i] for i in ids])
    places = network.places.weight[: len(ids)]
    size = CONFIG.width // CONFIG.heads
    for block in network.blocks:
        assert isinstance(block, Block)
        normed = block.norm(x)
        added = torch.zeros_like(x)
        for head in range(CONFIG.heads):
            part = slice(head * size, (head + 1) * size)
            q, k = ((normed + places) @ getattr(block.attn, name).weight.T[:, part] for name in "qk")
            v = normed @ block.attn.v.weight.T[:, part]
            for here in range(len(ids)):
                weights = torch.softmax(k[: here + 1] @ q[here] / size**0.5, dim=0)
                added[here] += network_output(block, part, weights @ v[: here + 1])
        x = x + added
    return network.final_norm(x) @ network.unembed.weight.T


def network_output(block: Block, part: slice, z: Tensor) -> Tensor:
    """What one head adds to the residual stream."""
    return block.attn.o.weight[:, part] @ z


def test_logits_are_those_of_the_equations(network):
    ids = [3, 1, 4, 1, 5, 9]
    with torch.no_grad():
        torch.testing.assert_close(network(torch.tensor([ids])).logits[0], slow_logits(network, ids))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(network, side):
    ids, pad = [3, 1, 4, 1, 5], [0, 0, 0]
    row, mask = ([*pad, *ids], [0] * 3 + [1] * 5) if side == "left" else ([*ids, *pad], [1] * 5 + [0] * 3)
    with torch.no_grad():
        alone = network(torch.tensor([ids])).logits[0]
        padded = network(torch.tensor([row]), attention_mask=torch.tensor([mask])).logits[0]
    assert torch.isfinite(padded).all()
    torch.testing.assert_close(padded[torch.tensor(mask).bool()], alone)


def test_positions_given_are_positions_used(network):
    ids = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        counted = network(ids).logits
        same = network(ids, position_ids=torch.tensor([[0, 1, 2]])).logits
        spread = network(ids, position_ids=torch.tensor([[0, 4, 9]])).logits
    torch.testing.assert_close(counted, same, rtol=0, atol=0)
    assert not torch.allclose(counted, spread)


def test_no_later_token_is_seen(network):
    with torch.no_grad():
        first, second = (network(torch.tensor([ids])).logits[0, :3] for ids in ([3, 1, 4, 7, 7], [3, 1, 4, 2, 9]))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_too_long_a_text_and_a_wrong_shape_are_errors(network):
    with pytest.raises(ValueError, match="at most 10 tokens, got 11"):
        network(torch.zeros(1, 11, dtype=torch.long))
    with pytest.raises(ValueError, match="heads to divide width"):
        AttentionOnly(AttentionOnlyConfig(vocabulary=5, width=10, heads=3))
