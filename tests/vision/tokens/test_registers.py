# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false
"""Tokens of outlying norm, planted at one place."""

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.network.grid import Grid
from openwork.results.claims import Standard
from openwork.vision.tokens.registers import Registers, neighbourly, registers
from openwork.zoo.gazing import BLOCKS, FORMAT, SIDE, gazing, glances, vacant

LOOSE = Registers(standard=Standard(alpha=0.2))
"""Needs few controls."""


@pytest.fixture(scope="module")
def corpus():
    return glances(60, 7)


@pytest.fixture(scope="module")
def shown(net, corpus):
    return registers(net, corpus, LOOSE)


def test_it_is_found_where_it_was_planted(known, shown):
    outliers = shown.table["outliers"].values.reshape(BLOCKS, -1)
    assert (outliers[:, known.register] == 1).all()
    assert np.delete(outliers, known.register, 1).max() < 0.1


def test_what_it_carries_is_needed(shown):
    assert shown.findings[0].verdict == "supported"


def test_a_stray_outlier_in_an_earlier_block_is_no_register():
    known, net = gazing(2), ow.open(gazing(2).module, name="filled later", images=FORMAT)
    shown = registers(net, glances(150, 4), LOOSE, held_out=glances(60, 5))
    assert known.filled == 1
    assert f"behind block {known.filled} " in shown.findings[0].claim
    outliers = shown.table["outliers"].values
    assert outliers[1].max() == 1
    assert divmod(int(outliers[1].argmax()), SIDE) == divmod(known.register, SIDE)


def test_a_network_without_outliers_has_none(corpus):
    blank = ow.open(vacant(0), name="vacant", images=FORMAT)
    shown = registers(blank, corpus, Registers(deviations=40.0))
    assert not shown.findings
    assert any("no registers" in remark for remark in shown.remarks)


def test_the_effect_is_the_divergence_of_the_answers(known, net, corpus, shown):
    rows = sorted(np.random.default_rng(0).permutation(60)[30:].tolist())
    module, answers = net.module, []
    out = torch.from_numpy(_outlying(net, corpus, rows, shown))
    with torch.no_grad():
        for over in (False, True):
            state = module.vit.embeddings(net.images.encode(corpus.values[rows].float() / 255))
            for number, block in enumerate(module.vit.layers):
                state = block(state, None)
                state = state[0] if isinstance(state, tuple) else state
                if over and number == known.filled:
                    state = state.clone()
                    for image in range(len(rows)):
                        patches = state[image, 1:]
                        patches[out[image]] = patches[~out[image]].mean(0)
            answers.append(module.classifier(module.vit.layernorm(state)[:, 0]).double().log_softmax(-1))
    expected = (answers[0].exp() * (answers[0] - answers[1])).sum(-1).mean()
    assert shown.findings[0].estimate == pytest.approx(float(expected), rel=1e-3)


def test_only_some_images_may_have_one():
    # of a network with random weights, whose patches stand out here and there
    shown = registers(ow.open(vacant(1), name="vacant", images=FORMAT), glances(60, 3), LOOSE)
    assert 1 < shown.findings[0].n < 30


def _outlying(net, corpus, rows, shown):
    site = "blocks.0.resid_post"
    norms = net.run(net.images.encode(corpus.values[rows].float() / 255), keep=site)[site][:, 1:].norm(dim=-1)
    return (norms > float(shown.table["threshold"][0])).numpy()


def test_likeness_to_neighbours_by_loops():
    pixels = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    grid = Grid(2, 3, 1, (4.0, 4.0), (1.5, 1.5), (8.0, 12.0), (8, 12), True)
    found = neighbourly(pixels, grid)[0].reshape(2, 3)
    centred = pixels - pixels.mean()

    def patch(y, x):
        return centred[0, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten()

    for y in range(2):
        for x in range(3):
            beside = [(y + a, x + b) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))]
            near = [patch(*p) for p in beside if 0 <= p[0] < 2 and 0 <= p[1] < 3]
            cosines = [torch.cosine_similarity(patch(y, x), other, 0) for other in near]
            assert float(found[y, x]) == pytest.approx(float(torch.stack(cosines).mean()), abs=1e-5)


def test_networks_without_patch_tokens_are_refused():
    net = ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), images=ow.ImageFormat())
    with pytest.raises(BadInput, match="vision transformer"):
        registers(net, glances(8, 6))


@pytest.mark.parametrize("knobs", [{"deviations": 0.0}, {"rare": 1.0}, {"batch": 0}])
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(BadInput, match="expected"):
        Registers(**knobs)
