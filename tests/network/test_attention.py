"""Heads: q, k, v, scores, pattern and z against attention worked out from the weights, head by head, in double."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.edit import Ablate, Custom, KnockOut, Scale, Set
from openwork.errors import BadInput
from openwork.network import Network
from openwork.site import Where

from .conftest import Opener
from .oracle import Counting, allowed, attend, forward, inner, places, rotated, watch
from .tiny import HEAD, HEADS, REGISTRY, example, token_ids

PARTS = ("q", "k", "v", "scores", "pattern", "z")
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
BLOCK = 1


def stem(kind: str) -> str:
    return "decoder.blocks.1.attn." if kind == "t5" else f"blocks.{BLOCK}.attn."


def kept(net: Network, kind: str, kwargs: dict[str, Tensor]) -> dict[str, Tensor]:
    run = net.run(kwargs, keep=[stem(kind) + part for part in PARTS])
    return {part: run[stem(kind) + part] for part in PARTS}


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, HEAD))


def linear(x: Tensor, module: Any) -> Tensor:
    bias = getattr(module, "bias", None)
    out = x @ module.weight.double().T
    return out if bias is None else out + bias.double()


def from_weights(net: Network, kind: str, kwargs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v from what the attention reads and the weights."""
    module: Any = net.module
    if kind == "attention-only":
        block = module.blocks[BLOCK].attn
        x = watch(module, kwargs, [(f"blocks.{BLOCK}.attn", "in")])[f"blocks.{BLOCK}.attn", "in"].double()
        placed = x + module.places.weight[: x.shape[1]].double()
        return heads(linear(placed, block.q)), heads(linear(placed, block.k)), heads(linear(x, block.v))
    place = places(kind, 3)[f"blocks.{BLOCK}.attn.in"]
    x = watch(module, kwargs, [place])[place].double()
    attention = module.get_submodule(place[0])
    if kind == "gpt2":
        q, k, v = (x @ attention.c_attn.weight.double() + attention.c_attn.bias.double()).chunk(3, -1)
        return heads(q), heads(k), heads(v)
    if kind == "bert":
        own = attention.self
        return heads(linear(x, own.query)), heads(linear(x, own.key)), heads(linear(x, own.value))
    q, k, v = (heads(linear(x, getattr(attention, name))) for name in ("q_proj", "k_proj", "v_proj"))
    return (q, k, v) if kind == "vit" else (rotated(q), rotated(k), v)


def settings(net: Network, kind: str, queries: int, keys: int) -> dict[str, Any]:
    """How this kind of network turns products of q and k into a pattern."""
    module: Any = net.module
    out: dict[str, Any] = {"mask": allowed(queries, keys), "scale": HEAD**-0.5}
    if kind in ("bert", "vit", "encoder"):
        out["mask"] = torch.ones(queries, keys, dtype=torch.bool)
    if kind == "granite":
        out["scale"] = 0.3
    if kind in ("mistral", "gemma2", "gpt-oss"):
        kinds = getattr(module.config, "layer_types", None) or ["sliding_attention"] * 3
        out["mask"] = allowed(queries, keys, 4 if kinds[BLOCK] == "sliding_attention" else None)
    if kind == "gemma2":
        out["softcap"] = 1.0
    if kind == "gpt-oss":
        out["sinks"] = module.model.layers[BLOCK].self_attn.sinks.detach()
    if kind == "bloom":
        slopes = [2.0 ** (-8.0 * (head + 1) / HEADS) for head in range(HEADS)]
        out["bias"] = torch.tensor([[[slope * key for key in range(keys)]] * queries for slope in slopes])
    if kind == "t5":
        first = module.decoder.block[0].layer[0].SelfAttention
        with torch.no_grad():
            out["bias"] = first.compute_bias(queries, keys)[0].double()
        out["scale"] = 1.0
    return out


def test_settings_tell_windows_apart(opened: Opener) -> None:
    """The masks above differ between the layers of a network that alternates."""
    assert inner(opened("gemma2").module, "").config.layer_types[:2] == ["sliding_attention", "full_attention"]
    assert inner(opened("gpt-oss").module, "").config.layer_types[:2] == ["sliding_attention", "full_attention"]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "gemma2", "bert", "vit", "attention-only"])
def test_q_k_and_v_are_those_of_the_weights(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, rows=2, length=7)
    got = kept(net, kind, kwargs)
    for part, expected in zip("qkv", from_weights(net, kind, kwargs), strict=True):
        torch.testing.assert_close(got[part].double(), expected, **CLOSE)
    if kind in ("llama", "mistral", "gemma2"):
        assert got["k"].shape[2] == got["v"].shape[2] == 2
        assert net.parts(stem(kind) + "k") == 2
        assert net.parts(stem(kind) + "q") == net.parts(stem(kind) + "pattern") == 4


ALL = ["gpt2", "llama", "granite", "gemma2", "mistral", "gpt-oss", "neox", "falcon", "bloom", "bert", "t5", "vit"]
ALL += ["attention-only", "encoder"]


@pytest.mark.parametrize("kind", ALL)
def test_scores_pattern_and_z_follow_from_q_k_and_v(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, rows=2, length=7)
    got = kept(net, kind, kwargs)
    rules = settings(net, kind, got["q"].shape[1], got["k"].shape[1])
    scores, pattern, z = attend(got["q"], got["k"], got["v"], **rules)
    seen = rules["mask"].expand_as(scores)
    off = got["scores"].double() - scores
    if kind == "gpt-oss":  # it takes the largest score of each row off before the softmax
        off = off - off.diagonal(dim1=2, dim2=3).unsqueeze(-1)
    assert float(off[seen].abs().max()) < 1e-4
    assert bool((got["scores"][~seen] < -1e4).all())
    torch.testing.assert_close(got["pattern"].double(), pattern, **CLOSE)
    assert bool((got["pattern"][~seen] == 0).all())
    torch.testing.assert_close(got["z"].double(), z, **CLOSE)
    sums = got["pattern"].sum(-1)
    if kind == "gpt-oss":
        assert bool((sums < 0.99).any())
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums), **CLOSE)


@pytest.mark.parametrize("block", [0, 2])
def test_sliding_and_full_layers_each_have_their_mask(opened: Opener, block: int) -> None:
    net = opened("gemma2")
    run = net.run(example("gemma2"), keep=f"blocks.{block}.attn.pattern")
    assert bool((run[f"blocks.{block}.attn.pattern"][:, :, 8, :5] == 0).all())
    run = net.run(example("gemma2"), keep="blocks.1.attn.pattern")
    assert bool((run["blocks.1.attn.pattern"][:, :, 8, :5] > 0).all())


def test_cross_attention_reads_the_encoder(opened: Opener) -> None:
    net, kwargs = opened("t5"), example("t5", rows=2, length=7)
    names = [f"decoder.blocks.1.cross.{part}" for part in PARTS]
    q, k, v, _, pattern, z = (net.run(kwargs, keep=names)[n] for n in names)
    _, expected, z_expected = attend(q, k, v, torch.ones(5, 7, dtype=torch.bool), 1.0)
    torch.testing.assert_close(pattern.double(), expected, **CLOSE)
    torch.testing.assert_close(z.double(), z_expected, **CLOSE)
    place = ("encoder", "out")
    memory = watch(net.module, kwargs, [place])[place].double()
    attention = inner(net.module, "decoder.block.1.layer.1.EncDecAttention")
    torch.testing.assert_close(v.double(), heads(linear(memory, attention.v)), **CLOSE)


# -- the tuned kernel --


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "bert", "vit", "attention-only"])
def test_reading_a_pattern_keeps_the_tuned_kernel(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind)
    with Counting() as bare, torch.no_grad():
        expected = net.module(**kwargs).logits
    name = "scaled_dot_product_attention"
    assert bare.calls[name] == net.n_blocks
    with Counting() as reading:
        run = net.run(kwargs, keep=["blocks.*.attn.pattern", "blocks.*.attn.scores", "blocks.*.attn.z"])
    assert reading.calls[name] == net.n_blocks
    assert reading.calls["softmax"] == net.n_blocks
    assert torch.equal(run.logits, expected)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "bert", "vit", "attention-only"])
def test_writing_a_pattern_sends_only_its_layer_through_eager(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind)
    with Counting() as writing:
        run = net.run(kwargs, edits=Scale("blocks.1.attn.pattern[0]", factor=1.0), keep="blocks.0.attn.z")
    assert writing.calls["scaled_dot_product_attention"] == net.n_blocks - 1
    assert writing.calls["softmax"] == 1
    plain = net.run(kwargs, keep="blocks.0.attn.z")
    torch.testing.assert_close(run.logits, plain.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(run["blocks.0.attn.z"], plain["blocks.0.attn.z"])


@pytest.mark.parametrize("kind", REGISTRY)
def test_the_attention_implementation_of_the_configuration_stays(opened: Opener, kind: str) -> None:
    net = opened(kind)
    before = inner(net.module, "").config._attn_implementation
    seen: list[str] = []

    def look(value: Tensor) -> Tensor:
        seen.append(inner(net.module, "").config._attn_implementation)
        return value

    net.run(example(kind), edits=Custom("blocks.1.attn.pattern", fn=look))
    assert {before, inner(net.module, "").config._attn_implementation, *seen} == {before}


# -- writing --


def with_z(net: Network, kind: str, kwargs: dict[str, Tensor], z: Tensor) -> Tensor:
    """The logits when the output projection of the block reads this z."""
    place = places(kind, net.n_blocks or 2)[stem(kind) + "z"]
    return forward(net.module, kwargs, {place: lambda value: z.float().reshape(value.shape)})


ROUTES = ["gpt2", "llama", "gemma2", "mistral", "gpt-oss", "neox", "falcon", "bloom", "bert", "vit", "attention-only"]
"""Every route: the registry with sdpa and with eager attention, plain sdpa, a softmax spelled out."""


@pytest.mark.parametrize("kind", ROUTES)
def test_a_written_pattern_is_what_mixes_the_values(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, rows=2, length=7)
    got = kept(net, kind, kwargs)
    rules = settings(net, kind, got["q"].shape[1], got["k"].shape[1])
    _, pattern, z = attend(got["q"], got["k"], got["v"], **rules)
    pattern[:, 2] = 0.125
    expected = z.clone()
    for row in range(2):
        for query in range(z.shape[1]):
            expected[row, query, 2] = pattern[row, 2, query] @ got["v"].double()[row, :, 2 * got["v"].shape[2] // HEADS]
    run = net.run(kwargs, edits=Set(stem(kind) + "pattern[2]", value=0.125), keep=stem(kind) + "z")
    torch.testing.assert_close(run[stem(kind) + "z"].double(), expected, **CLOSE)
    torch.testing.assert_close(run.logits, with_z(net, kind, kwargs, expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_written_q_k_and_v_are_what_attention_uses(opened: Opener, kind: str, part: str) -> None:
    net, kwargs = opened(kind), example(kind, rows=2, length=7)
    got = kept(net, kind, kwargs)
    rules = settings(net, kind, got["q"].shape[1], got["k"].shape[1])
    new = {p: got[p].clone() for p in "qkv"}
    new[part][:, 3, 0] *= -2.0
    _, _, z = attend(new["q"], new["k"], new["v"], **rules)
    edit = Scale(stem(kind) + part + "[0]", factor=-2.0, where=3)
    run = net.run(kwargs, edits=edit, keep=[stem(kind) + "z", stem(kind) + part])
    torch.testing.assert_close(run[stem(kind) + part], new[part], rtol=0, atol=0)
    torch.testing.assert_close(run[stem(kind) + "z"].double(), z, **CLOSE)
    torch.testing.assert_close(run.logits, with_z(net, kind, kwargs, z), rtol=1e-4, atol=1e-4)
    assert not torch.equal(run.logits, net.run(kwargs).logits)


@pytest.mark.parametrize("kind", [*ROUTES, "t5"])
@pytest.mark.parametrize("head", [None, 2])
def test_knocked_out_edges_weigh_nothing_and_the_rest_is_shared_anew(
    opened: Opener, kind: str, head: int | None
) -> None:
    net, kwargs = opened(kind), example(kind, rows=2, length=9)
    got = kept(net, kind, kwargs)
    queries = got["q"].shape[1]
    rules = settings(net, kind, queries, got["k"].shape[1])

    def cut(row: int, h: int, query: int, key: int) -> bool:
        return (head is None or h == head) and query in (5, queries - 1) and key in (3, 4)

    _, pattern, z = attend(got["q"], got["k"], got["v"], **rules, cut=cut)
    site = stem(kind).removesuffix(".") if head is None else stem(kind) + f"scores[{head}]"
    edit = KnockOut(site, where=(5, -1), keys=Where(positions=(3, 4)))
    run = net.run(kwargs, edits=edit, keep=[stem(kind) + "pattern", stem(kind) + "z"])
    new = run[stem(kind) + "pattern"]
    torch.testing.assert_close(new.double(), pattern, **CLOSE)
    torch.testing.assert_close(run[stem(kind) + "z"].double(), z, **CLOSE)
    hit = slice(None) if head is None else slice(head, head + 1)
    assert bool((new[:, hit, 5, 3:5] == 0).all())
    assert bool((new[:, hit, -1, 3:5] == 0).all())
    others = [q for q in range(queries) if q not in (5, queries - 1)]
    torch.testing.assert_close(new[:, :, others], got["pattern"][:, :, others], rtol=1e-5, atol=1e-6)
    if kind != "gpt-oss":
        torch.testing.assert_close(new.sum(-1), torch.ones_like(new.sum(-1)), **CLOSE)
    if kind != "t5":
        torch.testing.assert_close(run.logits, with_z(net, kind, kwargs, z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ROUTES)
def test_a_query_whose_every_key_is_cut_attends_to_nothing(opened: Opener, kind: str) -> None:
    net, kwargs = opened(kind), example(kind, rows=2, length=7)
    sites = [stem(kind) + "pattern", stem(kind) + "z"]
    plain = net.run(kwargs, keep=sites)
    run = net.run(kwargs, edits=KnockOut(stem(kind).removesuffix("."), where=4), keep=sites)
    assert bool((run[sites[0]][:, :, 4] == 0).all())
    assert bool((run[sites[1]][:, 4] == 0).all())
    assert bool(torch.isfinite(run.logits).all())
    torch.testing.assert_close(run[sites[0]][:, :, :4], plain[sites[0]][:, :, :4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run.logits, with_z(net, kind, kwargs, run[sites[1]]), rtol=1e-4, atol=1e-4)


def test_every_key_but_one_cut_leaves_that_one(gpt2: Network) -> None:
    edit = KnockOut("blocks.1.attn", where=6, keys=Where(positions=(0, 1, 3, 4, 5, 6)))
    pattern = gpt2.run(token_ids(), edits=edit, keep="blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    expected = torch.zeros(3, 4, 9)
    expected[:, :, 2] = 1
    torch.testing.assert_close(pattern[:, :, 6], expected)


def test_knock_outs_at_one_site_add_up_and_hold_for_their_rows_only(gpt2: Network) -> None:
    edits = [
        KnockOut("blocks.1.attn", where=Where(positions=(6,), rows=(0,)), keys=2),
        KnockOut("blocks.1.attn", where=Where(positions=(6,), rows=(2,)), keys=3),
        KnockOut("blocks.1.attn", where=6, keys=4),
    ]
    pattern = gpt2.run(token_ids(), edits=edits, keep="blocks.1.attn.pattern")["blocks.1.attn.pattern"][:, 0, 6, 2:5]
    assert (pattern == 0).tolist() == [[True, False, True], [False, False, True], [False, True, True]]


def test_where_of_the_keys_may_differ_between_rows(gpt2: Network) -> None:
    from openwork.task import Inputs, as_rows

    inputs = Inputs(as_rows(token_ids()), {"name": ((1, 2), (4,), (0, 5))})
    edit = KnockOut("blocks.1.attn", where="last", keys=Where(group="name"))
    pattern = gpt2.run(inputs, edits=edit, keep="blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    for row, cut in enumerate([(1, 2), (4,), (0, 5)]):
        assert [k for k in range(9) if bool((pattern[row, :, 8, k] == 0).all())] == list(cut)
        assert not bool((pattern[row, :, 7, :8] == 0).any())


def test_an_ablated_head_is_the_same_at_z_pattern_and_value(gpt2: Network) -> None:
    ids = token_ids()
    by_z = gpt2.run(ids, edits=Ablate("blocks.1.attn.z[2]")).logits
    by_pattern = gpt2.run(ids, edits=Ablate("blocks.1.attn.pattern[2]")).logits
    by_value = gpt2.run(ids, edits=Ablate("blocks.1.attn.v[2]")).logits
    by_scores = gpt2.run(ids, edits=KnockOut("blocks.1.attn.scores[2]")).logits
    for other in (by_pattern, by_value, by_scores):
        torch.testing.assert_close(other, by_z, rtol=1e-5, atol=1e-5)


def test_a_head_that_does_not_exist(gpt2: Network) -> None:
    with pytest.raises(BadInput, match=r"below 4 .*got \[4\]"):
        gpt2.run(token_ids(), keep="blocks.1.attn.z[4]")
    with pytest.raises(BadInput, match=r"got \[9\]"):
        gpt2.run(token_ids(), edits=Ablate("blocks.*.attn.z[0,9]"))


def test_key_groups_are_counted_as_groups(llama: Network) -> None:
    with pytest.raises(BadInput, match="below 2"):
        llama.run(token_ids(), edits=Ablate("blocks.1.attn.k[2]"))
