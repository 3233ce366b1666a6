"""Stimuli against slow drawings of the same thing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, UnknownName
from openwork.vision.responses.stimuli import HUE_REACH, KINDS, Stimuli, draw, stimuli

SIZE, CENTRE = (21, 21), (10.0, 10.0)
FINE = 16


def covered(inside, size=SIZE, centre=CENTRE):
    """The share of each pixel that lies in a shape, by counting points (right, up)."""
    out = np.zeros(size)
    steps = (np.arange(FINE) + 0.5) / FINE - 0.5
    for y in range(size[0]):
        for x in range(size[1]):
            hits = [inside(x + dx - centre[1], centre[0] - y - dy) for dx in steps for dy in steps]
            out[y, x] = np.mean(hits)
    return out


def one(shape, **parameters):
    return draw(shape, {name: [value] for name, value in parameters.items()}, SIZE, CENTRE)[0]


def test_a_grating_is_the_cosine_across_its_bars():
    angle, frequency, phase = 30.0, 0.15, 40.0
    drawn = one("grating", orientation=angle, frequency=frequency, phase=phase, contrast=0.8)
    for y, x in [(0, 0), (4, 17), (10, 10), (20, 3)]:
        right, up = x - 10, 10 - y
        across = -right * math.sin(math.radians(angle)) + up * math.cos(math.radians(angle))
        wanted = 0.5 + 0.4 * math.cos(2 * math.pi * frequency * across + math.radians(phase))
        assert drawn[:, y, x] == pytest.approx([wanted] * 3, abs=1e-5)


def test_a_horizontal_grating_does_not_change_along_a_row():
    drawn = one("grating", orientation=0.0, frequency=0.2)[0]
    assert float(drawn.std(1).max()) < 1e-6 < float(drawn.std(0).min())


def test_an_edge_gets_brighter_towards_its_orientation():
    drawn = one("edge", orientation=90.0)[0]
    assert float(drawn[0, 10]) == 1.0
    assert float(drawn[20, 10]) == 0.0
    assert float(drawn[10, 10]) == 0.5


@pytest.mark.parametrize("angle", [0.0, 25.0, 90.0])
def test_a_line_covers_pixels_as_a_band_does(angle):
    width, turn = 3.0, math.radians(angle)
    drawn = one("line", orientation=angle, width=width)[0].numpy()
    wanted = covered(lambda x, up: abs(-x * math.sin(turn) + up * math.cos(turn)) <= width / 2)
    # the coverage of a slanted band is known to a part of a pixel only
    assert np.abs(2 * (drawn - 0.5) - wanted).max() < (1e-6 + 1 / FINE if angle % 90 == 0 else 0.2)
    assert abs((2 * (drawn - 0.5)).sum() - wanted.sum()) < 0.03 * wanted.sum()


@pytest.mark.parametrize("angle", [0.0, 135.0, 270.0])
def test_a_curve_is_a_circle_around_a_centre_on_its_side(angle):
    radius, width, turn = 6.0, 2.0, math.radians(angle)
    middle = (radius * math.cos(turn), radius * math.sin(turn))

    def inside(x, up):
        ahead = x * math.cos(turn) + up * math.sin(turn)
        return abs(math.hypot(x - middle[0], up - middle[1]) - radius) <= width / 2 and ahead <= radius

    drawn = 2 * (one("curve", orientation=angle, curvature=1 / radius, width=width)[0].numpy() - 0.5)
    wanted = covered(inside)
    assert np.corrcoef(drawn.ravel(), wanted.ravel())[0, 1] > 0.98
    assert abs(drawn.sum() - wanted.sum()) < 0.06 * wanted.sum()


def test_a_curve_without_curvature_is_a_line():
    curve = one("curve", orientation=90.0, curvature=0.0, width=2.0)
    assert torch.allclose(curve, one("line", orientation=0.0, width=2.0), atol=1e-5)


def test_an_arc_is_the_curve_of_its_radius():
    arc = one("arc", orientation=60.0, radius=5.0)
    assert torch.allclose(arc, one("curve", orientation=60.0, curvature=0.2), atol=1e-6)


def test_a_curve_of_no_pixel_is_no_line_beyond_its_half():
    drawn = one("curve", orientation=0.0, curvature=1 / 4.0, width=1.0)[0]
    assert float((drawn[:, 15:] - 0.5).abs().max()) < 1e-6


@pytest.mark.parametrize("hue", [0.0, 77.0, 120.0, 240.0, 305.0])
def test_every_hue_has_the_mean_of_grey_and_one_distance_from_it(hue):
    colour = one("disc", hue=hue, radius=5.0)[:, 10, 10]
    assert float(colour.mean()) == pytest.approx(0.5, abs=1e-6)
    assert float((colour - 0.5).norm()) == pytest.approx(HUE_REACH, abs=1e-5)


@pytest.mark.parametrize(("hue", "channel"), [(0.0, 0), (120.0, 1), (240.0, 2)])
def test_red_green_and_blue_lie_a_third_of_the_circle_apart(hue, channel):
    assert int(one("disc", hue=hue)[:, 10, 10].argmax()) == channel


def test_what_moves_right_and_up_moves_so():
    moved = one("disc", hue=0.0, radius=2.0, right=4.0, up=3.0)[0]
    assert torch.equal(moved, torch.roll(one("disc", hue=0.0, radius=2.0)[0], (-3, 4), (0, 1)))


@pytest.mark.parametrize("name", KINDS)
def test_every_usual_kind_can_be_drawn_for_every_field(name):
    for field in (1.0, 3.0, 11.0, 64.0):
        kind = stimuli(name, field)
        values = {kind.feature: list(kind.values)}
        values |= {other: [some[0]] * len(kind.values) for other, some in {**kind.scanned, **kind.pooled}.items()}
        drawn = draw(kind.shape, values, SIZE, CENTRE)
        assert drawn.shape == (len(kind.values), 3, *SIZE)
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
        assert len({one.numpy().tobytes() for one in drawn}) == len(kind.values)


def test_trials_are_the_same_for_a_seed_and_lie_in_their_ranges():
    kind = stimuli("orientation", 7.0)
    first, again, other = (kind.trials(5, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in kind.drawn)
    assert not np.array_equal(first["contrast"], other["contrast"])
    assert all(low <= v <= high for name, (low, high) in kind.drawn.items() for v in first[name])


def test_an_unknown_kind_shape_or_parameter_is_named():
    with pytest.raises(UnknownName, match="orientation"):
        stimuli("orientations", 5.0)
    with pytest.raises(UnknownName, match="grating"):
        draw("gratings", {"orientation": [0.0]}, SIZE, CENTRE)
    with pytest.raises(UnknownName, match="hue"):
        draw("disc", {"hues": [0.0]}, SIZE, CENTRE)
    with pytest.raises(UnknownName, match="parameter of a line"):
        Stimuli("line", "hue", (0.0, 1.0, 2.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": (0.0, 1.0)},
        {"values": (0.0, 1.0, 1.0)},
        {"scanned": {"orientation": (0.0,)}},
        {"scanned": {"width": ()}},
        {"drawn": {"contrast": (1.0, 0.5)}},
    ],
)
def test_stimuli_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(BadInput, match="expected"):
        Stimuli(**{"shape": "line", "feature": "orientation", "values": (0.0, 60.0, 120.0), **wrong})


def test_values_of_different_numbers_are_refused():
    with pytest.raises(BadInput, match="as many values"):
        draw("line", {"orientation": [0.0, 1.0], "width": [1.0]}, SIZE, CENTRE)


def test_a_field_below_a_pixel_is_refused():
    with pytest.raises(BadInput, match="receptive field"):
        stimuli("line", 0.0)
