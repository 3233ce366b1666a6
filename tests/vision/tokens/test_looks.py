"""Where heads look: the numbers by loops, and a head that is known to follow the coloured patch."""

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.network.grid import Grid
from openwork.vision.tokens.looks import Looking, distances, lifts, look, shares, summaries
from openwork.worlds.picture_array import PictureArray

from . import planted_vit as planted

GRID = Grid(2, 3, 1, (4.0, 4.0), (1.5, 1.5), (8.0, 12.0), (8, 12), True)


@pytest.fixture(scope="module")
def patterns():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 1, 2, 7, 7, generator=generator).pow(3).softmax(-1)


@pytest.fixture(scope="module")
def shown():
    return look(planted.network(), planted.pictures(120, 6)[0], Looking(least=10))


def test_distance_entropy_and_looks_at_oneself_by_loops(patterns):
    found = summaries(patterns, GRID, distances(GRID))
    for image in range(2):
        for head in range(2):
            p = patterns[image, 0, head].numpy()
            far, wide, prefix, own = [], [], [], []
            for q in range(6):
                row = p[q + 1]
                apart = [4 * np.hypot(q // 3 - k // 3, q % 3 - k % 3) for k in range(6)]
                far.append(sum(a * d for a, d in zip(row[1:], apart, strict=True)) / row[1:].sum())
                wide.append(-sum(a * np.log(a) for a in row))
                prefix.append(row[0])
                own.append(row[q + 1])
            for name, values in zip(
                ("distance", "entropy", "to_prefix", "on_itself"), (far, wide, prefix, own), strict=True
            ):
                assert float(found[name][image, 0, head]) == pytest.approx(np.mean(values), rel=1e-4)


def test_lift_by_loops(patterns):
    inside = torch.tensor([[[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], [[0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0]]]).bool()
    found = lifts(patterns, inside, GRID)
    for image in range(2):
        for concept in range(2):
            members = [k for k in range(6) if inside[image, concept, k]]
            for head in range(2):
                p = patterns[image, 0, head].numpy()[:, 1:]
                got = found[image, 0, head, :, concept].numpy()
                if not members:
                    assert np.isnan(got).all()
                    continue
                first = sum(p[0, k] for k in members) / p[0].sum() / (len(members) / 6)
                assert got[0] == pytest.approx(first, rel=1e-4)
                if len(members) == 1:
                    assert np.isnan(got[1])
                    continue
                each = [sum(p[q + 1, k] for k in members if k != q) / (p[q + 1].sum() - p[q + 1, q]) for q in members]
                assert got[1] == pytest.approx(np.mean(each) / ((len(members) - 1) / 5), rel=1e-4)


def test_equal_attention_has_a_lift_of_one():
    even = torch.full((1, 1, 1, 7, 7), 1 / 7)
    inside = torch.tensor([[[1, 0, 1, 1, 0, 0]]]).bool()
    assert torch.allclose(lifts(even, inside, GRID), torch.ones(1, 1, 1, 2, 1))


def test_a_small_concept_counts_where_it_covers_most():
    mask = torch.zeros(1, 8, 12, dtype=torch.long)
    mask[0, 0:4, 0:4] = 1
    mask[0, 5, 9] = 2
    where = shares(mask, 3, GRID)[0]
    assert where[0].nonzero().flatten().tolist() == [0]
    assert where[1].nonzero().flatten().tolist() == [5]
    assert not where[2].any()


def test_the_head_that_must_follow_the_colour_is_found(shown):
    lift = shown.table["lift"].sel({"from": "class token"}).values[1]
    assert (lift[1 - planted.SILENT] > 3).all()
    foreign = shown.table["foreign_lift"].sel({"from": "class token"}).values[1]
    assert (foreign[1 - planted.SILENT] < 2).all()


def test_claims_name_it_and_are_only_looked_at(shown):
    assert shown.findings[0].estimate > 2
    assert {finding.verdict for finding in shown.findings} <= {"inconclusive", "rejected"}
    assert "of block" in shown.findings[0].claim


def test_masks_without_the_category_are_refused():
    with pytest.raises(BadInput, match="masks of object"):
        look(planted.network(), planted.pictures(12, 6)[0], Looking(category="object"))


def test_a_network_without_attention_is_refused():
    net = ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), images=ow.ImageFormat())
    with pytest.raises(BadInput, match="attention patterns"):
        look(net, planted.pictures(12, 6)[0])


def test_few_images_are_said_to_be_few():
    corpus = planted.pictures(8, 6)[0]
    assert any("too few" in remark for remark in look(planted.network(), corpus).remarks)


def test_corpora_without_masks_are_refused():
    bare = PictureArray(planted.pictures(8, 6)[0].values)
    with pytest.raises(BadInput, match="masks of part"):
        look(planted.network(), bare)
