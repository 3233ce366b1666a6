"""Strict interchange training: its losses are what they say, and it goes on, stops and ships as every training does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, Diverged, TaskFailed, UnknownName
from openwork.recipes import recipe
from openwork.recipes import siit as strict
from openwork.recipes.interchange import Interchanged, Swaps, drawn, interchange_accuracy, losses, task_accuracy
from openwork.recipes.recipe import Descent
from openwork.recipes.siit import StrictInterchange
from openwork.recipes.train import train
from openwork.site import Edge, Site
from openwork.zoo import compiled, edgewise
from openwork.zoo.siit import Correspondence

NAME = "most-frequent"


@pytest.fixture(scope="module")
def high():
    return compiled.open(NAME)


@pytest.fixture
def made(high, monkeypatch) -> StrictInterchange:
    monkeypatch.setattr(strict, "POOL", 40)
    monkeypatch.setattr(strict, "MEASURED_ROWS", 16)
    return StrictInterchange(high, width=16, mlp=8, steps=6, rows=6, descent=Descent(warmup=0, decay=0, clip=1.0))


@pytest.fixture
def network(made):
    torch.manual_seed(0)
    return made.network().eval()


def mismatch(said, target, asked) -> float:
    """Cross-entropy in a loop: mean over rows of the mean over the positions asked."""
    by_row = []
    for row in range(len(said)):
        places = [i for i in range(said.shape[1]) if asked[row, i]]
        p = [target[row, i].double().softmax(-1) for i in places]
        q = [said[row, i].double().softmax(-1) for i in places]
        by_row.append(np.mean([-float((a * b.log()).sum()) for a, b in zip(p, q, strict=True)]))
    return float(np.mean(by_row))


def with_head_of(network, ids, others, layer: int, head: int):
    """Logits while what one head mixes is that of other rows, by hooks."""
    width, seen = network.config.head_width, []
    o = network.blocks[layer].attn.o
    with o.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone())):
        network(others)

    def put(module, args):
        z = args[0].clone()
        z[..., head * width : (head + 1) * width] = seen[0][..., head * width : (head + 1) * width]
        return (z,)

    with o.register_forward_pre_hook(put):
        return network(ids).logits


@torch.no_grad()
def test_the_losses_are_those_of_a_slow_computation(made, network, high):
    rows, swaps, shift = made.pool[:6], made.swaps, 2
    others = torch.stack([rows.ids[i - shift] for i in range(6)])
    part = Site("blocks.1.attn.z", (0,))
    place = made.correspondence.site(part)
    chosen = swaps.names.index(str(part))
    head = place.index[0]
    spare = next(h for h in range(4) if h != head)
    kept = ~edgewise.mask_of(network, [Edge(Site("blocks.1.attn.z", (spare,)), Site("logits"))])
    found = losses(high, network, swaps, rows, shift, chosen, kept)

    plain = high.network(rows.ids).logits
    assert found.behaviour.item() == pytest.approx(mismatch(network(rows.ids).logits, plain, rows.asked), rel=1e-5)
    target = with_head_of(high.network, rows.ids, others, 1, 0)
    said = with_head_of(network, rows.ids, others, 1, head)
    assert found.interchange.item() == pytest.approx(mismatch(said, target, rows.asked), rel=1e-5)
    assert not torch.allclose(target, plain)

    # only the logits read the other rows' head: it is taken out of the last residual, and theirs put in
    write = network.blocks[1].attn.o.weight[:, spare * 4 : spare * 4 + 4]
    z, last = [], []
    with network.blocks[1].attn.o.register_forward_pre_hook(lambda module, args: z.append(args[0])):
        with network.final_norm.register_forward_pre_hook(lambda module, args: last.append(args[0])):
            network(rows.ids)
        network(others)
    mine, theirs = (mixed[..., spare * 4 : spare * 4 + 4] @ write.T for mixed in z)
    said = network.unembed(network.final_norm(last[0] - mine + theirs))
    assert found.strictness.item() == pytest.approx(mismatch(said, plain, rows.asked), rel=1e-4)
    assert found.total.item() == pytest.approx(sum(map(float, (found.behaviour, found.interchange, found.strictness))))


def test_all_three_losses_reach_the_weights(made, network, high):
    rows = made.pool[:6]
    for name in ("behaviour", "interchange", "strictness"):
        network.zero_grad()
        getattr(losses(high, network, made.swaps, rows, 1, 0, ~made.swaps.untrue), name).backward()
        assert network.tokens.weight.grad.abs().max() > 0


def test_the_compiled_network_itself_has_every_accuracy(made, high):
    parts = {node.site: node.site for nodes in high.known.roles.values() for node in nodes}
    swaps = Swaps.of(high, high.network, Correspondence(parts))
    assert task_accuracy(high, high.network, made.pool).value == 1
    accuracies = interchange_accuracy(high, high.network, swaps, made.pool)
    assert set(accuracies) == {*map(str, parts), *map(str, high.known.edges)}
    assert {found.all.value for found in accuracies.values()} == {1.0}
    together = Interchanged.together(accuracies.values())
    assert together.all.n == len(accuracies) * int(made.pool.asked.sum())
    assert 0 < together.changed.n < together.all.n
    assert together.changed.value == 1


@torch.no_grad()
def test_of_a_tie_either_word_is_right():
    """One of two heads that share their work, swapped, leaves two names equally likely."""
    ioi = compiled.open("ioi")
    parts = {node.site: node.site for nodes in ioi.known.roles.values() for node in nodes}
    swaps, rows = Swaps.of(ioi, ioi.network, Correspondence(parts)), drawn(ioi.program, 40, seed=0)
    mover = str(ioi.known.roles["name mover"][0].site)
    other = compiled.open("ioi").network
    # the two words of a tie change places, and nothing else
    other.unembed.bias.add_(torch.linspace(0, 1e-3, len(other.unembed.bias)))
    kept = swaps.high[swaps.names.index(mover)]
    high = edgewise.run(ioi.network, rows.ids)
    half = edgewise.run(ioi.network, rows.ids, kept, high.contributions.roll(2, 1)).logits[rows.asked].softmax(-1)
    best, second = half.topk(2).values.T
    assert (best - second < 0.02).any()
    assert interchange_accuracy(ioi, other, swaps, rows)[mover].all.value == 1


def test_an_untrained_network_has_not(made, network, high):
    assert task_accuracy(high, network, made.pool).value < 0.6
    assert min(a.all.value for a in interchange_accuracy(high, network, made.swaps, made.pool).values()) < 0.6


def test_what_is_not_in_the_circuit_is_every_other_edge(made, network, high):
    true = {made.correspondence.edge(edge) for edge in high.known.edges}
    others = [edge for edge in edgewise.edges(network) if edge not in true]
    assert torch.equal(made.swaps.untrue, edgewise.mask_of(network, others))
    assert len(true) == len(high.known.edges)


def test_strictness_never_touches_the_circuit_and_mostly_all_else(made):
    untrue = made.swaps.untrue
    masks = [made.swaps.kept(torch.Generator().manual_seed(seed), 0.75) for seed in range(60)]
    assert all(bool(mask[~untrue].all()) for mask in masks)
    strictest = sum(torch.equal(mask, ~untrue) for mask in masks)
    assert 35 <= strictest < 60


def test_every_part_has_a_place_of_its_own_of_its_kind(made, high):
    parts = made.correspondence.parts
    assert {node.site for nodes in high.known.roles.values() for node in nodes} <= set(parts)
    assert len(set(parts.values())) == len(parts)
    assert all((old.kind, old.block) == (new.kind, new.block) for old, new in parts.items())
    assert made.correspondence.site(Site("logits")) == Site("logits")
    assert Correspondence.from_json(made.correspondence.to_json()).parts == parts


def test_places_that_two_parts_share_are_refused():
    one, two, mlp = Site("blocks.0.attn.z", (0,)), Site("blocks.0.attn.z", (1,)), Site("blocks.0.mlp.out")
    with pytest.raises(BadInput, match="a place of its own"):
        Correspondence({one: one, two: one})
    with pytest.raises(BadInput, match="a place of its own"):
        Correspondence({one: mlp})
    with pytest.raises(UnknownName, match="part of the compiled network"):
        Correspondence({one: two}).site(Site("blocks.0.attn.q", (1,)))


def test_rows_repeat_with_their_seed_and_are_asked_where_the_program_answers(high):
    rows = drawn(high.program, 10, seed=4)
    assert torch.equal(rows.ids, drawn(high.program, 10, seed=4).ids)
    assert not torch.equal(rows.ids, drawn(high.program, 10, seed=5).ids)
    for ids, asked in zip(rows.ids.tolist(), rows.asked.tolist(), strict=True):
        answers = high.program.algorithm(tuple(high.program.domain.words[i] for i in ids))
        assert asked == [answer is not None for answer in answers]
        assert any(asked)


def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path, made):
    whole = train(made, tmp_path / "whole", minutes=5.0, resume=False)
    with pytest.MonkeyPatch.context() as patch:
        loss = StrictInterchange.loss
        patch.setattr(
            StrictInterchange, "loss", lambda self, n, step, seed: loss(self, n, step, seed) if step < 3 else 1 / 0
        )
        patch.setattr("openwork.recipes.train.SAVE_EVERY", 3)
        with pytest.raises(ZeroDivisionError):
            train(made, tmp_path / "parts", minutes=5.0, resume=False)
    rest = train(made, tmp_path / "parts", minutes=5.0, resume=True)
    torch.testing.assert_close(rest.network.state_dict(), whole.network.state_dict(), rtol=0, atol=0)
    assert set(rest.curve[0]) == {"step", "seconds", "task", "interchange", "interchange_changed", "loss"}


def test_a_training_that_is_too_fast_is_said_to_have_diverged(tmp_path, made):
    with pytest.raises(Diverged, match=f"siit/{NAME} diverged"):
        train(replace(made, descent=replace(made.descent, peak=1e5), steps=50), tmp_path, minutes=5.0, resume=False)


def test_a_network_whose_answer_is_not_true_does_not_ship(tmp_path, made):
    state = train(replace(made, steps=1), tmp_path, minutes=5.0, resume=False)
    with pytest.raises(TaskFailed, match="truth test"):
        made.export(state, tmp_path, tmp_path / "export", {})
    assert not (tmp_path / "export").exists()


def test_recipes_are_found_by_name(tmp_path):
    found = recipe(f"siit/{NAME}", tmp_path)
    assert isinstance(found, StrictInterchange)
    assert found.config.layers >= 2
    with pytest.raises(UnknownName, match=f"siit/{NAME}"):
        recipe("siit/most-frequnt", tmp_path)
