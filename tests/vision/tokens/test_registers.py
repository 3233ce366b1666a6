"""Tokens of outlying norm, planted at one place."""

import copy

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.network.grid import Grid
from openwork.vision.tokens.registers import Registers, neighbourly, registers

from . import planted_vit as planted

PLACE = 5


@pytest.fixture(scope="module")
def net():
    """The planted network with one position whose token has a huge norm."""
    module = copy.deepcopy(planted.network().module)
    with torch.no_grad():
        position = next(p for name, p in module.named_parameters() if "position_embeddings" in name)
        position[0, PLACE + 1] += 60 * torch.randn(24, generator=torch.Generator().manual_seed(3))
    half = (0.5, 0.5, 0.5)
    return ow.open(module, name="with a register", images=ow.ImageFormat((16, 16), half, half))


@pytest.fixture(scope="module")
def shown(net):
    return registers(net, planted.pictures(80, 7)[0], Registers(deviations=20.0))


def test_it_is_found_where_it_was_planted(shown):
    outliers = shown.table["outliers"].values
    assert (outliers[:, 1, 1] == 1).all()
    assert outliers.sum() == len(outliers)


def test_a_network_without_outliers_has_none():
    shown = registers(planted.network(), planted.pictures(80, 7)[0], Registers(deviations=40.0))
    assert not shown.findings
    assert any("no registers" in remark for remark in shown.remarks)


def test_the_effect_is_the_divergence_of_the_answers(net, shown):
    corpus = planted.pictures(80, 7)[0]
    rows = np.random.default_rng(0).permutation(80)[40:]
    module, expected = net.module, []
    for row in sorted(rows.tolist()):
        with torch.no_grad():
            state = module.vit.embeddings(net.images.encode(corpus.values[[row]].float() / 255))
            answers = []
            for over in (False, True):
                now = state
                for number, block in enumerate(module.vit.layers):
                    now = block(now, None)
                    now = now[0] if isinstance(now, tuple) else now
                    if over and number == 0:
                        ordinary = [i for i in range(1, 17) if i != PLACE + 1]
                        now = now.clone()
                        now[:, PLACE + 1] = now[:, ordinary].mean(1)
                logits = module.classifier(module.vit.layernorm(now)[:, 0])
                answers.append(logits.double().log_softmax(-1)[0])
            expected.append(float((answers[0].exp() * (answers[0] - answers[1])).sum()))
    assert shown.findings[0].estimate == pytest.approx(np.mean(expected), rel=1e-3, abs=1e-6)


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
        registers(net, planted.pictures(8, 6)[0])


@pytest.mark.parametrize("knobs", [{"deviations": 0.0}, {"rare": 1.0}, {"batch": 0}])
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(BadInput, match="expected"):
        Registers(**knobs)
