# pyright: reportArgumentType=false
"""Networks of repeated blocks: one block a phase, and none that repeats in a drift."""

from __future__ import annotations

import pytest
import torch

from openwork.errors import BadInput
from openwork.zoo.recurrent import built, drifting


def test_blocks_of_a_phase_are_equal_and_of_two_phases_are_not() -> None:
    network = built(2, 3)
    weights = [block.mlp.weight for block in network.blocks]  # pyright: ignore
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], weights[4])
    assert not torch.equal(weights[1], weights[2])
    assert network.begins == {2}


def test_a_drift_turns_the_stream_by_one_angle_and_keeps_its_length() -> None:
    network, x = drifting(5, 0.2), torch.randn(1, 3, 24)
    turned = network.blocks[0](x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    cosine = torch.cosine_similarity(x, turned, dim=-1)
    torch.testing.assert_close(cosine, torch.full_like(cosine, 0.2).cos())
    assert network.begins == frozenset()


def test_the_same_seed_builds_the_same_network() -> None:
    one, other = built(2, 2, seed=3), built(2, 2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_what_has_no_phases_is_not_built() -> None:
    with pytest.raises(BadInput, match="two blocks"):
        built(4)
    with pytest.raises(BadInput, match="three blocks"):
        drifting(2, 0.1)
