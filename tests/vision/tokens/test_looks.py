"""Where heads look: the numbers by loops, and heads that are known to follow the parts of classes."""

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput
from openwork.network.grid import Grid
from openwork.vision.tokens.looks import Looking, distances, lifts, look, others_masks, shares, summaries
from openwork.worlds.picture_array import PictureArray
from openwork.zoo.gazing import COLOURS, glances

GRID = Grid(2, 3, 1, (4.0, 4.0), (1.5, 1.5), (8.0, 12.0), (8, 12), True)


@pytest.fixture(scope="module")
def patterns():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 1, 2, 7, 7, generator=generator).pow(3).softmax(-1)


@pytest.fixture(scope="module")
def shown(net):
    return look(net, glances(120, 6), Looking(least=10))


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


def test_foreign_masks_are_those_of_images_that_show_the_concept_too():
    rng = np.random.default_rng(0)
    shown = torch.from_numpy(rng.random((7, 3, 6)) < 0.3) & torch.from_numpy(rng.random((7, 3, 1)) < 0.6)
    shown[:, 2] = False
    shown[3, 2, 1] = True  # one image alone
    for step in (1, 2):
        found = others_masks(shown, step)
        for concept in range(3):
            images = [i for i in range(7) if shown[i, concept].any()]
            for i in range(7):
                if i not in images or len(images) <= step:
                    assert not found[i, concept].any()
                else:
                    other = images[(images.index(i) - step) % len(images)]
                    assert other != i
                    assert torch.equal(found[i, concept], shown[other, concept])


def test_the_heads_that_follow_a_part_are_found(known, shown):
    lift, foreign = (shown.table[name].sel({"from": "class token"}) for name in ("lift", "foreign_lift"))
    for colour, (block, head) in known.follows.items():
        assert float(lift.sel(concept=colour)[block, head]) > 10
        assert float(foreign.sel(concept=colour)[block, head]) < 6


def test_a_head_that_looks_at_the_middle_follows_no_part(known, shown):
    first = {name: shown.table[name].sel({"from": "class token"}).values for name in ("lift", "foreign_lift")}
    others = np.ones(first["lift"].shape, dtype=bool)
    for number, at in enumerate(known.follows.values()):
        others[(*at, number)] = False
    assert (first["lift"][others] > 2).any()  # parts lie in the middle
    assert (np.abs(first["lift"] - first["foreign_lift"])[others] < 1).all()


def test_claims_name_them_and_are_only_looked_at(known, shown):
    named = {f"head {head} of block {block} follows {c}" for c, (block, head) in known.follows.items()}
    assert {finding.claim.split(":")[0] for finding in shown.findings[: len(COLOURS)]} == named
    assert {finding.verdict for finding in shown.findings} <= {"inconclusive", "rejected"}
    assert min(finding.estimate for finding in shown.findings[: len(COLOURS)]) > 2


def test_masks_without_the_category_are_refused(net):
    with pytest.raises(BadInput, match="masks of object"):
        look(net, glances(12, 6), Looking(category="object"))


def test_a_network_without_attention_is_refused():
    net = ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), images=ow.ImageFormat())
    with pytest.raises(BadInput, match="attention patterns"):
        look(net, glances(12, 6))


def test_few_images_are_said_to_be_few(net):
    assert any("too few" in remark for remark in look(net, glances(8, 6)).remarks)


def test_corpora_without_masks_are_refused(net):
    bare = PictureArray(glances(8, 6).values)
    with pytest.raises(BadInput, match="masks of part"):
        look(net, bare)
