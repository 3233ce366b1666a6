"""Objectives: they compose, and measuring many at once gives what each gives alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import openwork as ow
from openwork.errors import BadInput
from openwork.pictures import ImageFormat
from openwork.vision.synthesis.ascent import Watching
from openwork.vision.synthesis.objective import Interpolation, Sum
from openwork.vision.synthesis.objectives import Objectives
from openwork.vision.synthesis.terms import (
    Activation,
    Alignment,
    Distance,
    Diversity,
    Excitement,
    Likeness,
    Matching,
    TotalVariation,
)
from openwork.vision.units import Unit

SITE, DEEP = "module:0.out", "module:1.out"


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)).eval()
    return ow.open(model, images=ImageFormat((7, 7)), example={"input": torch.zeros(2, 3, 7, 7)})


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(1))


def value(net, objectives, pixels, units=None):
    found = Objectives(net, objectives, units or list(range(len(objectives))))
    with torch.no_grad():
        return found(Watching(net, found.sites)(pixels) if found.sites else {}, pixels)


def maps(net, pixels, site=SITE):
    with torch.no_grad():
        return Watching(net, [site])(pixels)[site]


FIRST, SECOND = Activation(Unit(SITE, 1)), Activation(Unit(DEEP, 2))


def test_a_channel_is_the_mean_over_its_places(net, pixels):
    found = value(net, [FIRST] * 4, pixels)
    torch.testing.assert_close(found, maps(net, pixels)[:, 1].mean((1, 2)))


def test_a_place_is_one_number_of_the_map(net, pixels):
    found = value(net, [Activation(Unit(SITE, 3, position=7))] * 4, pixels)
    torch.testing.assert_close(found, maps(net, pixels)[:, 3, 1, 2])


def test_a_direction_is_dot_times_cosine_at_each_place(net, pixels):
    vector = (0.5, -1.0, 2.0, 0.0)
    found = value(net, [Activation(Unit(SITE, vector=vector), power=3.0)] * 4, pixels)
    seen, v = maps(net, pixels), torch.tensor(vector)
    for row in range(4):
        each = []
        for y in range(5):
            for x in range(5):
                a = seen[row, :, y, x]
                dot = float(a @ v)
                each.append(dot * max(0.1, dot / float(a.norm() * v.norm())) ** 3)
        assert float(found[row]) == pytest.approx(sum(each) / 25, rel=1e-4)


def test_each_row_gets_its_own_objective_whatever_its_neighbours_are(net, pixels):
    some = [FIRST, SECOND, FIRST + 2 * SECOND, Activation(Unit(SITE, 0)) * Activation(Unit(SITE, 2)) - TotalVariation()]
    together = value(net, some, pixels)
    for row, one in enumerate(some):
        torch.testing.assert_close(together[row], value(net, [one], pixels[row : row + 1])[0], rtol=1e-5, atol=1e-6)


def test_several_terms_of_one_kind_add_up_in_a_row(net, pixels):
    channels = [Activation(Unit(SITE, c)) for c in range(4)]
    found = value(net, [channels[0] + channels[1] - 3 * channels[2]] * 4, pixels)
    seen = maps(net, pixels).mean((2, 3))
    torch.testing.assert_close(found, seen[:, 0] + seen[:, 1] - 3 * seen[:, 2])


def test_a_sum_of_hundreds_stays_flat(net, pixels):
    total = FIRST
    for _ in range(400):
        total = total + FIRST
    assert isinstance(total, Sum)
    wanted = 401 * value(net, [FIRST], pixels[:1])
    torch.testing.assert_close(value(net, [total], pixels[:1]), wanted, rtol=1e-4, atol=1e-4)


def test_a_product_is_one_times_the_other(net, pixels):
    product = value(net, [FIRST * SECOND] * 4, pixels)
    torch.testing.assert_close(product, value(net, [FIRST] * 4, pixels) * value(net, [SECOND] * 4, pixels))


def test_an_interpolation_has_its_ends_alone(net, pixels):
    between = Interpolation(FIRST, SECOND)
    ends = value(net, [between.at(v, 3) for v in range(3)], pixels[:3])
    torch.testing.assert_close(ends[0], value(net, [FIRST], pixels[:1])[0])
    torch.testing.assert_close(ends[2], value(net, [SECOND], pixels[2:3])[0])
    middle = value(net, [FIRST, SECOND], pixels[[1, 1]])
    torch.testing.assert_close(ends[1], middle.mean())


def test_diversity_is_minus_the_mean_cosine_of_gram_matrices_within_a_unit(net, pixels):
    found = value(net, [Diversity(SITE)] * 4, pixels, [0, 0, 0, 1])
    seen = maps(net, pixels).flatten(2)
    grams = [one @ one.T for one in seen]
    for row in range(3):
        others = [k for k in range(3) if k != row]
        cosines = [float((grams[row] * grams[k]).sum() / (grams[row].norm() * grams[k].norm())) for k in others]
        assert float(found[row]) == pytest.approx(-sum(cosines) / 2, abs=1e-5)
    assert float(found[3]) == 0.0


def test_alignment_counts_near_variants_more(net, pixels):
    found = value(net, [Alignment(SITE)] * 3, pixels[:3], [0, 0, 0])
    seen = maps(net, pixels[:3]).flatten(1)
    near, far = ((seen[0] - seen[k]).square().mean() for k in (1, 2))
    assert float(found[0]) == pytest.approx(-float(near + far / 2), rel=1e-4)


def test_excitement_is_the_mean_square(net, pixels):
    torch.testing.assert_close(
        value(net, [Excitement(SITE)] * 4, pixels), maps(net, pixels).square().flatten(1).mean(1)
    )


def test_an_inversion_is_zero_at_its_target(net, pixels):
    target = maps(net, pixels)[0].flatten(1)
    found = value(net, [Matching(SITE, target, "inversion")] * 2, pixels[:2])
    assert float(found[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(found[1]) < -1e-3


def test_a_caricature_grows_with_the_length_and_the_angle(net, pixels):
    seen = maps(net, pixels)[0].flatten(1)
    found = value(net, [Matching(SITE, seen), Matching(SITE, -seen)], pixels[[0, 0]])
    assert float(found[0]) == pytest.approx(float(seen.norm()), rel=1e-4)
    assert float(found[1]) == pytest.approx(-float(seen.norm()) * 0.1**4, rel=1e-3)


def test_terms_of_pixels_need_no_network(net, pixels):
    row = pixels[:1]
    variation = row.diff(dim=2).abs().mean() + row.diff(dim=3).abs().mean()
    torch.testing.assert_close(value(net, [TotalVariation()], row)[0], variation)
    torch.testing.assert_close(value(net, [Distance(1)], row)[0], (row - 0.5).abs().mean())
    torch.testing.assert_close(value(net, [Distance(2)], row)[0], (row - 0.5).square().mean().sqrt())
    assert float(value(net, [Likeness(row[0])], row)[0]) == pytest.approx(0.0, abs=1e-12)


def test_a_number_is_nothing_to_add():
    with pytest.raises(BadInput, match="an objective to add"):
        FIRST + 3  # type: ignore[operator]


def test_a_distance_has_power_one_or_two():
    with pytest.raises(BadInput, match="power 1 or 2"):
        Distance(3)
