# pyright: reportAttributeAccessIssue=false
"""Matched features: a permuted copy is found unit by unit, unrelated networks stay at their controls."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from openwork import metrics
from openwork.errors import BadInput
from openwork.geometry.features import features, likeness
from openwork.geometry.samples import Places, Sampling
from openwork.geometry.shuffled import Blank
from openwork.geometry.transplant import Fits, Stage
from openwork.geometry.universality import Matching, match
from openwork.network import Network
from openwork.results.claims import Standard

from .made import HEADS, LAYERS, WIDTH, gpt2, permuted, rows

FAST = Matching(sampling=Sampling(tokens=8), standard=Standard(alpha=0.25), untrained=2)
ORDERS = [[2, 0, 3, 1], [1, 0, 3, 2], [3, 2, 1, 0]]


@cache
def units() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randperm(4 * WIDTH, generator=generator).tolist() for _ in range(LAYERS)]


@cache
def copy() -> Network:
    return permuted(gpt2(), ORDERS, units())


def read(net: Network, sites: str, n: int = 16) -> Any:
    return Places.of([net], rows(n), FAST.sampling).read(net, sites)


@cache
def heads() -> Any:
    return match(gpt2(), copy(), rows(48), method=FAST)


def test_permuted_heads_are_matched_exactly() -> None:
    found = [str(name) for name in heads().table["counterpart"].values]
    expected = [f"blocks.{b}.attn.z[{ORDERS[b].index(h)}]" for b in range(LAYERS) for h in range(HEADS)]
    assert found == expected
    np.testing.assert_allclose(heads().table["likeness"], 1, atol=1e-6)


def test_permuted_units_are_matched_exactly() -> None:
    found = match(gpt2(), copy(), rows(48), "blocks.1.mlp.hidden", method=FAST).table
    of = {int(str(n).split("[")[1][:-1]): int(str(m).split("[")[1][:-1])
          for n, m in zip(found["feature"].values, found["counterpart"].values, strict=True)}  # fmt: skip
    assert of == {i: units()[1].index(i) for i in range(4 * WIDTH)}


def test_directions_of_a_permuted_copy_are_matched_whatever_their_sign() -> None:
    method = Matching("directions", most=6, sampling=FAST.sampling, standard=FAST.standard, untrained=1)
    found = match(gpt2(), copy(), rows(48), "blocks.1.mlp.hidden", method=method).table
    np.testing.assert_allclose(found["likeness"], 1, atol=1e-3)


def test_counterparts_of_a_permuted_copy_carry_the_predictions() -> None:
    carried = heads().findings[1]
    assert str(carried.verdict) == "supported"
    assert carried.control is not None
    assert carried.control.exceeding == 0


def test_unrelated_networks_stay_at_their_controls() -> None:
    found = match(gpt2(0), gpt2(1), rows(48), method=FAST)
    rival = found.findings[0].rival
    assert rival is not None
    assert abs(rival.difference.estimate) < 0.1
    assert str(found.findings[0].verdict) != "supported"
    assert found.table.attrs["universal"] < len(found.table["feature"]) / 2


def test_likeness_of_units_is_their_correlation() -> None:
    a, b = (features(net, read(net, "blocks.0.mlp.hidden"), most=5) for net in (gpt2(0), gpt2(1)))
    values = [f.values[:, :, 0].numpy().T for f in (a, b)]
    np.testing.assert_allclose(likeness(a, b), np.corrcoef(values[0], values[1])[:5, 5:], atol=1e-9)


def test_likeness_of_heads_is_their_cka() -> None:
    a, b = (features(net, read(net, "blocks.*.attn.z")) for net in (gpt2(0), gpt2(1)))
    found = likeness(a, b)
    for i, j in ((0, 0), (3, 7), (11, 2)):
        expected = float(metrics.cka(a.values[:, i], b.values[:, j]))
        assert found[i, j] == pytest.approx(expected, abs=1e-8)


def test_a_feature_that_does_not_vary_is_like_nothing() -> None:
    a = features(gpt2(), read(gpt2(), "blocks.0.mlp.hidden"), most=4)
    a.values[:, 2] = 7.3
    assert (likeness(a, a)[2] == 0).all()
    assert a.alive.tolist() == [True, True, False, True]


def test_writing_a_feature_from_itself_changes_nothing() -> None:
    net = gpt2()
    places = Places.of([net, net], rows(16), FAST.sampling)
    own = features(net, places.read(net, "blocks.*.attn.z")).split(False)
    stage = Stage.of(net, net, places, Fits(own, own))
    pairs = [(i, i) for i in range(len(own))]
    # ridge regression of a feature on itself shrinks it by a thousandth
    assert stage.divergence(pairs).max() < 0.01 * stage.divergence(pairs, silent=True).mean()


def test_a_silent_head_carries_its_mean() -> None:
    net = gpt2()
    places = Places.of([net, net], rows(16), Sampling(tokens=8, skip=0))
    own = features(net, places.read(net, "blocks.1.attn.z")).split(False)
    stage = Stage.of(net, net, places, Fits(own, own))
    inputs = places.inputs(places.texts("held-out"))
    mean = own.values[:, 2].mean(0).float()

    def write(module: Any, args: Any) -> Any:
        value = args[0].clone()
        value[..., 2 * 8 : 3 * 8] = mean
        return (value, *args[1:])

    inner: Any = net.module
    handle = inner.transformer.h[1].attn.c_proj.register_forward_pre_hook(write)
    with torch.no_grad():
        edited = net.module(torch.tensor(inputs.ids)).logits
        handle.remove()
        clean = net.module(torch.tensor(inputs.ids)).logits
    expected = metrics.kl_divergence(clean, edited).mean(1).numpy()
    np.testing.assert_allclose(stage.divergence([(2, 0)], silent=True), expected, rtol=1e-3, atol=1e-6)


def test_shuffled_weights_keep_every_matrix_and_leave_the_network_alone() -> None:
    net = gpt2()
    before = {k: v.clone() for k, v in net.root.state_dict().items()}
    blank = Blank(net).shuffled(0)
    for (name, old), new in zip(net.root.named_parameters(), blank.root.parameters(), strict=True):
        assert torch.equal(old, before[name])
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
        assert torch.equal(old, new) == (old.ndim == 1)


def test_random_updates_are_as_long_as_the_real_ones() -> None:
    moved = Blank(gpt2(0)).moved(gpt2(1), 0)
    for a, b, c in zip(gpt2(0).root.parameters(), gpt2(1).root.parameters(), moved.root.parameters(), strict=True):
        assert float((c - a).norm().detach()) == pytest.approx(float((b - a).norm().detach()), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Matching("neurons"), "parts"),
        (lambda: Matching(quantile=1.0), "quantile"),
        (lambda: match(gpt2(), gpt2(), rows(8), "blocks.0.*.z|hidden", method=FAST), "parts are alike"),
        (lambda: match(gpt2(), gpt2(), rows(8), "blocks.0.attn.z", "blocks.0.mlp.hidden", FAST), "one kind"),
    ],
)
def test_what_cannot_be_matched_is_refused(call: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        call()
