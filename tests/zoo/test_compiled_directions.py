"""Subspaces of variables: swapping one between two rows does what the program says when that variable is swapped."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from openwork.errors import BadInput
from openwork.network import open as open_network
from openwork.site import Edge, Site
from openwork.zoo import compiled
from openwork.zoo.compiled.assemble import blocks
from openwork.zoo.compiled.language import Aggregate, Indices, Map, Numerical, in_order
from openwork.zoo.transformer import Transformer

SWAPPED = [
    ("addition", "left"),
    ("addition", "sum"),
    ("brackets", "opened"),
    ("brackets", "depth"),
    ("brackets", "partner"),
    ("fraction", "share of a"),
    ("histogram", "1 / (1 + count)"),
    ("induction", "before"),
    ("ioi", "duplicate token"),
    ("ioi", "repeated"),
    ("ioi", "inhibition"),
    ("most-frequent", "count"),
    ("reverse", "end"),
    ("reverse", "opposite"),
    ("sort", "word and place"),
    ("sort", "rank"),
    ("two-hop", "source"),
    ("two-hop", "first hop"),
    ("unique", "new at"),
    ("unique", "rank"),
]


@torch.no_grad()
def stream(
    network: Transformer, ids: Tensor, edited: Site | None = None, edit: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[dict[Site, Tensor], Tensor]:
    """The residual stream by site, and the logits, of a run with one site edited."""
    states: dict[Site, Tensor] = {}

    def at(name: str, x: Tensor) -> Tensor:
        states[Site(name)] = edit(x) if Site(name) == edited else x
        return states[Site(name)]

    x = at("embed", network.embed(ids, torch.arange(ids.shape[1])[None]))
    for number, block in enumerate(blocks(network)):
        if hasattr(block, "attn"):
            x = x + block.attn(x)
        if hasattr(block, "mlp"):
            x = at(f"blocks.{number}.resid_mid", x)
            x = x + block.mlp(x)
        x = at(f"blocks.{number}.resid_post", x)
    assert edited is None or edited in states
    return states, network.unembed(x)


@pytest.mark.parametrize("form", ["", pytest.param("+rotated", marks=pytest.mark.extended)])
@pytest.mark.parametrize(("name", "variable"), SWAPPED)
def test_swapping_a_variable_is_swapping_it_in_the_program(name, variable, form):
    member = compiled.open(name + form)
    program = member.program
    rng = np.random.default_rng(3)
    rows = [program.domain.sample(rng) for _ in range(40)]
    ids, others = (torch.tensor(program.encode(some)) for some in (rows, rows[1:] + rows[:1]))
    direction = member.known.directions[variable]
    axes = np.linalg.svd(direction.array.numpy().astype(float), full_matrices=False)[2]
    within = torch.tensor(axes.T @ axes, dtype=torch.float32)
    there = stream(member.network, others)[0][direction.site]
    said = stream(member.network, ids, direction.site, lambda x: x + (there - x) @ within)[1].argmax(-1)
    compared = changed = 0
    for row, other, tokens in zip(rows, rows[1:] + rows[:1], said.tolist(), strict=True):
        plain = program.algorithm(row)
        try:
            run = program.interpret(row, given={variable: program.interpret(other)[variable]})
        except BadInput:  # the program has no answer to this swap
            continue
        for i, value in enumerate(run[program.output.name]):
            if plain[i] is not None:
                compared += 1
                changed += program.word(value) != plain[i]
                assert program.domain.words[tokens[i]] == program.word(value)
    assert compared >= 20
    assert changed >= 5


@pytest.mark.parametrize("name", compiled.names())
def test_residual_stream_holds_each_variable_where_its_direction_says(name):
    member = compiled.open(name)
    program = member.program
    rng = np.random.default_rng(1)
    rows = [program.domain.sample(rng) for _ in range(10)]
    ids = torch.tensor(program.encode(rows))
    states, _ = stream(member.network, ids)
    for variable in in_order(program.output):
        direction = member.known.directions.get(variable.name)
        if direction is None:
            assert isinstance(variable, Indices)
            continue
        held = states[direction.site].numpy() @ direction.array.numpy().T
        for r, row in enumerate(rows):
            asked = [i for i, answer in enumerate(program.algorithm(row)) if answer is not None]
            values = program.interpret(row)[variable.name]
            for i in asked:
                if isinstance(variable, (Map, Aggregate)):
                    expected = [float(value == values[i]) for value in variable.values]
                elif isinstance(variable, Numerical):
                    expected = [variable.code(values[i])]
                else:
                    expected = [float(word == row[i]) for word in program.domain.words]
                np.testing.assert_allclose(held[r, i], expected, atol=2e-3)


def test_edges_of_induction_are_those_of_the_mechanism():
    known = compiled.open("induction").known
    before, copied, embed = Site("blocks.0.attn.z", (0,)), Site("blocks.1.attn.z", (0,)), Site("embed")
    assert set(known.edges) == {
        Edge(embed, Site("blocks.0.attn.v", (0,))),
        Edge(before, Site("blocks.1.attn.k", (0,))),
        Edge(embed, Site("blocks.1.attn.q", (0,))),
        Edge(embed, Site("blocks.1.attn.v", (0,))),
        Edge(copied, Site("logits")),
    }


def test_edges_that_carry_positions_alone_are_kept_apart():
    known = compiled.open("induction").known
    embed = Site("embed")
    assert set(known.constant) == {
        Edge(embed, Site("blocks.0.attn.q", (0,))),
        Edge(embed, Site("blocks.0.attn.k", (0,))),
        Edge(embed, Site("blocks.1.attn.k", (0,))),
    }
    assert not set(known.constant) & set(known.edges)


def test_heads_of_one_work_are_all_known():
    known = compiled.open("ioi").known
    assert {role: len(nodes) for role, nodes in known.roles.items()} == {
        "duplicate token": 2,
        "repeated": 1,
        "inhibition": 1,
        "name mover": 2,
    }


@pytest.mark.parametrize("name", ["induction", "brackets"])
def test_directions_lie_at_sites_of_the_opened_network(name):
    member = compiled.open(name)
    ids = torch.tensor(member.program.task(2).clean.ids)
    net = open_network(member.network, name=name, example={"input_ids": ids})
    directions = member.known.directions.values()
    run = net.run(ids, keep=sorted({str(direction.site) for direction in directions}))
    states, logits = stream(member.network, ids)
    torch.testing.assert_close(run.logits, logits)
    for direction in directions:
        rows = torch.tensor(direction.array.numpy()).T
        torch.testing.assert_close(run[str(direction.site)] @ rows, states[direction.site] @ rows)
