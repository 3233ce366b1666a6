from __future__ import annotations

import numpy as np
import pytest

from openwork.errors import BadInput
from openwork.faithfulness.components import (
    Component,
    components_of,
    count_alike,
    describe_profile,
    profile,
    random_circuits,
    smallest_p,
)

COMPONENTS = [Component(layer, "head", h) for layer in range(3) for h in range(6)]
COMPONENTS += [Component(layer, "mlp") for layer in range(3)]
CIRCUIT = (Component(0, "head", 1), Component(1, "head", 0), Component(1, "head", 5), Component(1, "mlp"))


def test_components_of_a_network_are_its_heads_and_mlps(net) -> None:
    found = components_of(net)
    assert [str(c) for c in found[:2]] == ["blocks.0.attn.z[0]", "blocks.0.attn.z[1]"]
    assert len(found) == 14
    assert sum(c.kind == "mlp" for c in found) == 2


def test_a_network_without_heads_or_mlps_is_refused() -> None:
    class Bare:
        n_blocks, sites, name = 0, {}, "bare"

    with pytest.raises(BadInput, match="heads or MLPs"):
        components_of(Bare())  # type: ignore[arg-type]


def test_random_circuits_keep_size_and_layer_profile() -> None:
    drawn = random_circuits(CIRCUIT, COMPONENTS, 50, np.random.default_rng(0))
    assert len(drawn) == 50
    assert all(profile(c) == profile(CIRCUIT) and len(set(c)) == 4 for c in drawn)
    assert len(set(drawn)) > 20


def test_every_circuit_is_equally_likely() -> None:
    pair = (Component(0, "head", 0), Component(1, "head", 0))
    drawn = random_circuits(pair, COMPONENTS, 30, np.random.default_rng(0))
    many = [c for seed in range(60) for c in random_circuits(pair, COMPONENTS, 35, np.random.default_rng(seed))]
    assert len(drawn) == 30
    counts = np.array([many.count(c) for c in set(many)])
    assert len(counts) == 36
    # 2100 draws of 36 circuits: 58.3 each, standard deviation 7.5
    assert counts.min() > 30
    assert counts.max() < 90


def test_few_circuits_are_all_given_equally_often() -> None:
    pair = (Component(0, "head", 0), Component(1, "head", 0))
    drawn = random_circuits(pair, COMPONENTS, 100, np.random.default_rng(0))
    assert len(drawn) == 3 * 36
    assert {drawn.count(c) for c in drawn} == {3}


def test_count_and_words_of_a_profile() -> None:
    assert count_alike(CIRCUIT, COMPONENTS) == 6 * 15
    assert describe_profile(CIRCUIT) == "block 0: 1 head; block 1: 2 heads, 1 MLP"


@pytest.mark.parametrize(("alike", "count"), [(36, 500), (120, 500), (500, 500)])
def test_smallest_p_is_that_of_a_circuit_that_beats_all_others(alike: int, count: int) -> None:
    copies = -(-count // alike)
    assert smallest_p(alike, count) == (1 + copies) / (1 + copies * alike)


def test_smallest_p_cannot_be_had_by_asking_for_more_random_circuits() -> None:
    assert smallest_p(36, 100_000) > 1 / 36
    assert smallest_p(10_000, 500) == pytest.approx(1.05 / 501)
