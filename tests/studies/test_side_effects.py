from __future__ import annotations

import numpy as np
import pytest
import torch

from openwork.faithfulness import Component, components_of
from openwork.studies import side_effects
from openwork.studies.texts import read


def test_slices_say_which_tokens_are_predicted(net, text) -> None:
    texts = read(net, text, rows=8, tokens=40, seed=0)
    masks = side_effects.slices(texts)
    assert masks["all tokens"].shape == (8, 39)
    assert (masks["repeats an earlier pair"] + masks["all others"] == masks["all tokens"]).all()
    ids, mask = texts.inputs.ids[0], masks["repeats an earlier pair"][0]
    for t in range(39):
        earlier = [(ids[s], ids[s + 1]) for s in range(1, t)]
        assert mask[t] == ((ids[t], ids[t + 1]) in earlier and t > 0)
    kinds = sum(masks[k] for k in masks if k not in ("all tokens", "all others", "repeats an earlier pair"))
    assert np.max(kinds) <= 1


def test_loss_is_that_of_the_text(net, text) -> None:
    texts = read(net, text, rows=8, tokens=40, seed=0)
    result = side_effects.measure(net, [Component(1, "head", 7)], components_of(net), texts, 5, 0)
    ids = torch.tensor(texts.inputs.ids)
    loss = torch.nn.functional.cross_entropy(net.module(ids)[:, :-1].reshape(-1, 96), ids[:, 1:].reshape(-1))
    (everything,) = [s for s in result.slices if s.slice == "all tokens"]
    assert everything.loss == pytest.approx(loss.item(), rel=1e-4)
    assert everything.n_tokens == 8 * 39
    assert everything.random.n >= 5


def test_knocking_out_nothing_changes_nothing(net, text) -> None:
    texts = read(net, text, rows=8, tokens=40, seed=0)
    assert np.ptp(side_effects._losses(net, texts, ()) - side_effects._losses(net, texts, ())) == 0
