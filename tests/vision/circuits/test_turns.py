"""Turning kernels, maps and images."""

from __future__ import annotations

import pytest
import torch

from openwork.errors import BadInput
from openwork.vision.circuits.turns import Turn, agreement, disc, likeness, same_spectrum, turned, turns

KERNEL = torch.arange(25.0).reshape(1, 1, 5, 5)


def test_a_quarter_turn_is_counter_clockwise_as_one_sees_it() -> None:
    torch.testing.assert_close(turned(KERNEL, Turn(90.0)), torch.rot90(KERNEL, 1, (2, 3)), atol=1e-4, rtol=0)


def test_mirroring_comes_before_turning() -> None:
    expected = torch.rot90(KERNEL.flip(3), 1, (2, 3))
    torch.testing.assert_close(turned(KERNEL, Turn(90.0, mirrored=True)), expected, atol=1e-4, rtol=0)


def test_a_turn_about_another_place_keeps_that_place() -> None:
    out = turned(KERNEL, Turn(180.0), centre=(1.0, 3.0))
    assert float(out[0, 0, 1, 3]) == pytest.approx(float(KERNEL[0, 0, 1, 3]), abs=1e-4)
    assert float(out[0, 0, 0, 3]) == pytest.approx(float(KERNEL[0, 0, 2, 3]), abs=1e-4)


def test_turns_are_even_and_begin_with_none() -> None:
    assert turns(4, True)[0] == Turn()
    assert [t.angle for t in turns(4, False)] == [0, 90, 180, 270]
    assert len(turns(8, True)) == 16
    with pytest.raises(BadInput, match="angles"):
        turns(1, True)


def test_a_turned_copy_is_like_its_original_after_that_turn() -> None:
    frames = torch.randn(1, 3, 7, 7)
    both = torch.cat((frames, torch.rot90(frames, 1, (2, 3))))
    found = likeness(both, turns(4, False))
    assert float(found[1, 0, 1]) == pytest.approx(1.0, abs=1e-4)
    assert float(found[3, 1, 0]) == pytest.approx(1.0, abs=1e-4)
    assert float(found[0, 0, 1]) < 0.5


def test_random_kernels_of_the_same_spectrum_have_it_and_are_no_copies() -> None:
    frames = torch.randn(4, 2, 7, 7)
    other = same_spectrum(frames, torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.fft.rfft2(frames).abs(), torch.fft.rfft2(other).abs(), atol=1e-4, rtol=1e-4)
    assert float((frames - other).abs().mean()) > 0.3


def test_maps_that_turn_with_the_image_agree() -> None:
    maps = torch.randn(2, 3, 9, 9)
    whole = agreement(turned(maps, Turn(90.0)), torch.rot90(maps, 1, (2, 3)), 4.0)
    assert whole.shape == (2, 3, 3)
    for image in range(2):
        for unit in range(3):
            assert whole[image, unit, unit] == pytest.approx(1.0, abs=1e-4)
    assert abs(whole[0, 0, 1]) < 0.6
    assert agreement(torch.zeros(1, 1, 9, 9), maps[:1, :1], 4.0)[0, 0, 0] == 0


def test_a_disc_stays_in_the_frame() -> None:
    assert int(disc(5, 5).sum()) == 21
    assert int(disc(5, 5, 1.0).sum()) == 5
