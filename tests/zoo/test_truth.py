"""The truth test on a network written by hand, with claims that are right and claims that are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from openwork.direction import Direction
from openwork.errors import BadInput, UnknownName
from openwork.site import Edge, Site
from openwork.task import Task
from openwork.zoo import Known, PlantedDirection
from openwork.zoo.known import at
from openwork.zoo.transformer import Transformer, TransformerConfig
from openwork.zoo.truth import Claims, Truth, TruthSettings, check, settle

TOKENS, LENGTH = 8, 4
TOKEN, PLACE, MOVED, ANSWER, JUNK = slice(0, 8), slice(8, 12), slice(12, 20), slice(20, 28), slice(28, 36)
SHARE = 1 - 1 / TOKENS
"""How often another row has another first token, and so another answer."""


@pytest.fixture(scope="module")
def network() -> Transformer:
    """The answer at the last token is the first token plus one: a head moves it there, an MLP adds one.

    A second head of the same layer moves the second token to channels that only the second MLP reads, which writes to
    where nothing reads.
    """
    config = TransformerConfig(TOKENS, LENGTH, 36, (2, 1), (8, 8), 8)
    network: Any = Transformer(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.tokens.weight[:, TOKEN] = torch.eye(8)
        network.places.weight[:, PLACE] = torch.eye(4)
        attn, mlp = network.blocks[0].attn, network.blocks[0].mlp
        for head, part in enumerate((MOVED, JUNK)):
            rows = slice(8 * head, 8 * head + 8)
            attn.q.bias[rows.start] = 100.0
            attn.k.weight[rows.start, PLACE.start + head] = 1.0
            attn.v.weight[rows, TOKEN] = torch.eye(8)
            attn.o.weight[part, rows] = torch.eye(8)
        mlp.up.weight[:, MOVED] = torch.eye(8)
        mlp.down.weight[ANSWER] = torch.eye(8).roll(1, 0)
        network.blocks[1].mlp.up.weight[:, JUNK] = torch.eye(8)
        network.blocks[1].mlp.down.weight[TOKEN] = torch.eye(8)
        network.unembed.weight[:, ANSWER] = 20 * torch.eye(8)
    return network


@pytest.fixture(scope="module")
def task() -> Task:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, TOKENS, (160, LENGTH), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 0] = (clean[:, 0] + torch.randint(1, TOKENS, (160,), generator=generator)) % TOKENS
    return Task.from_tokens(clean, corrupted, (clean[:, 0] + 1) % TOKENS, (corrupted[:, 0] + 1) % TOKENS)


HEAD, OTHER, MLP = Site("blocks.0.attn.z", (0,)), Site("blocks.0.attn.z", (1,)), Site("blocks.0.mlp.out")
NODES = (HEAD, MLP)
EDGES = (
    Edge(Site("embed"), Site("blocks.0.attn.v", (0,))),
    Edge(HEAD, Site("blocks.0.mlp.in")),
    Edge(MLP, Site("logits")),
)
STRUCTURE = (Edge(Site("embed"), Site("blocks.0.attn.k", (0,))), Edge(Site("embed"), Site("blocks.0.attn.q", (0,))))
UNTRUE = Edge(Site("embed"), Site("blocks.0.attn.v", (1,)))


def part(site: str, channels: slice) -> Direction:
    return Direction(site, torch.eye(36)[channels])


DIRECTIONS = {
    "token": part("embed", TOKEN),
    "moved": part("blocks.0.resid_mid", MOVED),
    "answer": part("blocks.0.resid_post", ANSWER),
}


def items(found: Truth) -> list[str]:
    return [effect.item for effect in found.failures]


def test_the_network_does_what_it_was_written_to_do(network, task):
    with torch.no_grad():
        best = network(torch.tensor(task.clean.ids)).logits[:, -1].argmax(-1)
    assert best.tolist() == list(task.answer)


def test_the_whole_truth_holds(network, task):
    found = check(network, task, Claims(NODES, EDGES, DIRECTIONS))
    assert found.holds
    assert len(found.true) == 8
    for effect in found.true:
        assert effect.size.low < SHARE < effect.size.high
        assert effect.size.estimate == pytest.approx(SHARE, abs=0.04)
    assert [effect.count for effect in found.untrue] == [3, 29, 28, 28, 28]
    assert [effect.size.estimate for effect in found.untrue] == pytest.approx([0] * 5, abs=1e-5)
    assert found.slack == (pytest.approx(SHARE - 0.05, abs=0.04), pytest.approx(0.05, abs=1e-4))


@pytest.mark.parametrize(
    ("claims", "rest"),
    [
        (Claims(nodes=NODES[:1]), "all 4 others"),
        (Claims(edges=EDGES[1:]), "all 30 others"),
        (Claims(directions={"half": part("blocks.0.resid_mid", slice(12, 16))}), "all 32 other dimensions"),
    ],
    ids=["node", "edge", "direction"],
)
def test_a_missing_item_shows_in_the_rest(network, task, claims, rest):
    found = check(network, task, claims)
    assert not found.holds
    (failure,) = items(found)
    assert failure.startswith(rest)


@pytest.mark.parametrize(
    ("claims", "extra"),
    [
        (Claims(nodes=(*NODES, OTHER)), str(OTHER)),
        (Claims(edges=(*EDGES, UNTRUE)), str(UNTRUE)),
        (Claims(directions=DIRECTIONS | {"junk": part("blocks.0.resid_mid", JUNK)}), "junk at blocks.0.resid_mid"),
    ],
    ids=["node", "edge", "direction"],
)
def test_an_item_too_many_fails_itself(network, task, claims, extra):
    found = check(network, task, claims)
    assert items(found) == [extra]
    assert found.slack[0] == pytest.approx(-0.05, abs=1e-4)


def test_settling_drops_structure_and_what_does_nothing(network, task):
    proposed = Claims(
        (*NODES, OTHER), (*STRUCTURE, *EDGES, UNTRUE), DIRECTIONS | {"place": part("blocks.1.resid_pre", PLACE)}
    )
    claims, found = settle(network, task, proposed)
    assert claims.nodes == NODES
    assert claims.edges == EDGES
    assert claims.directions == DIRECTIONS
    # nothing is true at the site whose only proposed direction was dropped: there, the answer is in the rest
    assert items(found) == ["all 36 other dimensions of blocks.1.resid_pre"]


def test_settling_a_whole_proposal_is_its_truth(network, task):
    claims, found = settle(network, task, Claims(NODES, (*STRUCTURE, *EDGES), DIRECTIONS))
    assert found.holds
    assert found == check(network, task, claims)


def test_claims_are_read_off_what_is_known():
    roles = {"mover": (at("blocks.0.attn.z", "last", 1, 0),), "adder": (at("blocks.0.mlp.out", "last"),)}
    claims = Claims.of(Known(roles, EDGES))
    assert claims.nodes == (HEAD, OTHER, MLP)
    assert claims.edges == EDGES
    assert claims.directions is None
    assert Claims.of(Known(roles)).edges is None


def test_a_smaller_epsilon_shows_a_weak_part(network, task):
    weak: Any = Transformer(network.config).eval()
    weak.load_state_dict(network.state_dict())
    with torch.no_grad():
        weak.unembed.weight[0, 0] = 17.0
    claims = Claims(nodes=NODES), Claims(edges=EDGES)
    assert all(check(weak, task, c, TruthSettings(epsilon=0.2)).holds for c in claims)
    strict = check(weak, task, claims[1], TruthSettings(epsilon=0.0005))
    assert items(strict) == ["all 29 others"]


def test_the_record_is_json_and_says_what_was_found(network, task):
    found = check(network, task, Claims(edges=(*EDGES, UNTRUE)))
    record = json.loads(json.dumps(found.to_json()))
    assert record["holds"] is False
    assert record["epsilon"] == 0.05
    assert record["slack"] == pytest.approx(found.slack)
    assert [item["item"] for item in record["true"]] == [str(edge) for edge in (*EDGES, UNTRUE)]
    assert record["untrue"][0]["count"] == 28


def test_it_prints_what_fails(network, task):
    text = str(check(network, task, Claims(nodes=(*NODES, OTHER))))
    assert text.startswith("does not hold at epsilon 0.05; slack -0.05")
    assert next(line for line in text.splitlines() if line.endswith("FAILS")).split()[1] == str(OTHER)
    assert str(check(network, task, Claims(nodes=NODES))).startswith("holds at epsilon 0.05")


def test_the_same_seed_gives_the_same_truth_and_another_one_other_pairs(network, task):
    settings, claims = TruthSettings(examples=20, resamplings=2), Claims(nodes=NODES)
    once, again = (check(network, task, claims, settings) for _ in range(2))
    assert once == again
    assert once.true != check(network, task, claims, replace(settings, seed=1)).true


def test_what_the_network_does_not_have_is_an_error(network, task):
    with pytest.raises(UnknownName, match=r"no node named 'blocks.0.attn.z\[2\]'"):
        check(network, task, Claims(nodes=(Site("blocks.0.attn.z", (2,)),)))
    with pytest.raises(UnknownName, match="no edge named"):
        check(network, task, Claims(edges=(Edge(MLP, Site("blocks.0.mlp.in")),)))
    with pytest.raises(UnknownName, match=r"no site of the residual stream named 'blocks.0.mlp.out'"):
        check(network, task, Claims(directions={"d": part("blocks.0.mlp.out", TOKEN)}))
    with pytest.raises(BadInput, match="directions of 36 channels"):
        check(network, task, Claims(directions={"d": Direction("embed", torch.ones(5))}))


def test_claims_of_nothing_and_impossible_settings_are_errors():
    with pytest.raises(BadInput, match="got none of them"):
        Claims()
    with pytest.raises(BadInput, match="epsilon between 0 and 1"):
        TruthSettings(epsilon=0.0)


def test_rows_of_several_lengths_and_other_networks_are_errors(network, task, unchecked):
    ragged = Task.from_tokens([[1, 2], [1, 2, 3]], [[2, 2], [3, 2, 3]], [2, 2], [3, 4])
    with pytest.raises(BadInput, match=r"all of one length.*got \[2, 3\]"):
        check(network, ragged, Claims(nodes=NODES))
    other: Any = PlantedDirection()
    with pytest.raises(BadInput, match="expected a Transformer"):
        check(other, task, Claims(nodes=NODES))


def test_a_network_that_gives_nan_is_an_error(network, task):
    broken: Any = Transformer(network.config).eval()
    broken.load_state_dict(network.state_dict())
    with torch.no_grad():
        broken.unembed.bias[3] = torch.nan
    with pytest.raises(BadInput, match=r"with blocks.0.attn.z\[0\] resampled the network gives NaN"):
        check(broken, task, Claims(nodes=NODES))
