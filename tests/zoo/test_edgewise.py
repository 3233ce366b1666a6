"""The edge-by-edge forward against a recursion over its definition, and against patching with hooks."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.errors import BadInput, UnknownName
from openwork.site import Edge, Site
from openwork.zoo import edgewise
from openwork.zoo.transformer import Transformer, TransformerConfig

SHAPES = {
    "norm, causal": {"norm": "layer", "activation": "gelu", "heads": (2, 3), "mlp": (5, 7)},
    "no norm, not causal": {"norm": "none", "causal": False, "heads": (2, 2), "mlp": (5, 5)},
    "missing sub-layers": {"norm": "layer", "heads": (2, 0, 1), "mlp": (0, 6, 0)},
}


@pytest.fixture(params=SHAPES)
def network(request) -> Transformer:
    return made(**SHAPES[request.param])


def made(**shape: Any) -> Any:
    network = Transformer(TransformerConfig(vocabulary=11, context=6, width=8, head_width=4, **shape)).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        # norms and biases too, so that a term forgotten anywhere shows
        for parameter in network.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.double))
    return network


def rows(seed: int, count: int = 3) -> Tensor:
    return torch.randint(0, 11, (count, 5), generator=torch.Generator().manual_seed(seed))


def some_edges(network: Transformer, seed: int, share: float = 0.6) -> Tensor:
    wrote, reads = edgewise.senders(network), edgewise.receivers(network)
    return torch.rand(len(reads), len(wrote), generator=torch.Generator().manual_seed(seed)) < share


def recursive(network: Any, ids: Tensor, other: Tensor, kept: set[Edge]) -> Tensor:
    """Logits by the definition: a kept edge carries the edited value, any other what hooks read in the plain run."""

    @cache
    def carried(sender: Site, receiver: Site) -> Tensor:
        return edited(sender) if Edge(sender, receiver) in kept else written(network, other, sender)

    def read(receiver: Site) -> Tensor:
        end = network.config.layers if receiver.block is None else receiver.block
        after = receiver.kind == "mlp.in"
        total = torch.zeros(len(ids), 5, 8)
        for layer in range(end + after):
            if network.config.heads[layer]:
                total = total + network.blocks[layer].attn.o.bias
        for sender in edgewise.senders(network):
            earlier = sender.block is None or sender.block < end
            if earlier or (after and sender.block == end and sender.kind == "attn.z"):
                total = total + carried(sender, receiver)
        return total

    @cache
    def edited(sender: Site) -> Tensor:
        if sender.block is None:
            return network.tokens(ids) + network.places.weight[:5]
        block = network.blocks[sender.block]
        if sender.kind == "mlp.out":
            return block.mlp(block.norm2(read(Site(f"blocks.{sender.block}.mlp.in"))))
        (head,) = sender.index
        part = slice(4 * head, 4 * head + 4)
        q, k, v = (
            getattr(block.attn, name)(block.norm1(read(Site(f"blocks.{sender.block}.attn.{name}", (head,)))))[..., part]
            for name in "qkv"
        )
        scores = q @ k.transpose(1, 2) / math.sqrt(4)
        if network.config.causal:
            scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        return scores.softmax(-1) @ v @ block.attn.o.weight[:, part].T

    return network.unembed(network.final_norm(read(Site("logits"))))


def written(network: Any, ids: Tensor, sender: Site) -> Tensor:
    """What a sender writes in a plain run, read with hooks."""
    kept: dict[str, Tensor] = {}
    if sender.block is None:
        return network.tokens(ids) + network.places.weight[:5]
    block = network.blocks[sender.block]
    module = block.mlp if sender.kind == "mlp.out" else block.attn.o
    handle = module.register_forward_hook(lambda m, i, o: kept.update(input=i[0], output=o))
    network(ids)
    handle.remove()
    if sender.kind == "mlp.out":
        return kept["output"]
    part = slice(4 * sender.index[0], 4 * sender.index[0] + 4)
    return kept["input"][..., part] @ block.attn.o.weight[:, part].T


def test_all_edges_kept_is_the_plain_forward(network):
    ids, other = rows(0), edgewise.run(network, rows(1)).contributions
    with torch.no_grad():
        plain = network(ids).logits
        traced = edgewise.run(network, ids, edgewise.mask_of(network, edgewise.edges(network)), other)
        torch.testing.assert_close(traced.logits, plain)
        torch.testing.assert_close(edgewise.run(network, ids).logits, plain)


def test_no_edge_kept_is_the_plain_forward_of_the_others(network):
    with torch.no_grad():
        other = edgewise.run(network, rows(1)).contributions
        logits = edgewise.run(network, rows(0), edgewise.mask_of(network, []), other).logits
        torch.testing.assert_close(logits, network(rows(1)).logits)


def test_contributions_are_those_read_with_hooks(network):
    with torch.no_grad():
        traced = edgewise.run(network, rows(0))
        for sender, found in zip(edgewise.senders(network), traced.contributions, strict=True):
            torch.testing.assert_close(found, written(network, rows(0), sender))


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_any_set_of_edges_agrees_with_the_recursion(network, seed):
    keep = some_edges(network, seed)
    wrote, reads = edgewise.senders(network), edgewise.receivers(network)
    kept = {Edge(wrote[s], reads[r]) for r, s in keep.nonzero().tolist()}
    with torch.no_grad():
        other = edgewise.run(network, rows(1)).contributions
        fast = edgewise.run(network, rows(0), keep, other).logits
        torch.testing.assert_close(fast, recursive(network, rows(0), rows(1), kept))
        assert not torch.allclose(fast, network(rows(0)).logits)


def test_sets_of_edges_by_example_are_those_sets_one_by_one(network):
    keep = torch.stack([some_edges(network, seed) for seed in range(3)])
    with torch.no_grad():
        other = edgewise.run(network, rows(1)).contributions
        together = edgewise.run(network, rows(0), keep, other).logits
        for i in range(3):
            alone = edgewise.run(network, rows(0)[i : i + 1], keep[i], other[:, i : i + 1]).logits
            torch.testing.assert_close(together[i : i + 1], alone)


def test_what_no_edit_reaches_need_not_be_computed_again(network):
    with torch.no_grad():
        other, unedited = (edgewise.run(network, rows(seed)).contributions for seed in (1, 0))
        for edge in edgewise.edges(network):
            keep = ~edgewise.mask_of(network, [edge])
            whole = edgewise.run(network, rows(0), keep, other)
            resumed = edgewise.run(network, rows(0), keep, other, unedited)
            torch.testing.assert_close(resumed.logits, whole.logits)
            torch.testing.assert_close(resumed.contributions, whole.contributions)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_one_edge_resampled_is_path_patching_with_hooks(part):
    network = made(**SHAPES["norm, causal"])
    sender, receiver = Site("blocks.0.attn.z", (1,)), Site(f"blocks.1.attn.{part}", (2,))
    block = network.blocks[1]
    with torch.no_grad():
        step = written(network, rows(1), sender) - written(network, rows(0), sender)
        seen: list[Tensor] = []
        watch = block.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        before = network(rows(0)).logits
        watch.remove()
        patched = getattr(block.attn, part)(block.norm1(seen[0] + step))[..., 8:12]

        def replace(module: Any, args: Any, out: Tensor) -> Tensor:
            return torch.cat((out[..., :8], patched), -1)

        handle = getattr(block.attn, part).register_forward_hook(replace)
        by_hand = network(rows(0)).logits
        handle.remove()
        keep = edgewise.mask_of(network, [e for e in edgewise.edges(network) if e != Edge(sender, receiver)])
        logits = edgewise.run(network, rows(0), keep, edgewise.run(network, rows(1)).contributions).logits
    torch.testing.assert_close(logits, by_hand)
    assert not torch.allclose(by_hand, before)


def test_gradients_reach_every_weight_and_agree_with_finite_differences():
    network = made(**SHAPES["norm, causal"])
    keep, other_ids = some_edges(network, 5), rows(1)

    def loss() -> Tensor:
        other = edgewise.run(network, other_ids).contributions
        return edgewise.run(network, rows(0), keep, other).logits.sin().sum()

    loss().backward()
    for name in ("blocks.0.attn.k.weight", "blocks.1.mlp.up.weight", "blocks.1.norm1.bias", "unembed.weight"):
        weight = network.get_parameter(name)
        assert weight.grad is not None
        at = (0,) * weight.ndim
        with torch.no_grad():
            weight[at] += 1e-6
            above = loss()
            weight[at] -= 2e-6
            below = loss()
            weight[at] += 1e-6
        assert float(weight.grad[at]) == pytest.approx(float(above - below) / 2e-6, rel=1e-4, abs=1e-6)
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0) for n, p in network.named_parameters() if "k.b" not in n
    )


def test_edges_run_from_earlier_senders_only_and_are_named_as_sites():
    network = made(**SHAPES["missing sub-layers"])
    found = [str(edge) for edge in edgewise.edges(network)]
    assert found[0] == "embed -> blocks.0.attn.q[0]"
    assert "blocks.0.attn.z[1] -> blocks.1.mlp.in" in found
    assert found[-5:] == [
        "embed -> logits",
        *(f"{s} -> logits" for s in ("blocks.0.attn.z[0]", "blocks.0.attn.z[1]", "blocks.1.mlp.out")),
        "blocks.2.attn.z[0] -> logits",
    ]
    # 6 inputs of heads read 1, the MLP 3, 3 inputs of a head 4, the logits 5
    assert len(found) == len(set(found)) == 6 + 3 + 12 + 5


def test_an_edge_that_does_not_exist_is_an_error():
    network = made(**SHAPES["norm, causal"])
    backwards = Edge(Site("blocks.1.mlp.out"), Site("blocks.0.mlp.in"))
    with pytest.raises(UnknownName, match=r"no edge named 'blocks.1.mlp.out -> blocks.0.mlp.in'"):
        edgewise.mask_of(network, [backwards])


def test_inputs_that_do_not_fit_are_errors():
    network = made(**SHAPES["norm, causal"])
    other, keep = edgewise.run(network, rows(1)).contributions, some_edges(network, 0)
    with pytest.raises(BadInput, match="keep and other together"):
        edgewise.run(network, rows(0), keep)
    with pytest.raises(BadInput, match="receivers by senders"):
        edgewise.run(network, rows(0), keep[1:], other)
    with pytest.raises(BadInput, match="contributions of shape"):
        edgewise.run(network, rows(0), keep, other[..., :4])
    with pytest.raises(BadInput, match="at most 6 tokens, got 7"):
        edgewise.run(network, torch.zeros(1, 7, dtype=torch.long))
