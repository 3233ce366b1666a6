# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""The class token, followed through a network that gathers its answer in one known block."""

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.results.claims import Standard
from openwork.vision.tokens.class_token import ClassToken, class_token
from openwork.zoo.gazing import BLOCKS, FORMAT, gazing, glances, vacant
from openwork.zoo.sighted import scrambled

KNOWN = gazing(1)
LOOSE = ClassToken(standard=Standard(alpha=0.2))
"""Needs few controls."""


@pytest.fixture(scope="module")
def net():
    return ow.open(KNOWN.module, name="gaze", images=FORMAT)


@pytest.fixture(scope="module")
def corpus():
    return glances(60, 8)


@pytest.fixture(scope="module")
def rows():
    return sorted(np.random.default_rng(0).permutation(60)[30:].tolist())


@pytest.fixture(scope="module")
def shown(net, corpus):
    return class_token(net, corpus, LOOSE)


def test_behind_the_last_block_it_is_read_as_the_network_reads_it(shown):
    assert float(shown.table["early"][-1]) == shown.table.attrs["accuracy"] > 0.95


def test_without_any_looks_the_class_is_gone(shown):
    cut_from = shown.table["cut_from"].values
    assert cut_from[0] > 0.5
    assert cut_from[KNOWN.gathers] > 0.5 > cut_from[KNOWN.gathers + 1]


def test_the_block_where_it_gathers_is_supported(shown):
    assert shown.findings[0].verdict == "supported"
    assert f"in block {KNOWN.gathers}" in shown.findings[0].claim


def test_where_no_class_is_known_none_is_gathered():
    corpora = [scrambled(glances(60, seed), seed) for seed in (0, 1)]
    blank = ow.open(vacant(0), name="vacant", images=FORMAT)
    # without looks this network is surer of any answer, and so loses where it is wrong
    found = class_token(blank, corpora[0], LOOSE, held_out=corpora[1]).findings[0]
    assert found.verdict != "supported"
    assert found.interval.low < 0.1


def test_a_cut_is_what_a_mask_of_the_softmax_does(net, corpus, rows, shown):
    images, labels = net.images.encode(corpus.values[rows].float() / 255), corpus.labels[rows]
    whole = net.run(images).logits.log_softmax(-1)
    lost = []
    for block in range(BLOCKS):
        site = f"blocks.{block}.attn.scores"

        def masked(scores):
            scores = scores.clone()
            scores[:, :, 0, 1:] = -torch.inf
            return scores

        gone = whole - net.run(images, edits=ow.Custom(site, fn=masked)).logits.log_softmax(-1)
        own = [float(gone[i, labels[i]] - gone[i, labels].mean()) for i in range(len(rows))]
        lost.append(np.mean(own))
    assert shown.table["cut"].values == pytest.approx(lost, abs=1e-5)


def test_early_reading_by_hand(net, corpus, rows, shown):
    module = net.module
    with torch.no_grad():
        state = module.vit.embeddings(net.images.encode(corpus.values[rows].float() / 255))
        for block in range(BLOCKS):
            state = module.vit.layers[block](state, None)
            state = state[0] if isinstance(state, tuple) else state
            right = module.classifier(module.vit.layernorm(state)[:, 0]).argmax(-1) == corpus.labels[rows]
            assert float(shown.table["early"][block]) == pytest.approx(float(right.float().mean()))


def test_networks_without_a_class_token_are_refused():
    net = ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), images=ow.ImageFormat())
    with pytest.raises(BadInput, match="vision transformer"):
        class_token(net, glances(8, 6))


def test_an_empty_batch_is_refused():
    with pytest.raises(BadInput, match="batch"):
        ClassToken(batch=0)
