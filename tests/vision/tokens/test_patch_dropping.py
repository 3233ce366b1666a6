"""Interpreters drop what does not matter, where it is known which patch does."""

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.results.claims import Standard
from openwork.vision.passes import encoded
from openwork.vision.tokens.interpreters import (
    KEEP,
    Interpreter,
    Interpreters,
    Policy,
    group_starts,
    learn_interpreters,
)
from openwork.vision.tokens.patch_dropping import Dropping, drop_patches
from openwork.zoo.gazing import FORMAT, PATCH, SIDE, WIDTH, gazing, glances

PLACES = SIDE * SIDE


@pytest.fixture(scope="module")
def net():
    return ow.open(gazing(1).module, name="gaze", images=FORMAT)


@pytest.fixture(scope="module")
def judges(net):
    return learn_interpreters(net, glances(150, 2), Interpreters(groups=2, steps=60, batch=24, rate=2e-2))


@pytest.fixture(scope="module")
def corpus():
    return glances(60, 3)


@pytest.fixture(scope="module")
def shown(net, judges, corpus):
    return drop_patches(net, judges, corpus, Dropping(standard=Standard(alpha=0.2)))


def test_scores_are_those_of_the_paper():
    judge = Interpreter(6, 2, torch.Generator().manual_seed(0))
    tokens = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    normed = torch.nn.functional.layer_norm(tokens, (6,))
    for image in range(2):
        for patch in range(5):
            scores = []
            for head in range(2):
                query, key = judge.query[head] @ judge.policy, judge.key[head] @ normed[image, patch]
                scores.append(torch.sigmoid(query @ key / 3**0.5 + judge.bias[head]))
            assert torch.allclose(judge(tokens)[image, patch], torch.stack(scores).mean())


def test_hidden_patches_do_to_the_rest_what_dropping_does(net):
    corpus = glances(6, 4)
    gone = torch.tensor([[1, 5], [0, 2], [3, 15], [8, 9], [4, 6], [7, 20]])
    stay = torch.ones(6, PLACES, dtype=torch.bool).scatter(1, gone, False)
    judge = {0: Interpreter(WIDTH, 2, torch.Generator().manual_seed(0))}
    images = encoded(net, corpus.values)
    hidden = net.run(images, edits=Policy(net, judge, 1, lambda block, scores: stay).edits()).logits
    dropped = net.run(images, edits=ow.Drop("blocks.0.resid_pre", positions=(gone + 1).numpy())).logits
    assert torch.allclose(hidden, dropped, atol=1e-5)


def test_a_patch_once_dropped_stays_dropped(net):
    corpus = glances(6, 4)
    judge = {b: Interpreter(WIDTH, 2, torch.Generator().manual_seed(b)) for b in (0, 1)}
    choices = {0: torch.arange(PLACES) % 2 == 0, 1: torch.arange(PLACES) % 3 == 0}
    policy = Policy(net, judge, 1, lambda block, scores: choices[block].expand(6, -1))
    net.run(encoded(net, corpus.values), edits=policy.edits())
    assert policy.kept[1][0].tolist() == (choices[0] & choices[1]).tolist()


def test_rewards_grow(judges):
    assert judges.rewards[0, -20:].mean() > judges.rewards[0, :20].mean()
    assert judges.rewards[1].mean() > judges.rewards[0].mean()


def test_the_patches_that_decide_score_highest(corpus, shown):
    part = corpus.regions["part"][:, ::PATCH, ::PATCH].flatten(1).numpy() > 0
    scores = shown.table["score"].values.reshape(part.shape)
    above = [(scores[i, ~part[i]] < mine).mean() for i in range(len(part)) for mine in scores[i, part[i]]]
    assert np.mean(above) > 0.8  # .5 by chance


def test_what_all_tokens_share_moves_no_score(net):
    tokens = torch.randn(4, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    middle = torch.nn.functional.layer_norm(tokens, (WIDTH,)).mean((0, 1))
    plain, centred = (Interpreter(WIDTH, 1, torch.Generator().manual_seed(0), about) for about in (None, middle))
    odds = [judge(tokens).detach().logit() for judge in (plain, centred)]
    assert float((odds[1] - 1).mean()) == pytest.approx(0, abs=1e-4)  # the bias alone
    assert torch.allclose(odds[0] - odds[0].mean(), odds[1] - odds[1].mean(), atol=1e-4)


def test_half_of_the_patches_go_and_the_answers_stay(shown):
    attrs = shown.table.attrs
    assert attrs["policy_share"] < 0.6
    assert attrs["policy_accuracy"] > attrs["whole_accuracy"] - 0.05


def test_the_order_beats_random_ones(shown):
    assert shown.findings[0].verdict == "supported"
    accuracy = shown.table["accuracy"].sel(share=0.25)
    assert float(accuracy.sel(order="interpreter")) > float(accuracy.sel(order="random")) + 0.1


def test_work_counts_the_tokens_of_every_block(shown, judges):
    assert sorted(judges.at) == [0, 2]
    depth = shown.table["depth"].values
    first, both = (depth >= 1).mean() * PLACES, (depth >= 2).mean() * PLACES
    assert shown.table.attrs["work"] == pytest.approx((2 * (1 + first) + 1 + both) / (3 * (1 + PLACES)))


def test_groups_begin_evenly(net):
    assert group_starts(net, 3) == [0, 1, 2]
    with pytest.raises(BadInput, match="at most 3 groups"):
        group_starts(net, 4)


def test_what_is_no_vision_transformer_is_refused():
    with pytest.raises(BadInput, match="vision transformer"):
        learn_interpreters(ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval()), glances(6, 4))


@pytest.mark.parametrize("knobs", [{"groups": 0}, {"bound": KEEP}, {"rate": 0.0}, {"penalty": -1.0}])
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(BadInput, match="expected"):
        Interpreters(**knobs)


def test_shares_out_of_range_are_refused():
    with pytest.raises(BadInput, match="shares"):
        Dropping(shares=(0.0, 0.5))
