"""The picture models from other seeds share channels of a late layer, and a copy that learned nothing does not."""

from __future__ import annotations

import pytest

import openwork as ow
from openwork.geometry.samples import Sampling
from openwork.geometry.shuffled import Blank
from openwork.geometry.universality import Matching, match
from openwork.worlds.shapes import Shapes

LATE = {"shapes-cnn": "blocks.2.resid_post", "shapes-vit": "blocks.2.resid_post"}
"""Of a transformer not the last: nothing reads its patches behind that."""
METHOD = Matching(sampling=Sampling(tokens=16))


@pytest.mark.extended
@pytest.mark.parametrize("name", sorted(LATE))
def test_counterparts_in_other_seeds_stand_in_for_one_another(name: str) -> None:
    net, corpus = ow.open(name), Shapes(split="find", count=64)
    twins = [match(net, ow.open(f"{name}-{seed}"), corpus, LATE[name], method=METHOD) for seed in (1, 2)]
    blank = match(net, Blank(net).shuffled(9), corpus, LATE[name], method=METHOD)
    for found in twins:
        assert str(found.findings[1].verdict) == "supported"
        assert found.findings[1].estimate > 4 * blank.findings[1].estimate
        assert found.table.attrs["universal"] > 4 * max(blank.table.attrs["universal"], 1)
    assert not any(str(finding.verdict) == "supported" for finding in blank.findings)
