"""Composition scores against matrices written out, edges against hooks, and the circuit of planted induction."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import openwork
from openwork import network, zoo
from openwork.errors import BadInput
from openwork.finding import Verdict
from openwork.network import Network
from openwork.results.claims import Standard
from openwork.task import LOGIT_DIFFERENCE, Task
from openwork.weights.composition import KINDS, Composition, compose, composition_scores, ranked
from openwork.weights.heads import Heads
from openwork.weights.removal import Edge, Removal

from ..network.tiny import HEAD, build, token_ids

FAST = Composition(draws=30, edges=6, claims=1, standard=Standard(alpha=0.2))


@cache
def gpt2() -> tuple[Network, Heads]:
    net = network.open(build("gpt2"), name="gpt2")
    return net, Heads.of(net)


def random_task() -> Task:
    return Task.from_tokens(token_ids(8, 7), token_ids(8, 7, seed=1), [5] * 8, [9] * 8, held_out=range(4, 8))


def whole(circuit: Any) -> torch.Tensor:
    return (circuit.left @ circuit.right).double()


def test_scores_are_norms_of_products_of_whole_matrices() -> None:
    heads = gpt2()[1]
    scores = composition_scores(heads, draws=2)
    for a, b in ((0, 4), (2, 11), (5, 8)):
        first, second = heads.places[a], heads.places[b]
        ov, qk, later = whole(heads.ov(*first)), whole(heads.qk(*second)), whole(heads.ov(*second))
        for kind, product, other in (("q", ov @ qk, qk), ("k", ov @ qk.T, qk), ("v", ov @ later, later)):
            expected = float(product.norm() / ov.norm() / other.norm())
            assert scores.score[KINDS.index(kind), a, b] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(scores.score[:, 4, 0]).all()
    assert np.isnan(scores.score[:, 0, 1]).all()


def test_a_rotated_stream_has_the_same_scores() -> None:
    names = ("compiled/induction", "compiled/induction+rotated")
    plain, rotated = (composition_scores(Heads.of(zoo.open(name).net), draws=2).score for name in names)
    np.testing.assert_array_equal(np.isnan(plain), np.isnan(rotated))
    np.testing.assert_allclose(plain, rotated, atol=1e-4)


def test_the_baseline_is_that_of_whole_random_matrices_of_the_same_spectrum() -> None:
    heads = gpt2()[1]
    scores = composition_scores(heads, draws=400)
    a, b = whole(heads.ov(0, 0)), whole(heads.qk(1, 0))
    generator = torch.Generator().manual_seed(3)
    draws = []
    for _ in range(200):
        turn = torch.linalg.qr(torch.randn(len(a), len(a), generator=generator, dtype=torch.float64))[0]
        draws.append(float((a @ turn @ b).norm() / a.norm() / b.norm()))
    assert scores.baseline[0, 0, 4] == pytest.approx(np.mean(draws), rel=0.02)
    assert scores.spread[0, 0, 4] == pytest.approx(np.std(draws), rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edge_is_taken_away_as_hooks_placed_by_hand_do(kind: str) -> None:
    """Keys (queries, values) of head 2 of block 1 read the stream without what head 1 of block 0 adds."""
    heads = gpt2()[1]
    batch = random_task().split("find")
    removal = Removal.of(heads, batch, LOGIT_DIFFERENCE)
    lost, _ = removal.measure([Edge(kind, 1, 6)])
    module: Any = build("gpt2")
    first, second = (module.transformer.h[i] for i in (0, 1))
    seen: dict[str, torch.Tensor] = {}
    first.attn.c_proj.register_forward_pre_hook(lambda m, args: seen.update(z=args[0].detach()))
    second.ln_1.register_forward_pre_hook(lambda m, args: seen.update(x=args[0].detach()))
    ids = torch.tensor(batch.clean.ids)

    def differences() -> torch.Tensor:
        logits = module(ids).logits[range(4), list(batch.at)]
        return logits[range(4), list(batch.answer)] - logits[range(4), list(batch.wrong)]

    with torch.no_grad():
        plain = differences()
        kept = torch.zeros_like(seen["z"])
        kept[..., HEAD : 2 * HEAD] = seen["z"][..., HEAD : 2 * HEAD]
        added = kept @ first.attn.c_proj.weight
        x, norm = seen["x"], second.ln_1
        scale = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        moved = x - added
        read = (moved - moved.mean(-1, keepdim=True)) / scale * norm.weight + norm.bias
        changed = second.attn.c_attn(read)
        start = "qkv".index(kind) * 32 + 2 * HEAD
        columns = slice(start, start + HEAD)

        def write(m: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            out = output.clone()
            out[..., columns] = changed[..., columns]
            return out

        second.attn.c_attn.register_forward_hook(write)
        expected = (plain - differences()).numpy()
    np.testing.assert_allclose(lost[0], expected, atol=1e-5)


@cache
def planted() -> Any:
    member = zoo.open("planted/induction")
    return member, compose(member.net, member.task(48), FAST)


def test_the_highest_score_is_the_planted_edge() -> None:
    member, found = planted()
    before, induction = (member.known.site(role) for role in ("previous token", "induction"))
    key = str(induction).replace(".z[", ".k[")
    assert found.table["edge"].to_numpy()[0] == f"{before} -> {key}"


def test_the_planted_edge_is_claimed_and_foretold() -> None:
    found = planted()[1]
    assert [f.verdict for f in found.findings if "needs what" in f.claim] == [Verdict.SUPPORTED]
    effects = found.table["effect"].to_numpy()
    assert effects[0] > 20 * np.abs(effects[1:]).max()


def test_the_previous_token_head_of_py_attn2_is_what_its_induction_heads_read() -> None:
    heads = Heads.of(zoo_network())
    best = ranked(composition_scores(heads, draws=30))[:3]
    assert {e.kind for e in best} == {"k"}
    assert {heads.names[e.earlier] for e in best} == {"blocks.0.attn.z[5]"}
    assert {heads.names[e.later] for e in best} == {f"blocks.1.attn.z[{i}]" for i in (0, 1, 3)}


@cache
def zoo_network() -> Network:
    return openwork.open("py-attn2")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Composition(draws=1), "two draws"),
        (lambda: compose(_one_layer(), random_task()), "two attention layers"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()


def _one_layer() -> Network:
    from openwork.zoo.attention_only import AttentionOnly, AttentionOnlyConfig

    config = AttentionOnlyConfig(vocabulary=60, width=16, heads=2, layers=1, context=16)
    return network.open(AttentionOnly(config).eval(), name="one layer")
