# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""The class token, followed through a network that must gather its answer from one patch."""

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.vision.tokens.class_token import ClassToken, class_token

from . import planted_vit as planted


@pytest.fixture(scope="module")
def shown():
    return class_token(planted.network(), planted.pictures(90, 8)[0])


def test_behind_the_last_block_it_is_read_as_the_network_reads_it(shown):
    assert float(shown.table["early"][-1]) == shown.table.attrs["accuracy"] > 0.95


def test_without_any_looks_the_class_is_gone(shown):
    assert float(shown.table["cut_from"][0]) > 0.5
    assert float(shown.table["cut_from"][0]) >= float(shown.table["cut_from"][1])


def test_the_block_where_it_gathers_is_supported(shown):
    assert shown.findings[0].verdict == "supported"
    best = int(shown.table["cut"].values.argmax())
    assert f"in block {best}" in shown.findings[0].claim


def test_a_cut_is_what_a_mask_of_the_softmax_does(shown):
    net, corpus = planted.network(), planted.pictures(90, 8)[0]
    rows = sorted(np.random.default_rng(0).permutation(90)[45:].tolist())
    images, labels = net.images.encode(corpus.values[rows].float() / 255), corpus.labels[rows]
    whole = net.run(images).logits.log_softmax(-1)
    lost = []
    for block in range(2):
        site = f"blocks.{block}.attn.scores"

        def masked(scores):
            scores = scores.clone()
            scores[:, :, 0, 1:] = -torch.inf
            return scores

        cut = net.run(images, edits=ow.Custom(site, fn=masked)).logits.log_softmax(-1)
        lost.append(float((whole - cut)[range(len(rows)), labels].mean()))
    assert shown.table["cut"].values == pytest.approx(lost, abs=1e-5)


def test_early_reading_by_hand(shown):
    net, corpus = planted.network(), planted.pictures(90, 8)[0]
    rows = sorted(np.random.default_rng(0).permutation(90)[45:].tolist())
    module = net.module
    with torch.no_grad():
        state = module.vit.embeddings(net.images.encode(corpus.values[rows].float() / 255))
        state = module.vit.layers[0](state, None)
        state = state[0] if isinstance(state, tuple) else state
        right = module.classifier(module.vit.layernorm(state)[:, 0]).argmax(-1) == corpus.labels[rows]
    assert float(shown.table["early"][0]) == pytest.approx(float(right.float().mean()))


def test_networks_without_a_class_token_are_refused():
    net = ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), images=ow.ImageFormat())
    with pytest.raises(BadInput, match="vision transformer"):
        class_token(net, planted.pictures(8, 6)[0])


def test_an_empty_batch_is_refused():
    with pytest.raises(BadInput, match="batch"):
        ClassToken(batch=0)
