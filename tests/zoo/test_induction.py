"""The planted induction circuit against equations head by head, and edge by edge with hooks placed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from openwork.errors import BadInput
from openwork.network import open as open_network
from openwork.site import Edge, Site
from openwork.zoo import Induction, Plant, induction_task
from openwork.zoo.handmade import SPACE


def difference(network: Induction, task, rows: str = "clean", sub=None) -> Tensor:
    """The logit difference at the last token, with some linear maps' outputs replaced by `sub`: name -> value."""
    handles = []
    for name, value in (sub or {}).items():
        handles.append(network.get_submodule(name).register_forward_hook(lambda m, i, o, value=value: value))
    with torch.no_grad():
        logits = network(torch.tensor(getattr(task, rows).ids))[:, -1]
    for handle in handles:
        handle.remove()
    right, wrong = torch.tensor(task.answer), torch.tensor(task.wrong)
    return logits.gather(1, right[:, None])[:, 0] - logits.gather(1, wrong[:, None])[:, 0]


def outputs(network: Induction, ids) -> dict[str, Tensor]:
    """The output of every module on some rows."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: found.__setitem__(name, o))
        for name, module in network.named_modules()
        if name
    ]
    with torch.no_grad():
        network(torch.tensor(ids))
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture(scope="module")
def network() -> Induction:
    return Induction().eval()


@pytest.fixture(scope="module")
def task():
    return induction_task()


def test_logits_are_those_of_the_equations(network):
    row = torch.tensor([3, 1, 4, 1, 5, 9])
    with torch.no_grad():
        x = network.tokens.weight[row] + network.places.weight[: len(row)]
        for number in range(2):
            attn, added = network.block(number).attn, torch.zeros_like(x)
            for head in range(12):
                part = slice(head * SPACE, (head + 1) * SPACE)
                q, k, v = (x @ f.weight[part].T for f in (attn.q, attn.k, attn.v))
                for here in range(len(row)):
                    weights = torch.softmax(k[: here + 1] @ q[here] / SPACE**0.5, dim=0)
                    added[here] += attn.o.weight[:, part] @ (weights @ v[: here + 1])
            x = x + added
        torch.testing.assert_close(network(row[None])[0], x @ network.unembed.weight.T, rtol=1e-4, atol=1e-4)


def test_it_predicts_the_copied_token(network, task):
    with torch.no_grad():
        clean, corrupted = (network(torch.tensor(x.ids))[:, -1].argmax(-1) for x in (task.clean, task.corrupted))
    assert (clean == torch.tensor(task.answer)).float().mean() > 0.95
    assert (corrupted == torch.tensor(task.wrong)).float().mean() > 0.95


def test_copy_without_it_has_equal_noise_and_no_behaviour(network, task):
    bare = Induction(planted=False).eval()
    assert not bare.known.roles
    assert not bare.known.edges
    for number, head in ((0, 2), (1, 7)):
        one, two = network.block(number).attn, bare.block(number).attn
        others = [i for h in range(12) for i in range(h * SPACE, (h + 1) * SPACE) if h != head]
        for part in "qkv":
            assert torch.equal(getattr(one, part).weight[others], getattr(two, part).weight[others])
        assert torch.equal(one.o.weight[:, others], two.o.weight[:, others])
        assert two.o.weight[:, head * SPACE : (head + 1) * SPACE].norm() > 0
    assert difference(bare, task).mean().abs() < 0.5
    assert difference(network, task).mean() > 10


@pytest.mark.parametrize("site", [Site("blocks.0.attn.z", (2,)), Site("blocks.1.attn.z", (7,))])
def test_without_a_planted_head_the_behaviour_goes(network, task, site):
    part = slice(site.index[0] * SPACE, (site.index[0] + 1) * SPACE)

    def cut(module, given):
        new = given[0].clone()
        new[..., part] = 0
        return (new,)

    handle = network.get_submodule(f"blocks.{site.block}.attn.o").register_forward_pre_hook(cut)
    assert difference(network, task).mean() < 1.5
    handle.remove()
    assert set(network.known.sites) == {Site("blocks.0.attn.z", (2,)), Site("blocks.1.attn.z", (7,))}


def through(network: Induction, task, receiver: Site) -> float:
    """The share of the behaviour carried by what one part of one head reads, patched from corrupted to clean."""
    name = f"blocks.{receiver.block}.attn.{receiver.path[-1]}"
    clean, corrupted = (outputs(network, rows.ids)[name] for rows in (task.clean, task.corrupted))
    part = slice(receiver.index[0] * SPACE, (receiver.index[0] + 1) * SPACE)
    mixed = clean.clone()
    mixed[..., part] = corrupted[..., part]
    whole = difference(network, task).mean() - difference(network, task, "corrupted").mean()
    return float((difference(network, task).mean() - difference(network, task, sub={name: mixed}).mean()) / whole)


def test_only_the_value_of_the_induction_head_carries_what_the_pair_differs_in(network, task):
    assert through(network, task, Site("blocks.1.attn.v", (7,))) > 0.95
    for part in "qkv":
        for block, head in ((0, 2), (0, 3), (1, 6)):
            assert abs(through(network, task, Site(f"blocks.{block}.attn.{part}", (head,)))) < 0.05
    assert Edge(Site("embed"), Site("blocks.1.attn.v", (7,))) in network.known.edges


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_previous_token_head_is_read_by_keys_of_the_induction_head_alone(network, task, part):
    clean = outputs(network, task.clean.ids)
    rows = slice(7 * SPACE, 8 * SPACE)
    o = network.block(0).attn.o.weight
    with torch.no_grad():
        x = network.tokens(torch.tensor(task.clean.ids)) + network.places.weight[: len(task.clean.ids[0])]
        attn = network.block(0).attn
        q, k, v = (f(x)[..., 2 * SPACE : 3 * SPACE][:, None] for f in (attn.q, attn.k, attn.v))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        linear = getattr(network.block(1).attn, part)
        changed = clean[f"blocks.1.attn.{part}"].clone()
        changed[..., rows] -= z @ o[:, 2 * SPACE : 3 * SPACE].T @ linear.weight[rows].T
    after = difference(network, task, sub={f"blocks.1.attn.{part}": changed}).mean()
    known = Edge(Site("blocks.0.attn.z", (2,)), Site(f"blocks.1.attn.{part}", (7,))) in network.known.edges
    assert known == (part == "k")
    assert after < 1.5 if known else after > 11


def test_heads_look_where_it_is_known_that_they_look(network, task):
    net = open_network(network)
    sites = sorted({look.site.path for look in network.known.looks})
    run = net.run(task.clean, keep=sites)
    assert len(sites) == 2
    for look in network.known.looks:
        query, key = (torch.tensor(task.clean.groups[name])[:, 0] for name in (look.query, look.key))
        pattern = run[look.site.path][:, look.site.index[0]]
        assert pattern[torch.arange(len(task)), query, key].mean() > 0.9


def test_rows_differ_at_the_copied_token_alone(task):
    for row, (clean, corrupted) in enumerate(zip(task.clean.ids, task.corrupted.ids, strict=True)):
        previous, copied, last = (task.clean.groups[g][row][0] for g in ("previous", "copied", "last"))
        assert [i for i in range(len(clean)) if clean[i] != corrupted[i]] == [copied]
        assert (clean[previous], clean[copied]) == (clean[last], task.answer[row])
        assert corrupted[copied] == task.wrong[row]
        assert task.wrong[row] not in clean
        assert last == len(clean) - 1


def test_pairs_come_from_few_tokens_that_stand_nowhere_else():
    task = induction_task(pairs=4)
    for row, ids in enumerate(task.clean.ids):  # type: ignore[union-attr]
        previous, copied, last = (task.clean.groups[g][row][0] for g in ("previous", "copied", "last"))
        assert {p for p in range(len(ids)) if ids[p] < 8} == {previous, copied, last}
        assert ids[previous] == ids[last] < 4 <= ids[copied] == task.answer[row]
        assert 4 <= task.wrong[row] < 8
    assert set(task.answer) == set(task.wrong) == {4, 5, 6, 7}


def test_several_heads_share_the_work_and_are_all_known():
    network = Induction(plant=Plant((0, 1), (3, 4, 5), heads=6, uneven=0.5, mlp=16)).eval()
    assert len(network.known.sites) == 5
    assert len(network.known.edges) == 2 * 3 + 2 * 3 + 3 * 2 + 3
    assert difference(network, induction_task()).mean() > 8


def test_weights_follow_the_seed_and_not_the_global_generator():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = Induction()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first.blocks[0].attn.q.weight, Induction().blocks[0].attn.q.weight)  # type: ignore[union-attr]
    assert not torch.equal(first.tokens.weight, Induction(seed=1).tokens.weight)


@pytest.mark.parametrize("bad", [{"before": ()}, {"induction": (12,)}, {"before": (-1,)}])
def test_heads_that_do_not_exist_are_refused(bad):
    with pytest.raises(BadInput, match="heads below 12"):
        Plant(**bad)


@pytest.mark.parametrize("bad", [{"span": 48}, {"span": 4}, {"repeated": 1}, {"pairs": 1}, {"pairs": 18}])
def test_spans_that_do_not_fit_are_refused(bad):
    with pytest.raises(BadInput, match="repeated < span < vocabulary"):
        induction_task(**bad)
