"""Views: one warp for all that happens to a picture, from draws of its own."""

from __future__ import annotations

import pytest
import torch

from openwork.errors import BadInput
from openwork.vision.synthesis.robustness import Crops, Robustness, unseen, warped


def numbers(**given):
    """Draws that stand for what is said: the middle, which shifts nothing, unless given."""
    drawn = torch.full((1, 7), 0.5)
    for place, value in given.items():
        drawn[0, int(place[1:])] = value
    return drawn


def test_a_warp_of_nothing_is_the_picture():
    pictures = torch.rand(2, 3, 6, 9)
    found = warped(pictures, torch.eye(2).expand(2, 2, 2), torch.zeros(2, 2), (6, 9), 0.5)
    torch.testing.assert_close(found, pictures, rtol=0, atol=1e-5)


def test_a_warp_reads_y_and_x_of_the_picture_in_this_order():
    pictures = torch.rand(1, 1, 8, 8)
    found = warped(pictures, torch.eye(2)[None], torch.tensor([[2.0, -1.0]]), (8, 8), 0.5)
    torch.testing.assert_close(found[..., :6, 1:], pictures[..., 2:, :7], rtol=0, atol=1e-5)
    assert bool((found[..., 6:, :] == 0.5).all())


def test_a_jitter_moves_by_whole_pixels_within_its_reach():
    views = Robustness(jitter=4, scales=(1.0,), angles=(0,), jitter_after=0)
    picture = torch.rand(1, 1, 9, 9)
    for share, moved in [(0.0, -2), (0.5, 0), (0.999, 2)]:
        found = views.views(picture, numbers(_0=share), (9, 9))
        inner = slice(2, 7)
        torch.testing.assert_close(found[..., inner, :], picture[..., 2 + moved : 7 + moved, :], rtol=0, atol=1e-5)


def test_a_larger_scale_shows_a_smaller_part():
    ramp = torch.linspace(0, 1, 16)[None, None, None].expand(1, 1, 16, 16)
    found = Robustness(scales=(2.0,), angles=(0,)).views(ramp, numbers(), (16, 16))
    assert float(found.max() - found.min()) == pytest.approx(0.5, abs=0.03)


def test_a_quarter_turn_turns():
    picture = torch.rand(1, 1, 7, 7)
    found = Robustness(scales=(1.0,), angles=(90,)).views(picture, numbers(), (7, 7))
    turned = [torch.rot90(picture, k, (2, 3)) for k in (1, 3)]
    assert any(torch.allclose(found, one, atol=1e-4) for one in turned)


def test_a_flip_mirrors():
    picture = torch.rand(1, 1, 7, 7)
    views = Robustness(scales=(1.0,), angles=(0,), flip=True)
    torch.testing.assert_close(views.views(picture, numbers(_6=0.1), (7, 7)), picture.flip(3), rtol=0, atol=1e-5)


def test_each_picture_has_draws_of_its_own_generator():
    views = Robustness()
    pair = views.draw([torch.Generator().manual_seed(s) for s in (1, 2)], 3)
    alone = views.draw([torch.Generator().manual_seed(2)], 3)
    assert torch.equal(pair[1], alone[0])
    assert not torch.equal(pair[0], pair[1])


def test_crops_are_of_the_picture_and_keep_their_order():
    views = Crops(count=3, noise=(0.0, 0.0))
    pictures = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    drawn = views.draw([torch.Generator().manual_seed(s) for s in (1, 2)], 1)[:, 0]
    found = views.views(pictures, drawn, (8, 8))
    assert found.shape == (6, 3, 8, 8)
    torch.testing.assert_close(found[:3], torch.zeros(3, 3, 8, 8), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[3:], torch.ones(3, 3, 8, 8), rtol=0, atol=1e-5)


def test_noise_stays_within_pixels_and_keeps_gradients():
    views, picture = Crops(count=1, noise=(0.5, 0.5)), torch.ones(1, 3, 4, 4, requires_grad=True)
    found = views.disturbed(picture, [torch.Generator().manual_seed(0)], 0.0)
    assert 0 <= found.detach().min() <= found.detach().max() <= 1
    (grad,) = torch.autograd.grad(found.sum(), picture)
    assert bool((grad == 1).all())


def test_the_views_of_a_test_change_all_pictures_alike():
    pictures = torch.rand(1, 3, 8, 8).expand(2, 3, 8, 8)
    found = unseen(pictures, 4, 0)
    assert found.shape == (4, 2, 3, 8, 8)
    assert torch.equal(found[:, 0], found[:, 1])
    assert not torch.allclose(found[0], found[1])


def test_negative_shifts_are_refused():
    with pytest.raises(BadInput, match="shifts of at least 0"):
        Robustness(jitter=-1)


def test_boxes_beyond_the_picture_are_refused():
    with pytest.raises(BadInput, match="boxes within"):
        Crops(box=(0.5, 1.5))
