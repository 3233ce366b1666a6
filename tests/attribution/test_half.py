"""Attributions in half precision: close to those of the same weights in single precision."""

from __future__ import annotations

import numpy as np
import pytest

from openwork import network
from openwork.attribution.attribute import METHODS
from openwork.task import LOGIT_DIFFERENCE

from ..network.tiny import build
from .slow import find, is_padding

NAMES = ("gradient x input", "integrated gradients", "attention rollout", "contextual decomposition", "attnlrp")


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_scores_follow_those_of_single_precision(name: str) -> None:
    half = network.open(build("gpt2").bfloat16())
    single = network.open(build("gpt2").bfloat16().float())
    batch = find()
    there = ~is_padding(batch, 6)
    one, other = (METHODS[name].scores(net, batch, LOGIT_DIFFERENCE)[there] for net in (half, single))
    assert np.isfinite(one).all()
    assert np.corrcoef(one, other)[0, 1] > 0.95
