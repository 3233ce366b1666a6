"""Tuning curves of filters that were made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.errors import BadInput, UnknownName
from openwork.finding import Verdict
from openwork.results.claims import Standard
from openwork.vision.responses.stimuli import Stimuli, draw
from openwork.vision.responses.tuning import Tuning, tune
from openwork.vision.units import Unit

from .planted_units import BEND, GABORS, HUES, RADIUS, SIZE, Filters, opened

SITE = "module:act.out"
QUICK = Tuning(find=2, held_out=20, standard=Standard(min_share=0.5, alpha=0.25))
NONE = Tuning(find=2, held_out=4, claims=0, standard=Standard(alpha=0.45))


@pytest.fixture(scope="module")
def net():
    return opened(Filters())


@pytest.fixture(scope="module")
def oriented(net):
    return tune(net, SITE, "orientation", QUICK)


@pytest.fixture(scope="module")
def coloured(net):
    return tune(net, SITE, "hue", QUICK)


def apart(a, b, period):
    return abs((a - b + period / 2) % period - period / 2)


@pytest.mark.parametrize("unit", range(3))
def test_the_orientation_of_a_gabor_is_recovered_to_three_degrees(oriented, unit):
    assert apart(float(oriented.table["preference"][unit]), GABORS[unit][0], 180.0) < 3


@pytest.mark.parametrize("unit", range(2))
def test_the_hue_of_a_colour_filter_is_recovered_to_two_degrees(coloured, unit):
    assert apart(float(coloured.table["preference"][3 + unit]), HUES[unit], 360.0) < 2


def test_the_frequency_of_a_gabor_is_recovered_to_a_tenth(net):
    found = tune(net, f"{SITE}[0-2]", "frequency", NONE).table["preference"].to_numpy()
    assert found == pytest.approx([frequency for _, frequency in GABORS], rel=0.1)


def test_the_side_to_which_a_curve_bends_is_recovered_to_five_degrees(net):
    found = tune(net, f"{SITE}[5]", "curve", NONE).table
    assert apart(float(found["preference"][0]), BEND, 360.0) < 5


def test_the_radius_of_a_curve_is_recovered_to_a_quarter(net):
    found = tune(net, f"{SITE}[5]", "radius", NONE).table
    assert float(found["preference"][0]) == pytest.approx(RADIUS, rel=0.25)


def test_the_phase_of_a_gabor_at_its_place_is_none(net):
    found = tune(net, f"{SITE}[0]", "phase", NONE).table
    assert apart(float(found["preference"][0]), 0.0, 360.0) < 5


def test_made_filters_are_supported_against_their_shuffled_selves_and_others_are_not(oriented, coloured):
    def verdicts(result):
        return {f.claim.split("]")[0] + "]": f.verdict for f in result.findings}

    by_angle, by_hue = verdicts(oriented), verdicts(coloured)
    assert [by_angle[f"{SITE}[{i}]"] for i in range(3)] == [Verdict.SUPPORTED] * 3
    assert [by_hue[f"{SITE}[{i}]"] for i in (3, 4)] == [Verdict.SUPPORTED] * 2
    assert by_angle[f"{SITE}[3]"] == by_hue[f"{SITE}[0]"] == Verdict.REJECTED


def test_curves_are_those_of_a_slow_loop(net):
    values, width = (0.0, 45.0, 90.0, 135.0), 2.0
    kind = Stimuli("line", "orientation", values, 180.0, scanned={"width": (width,)}, drawn={"contrast": (0.5, 1.0)})
    method = Tuning(find=2, held_out=3, claims=0, standard=Standard(alpha=0.45))
    found = tune(net, f"{SITE}[1,5]", kind, method).table["response"].to_numpy()
    middle = SIZE // 2 - 1
    wanted = np.zeros((3, 2, len(values)))
    for trial, contrast in enumerate(kind.trials(3, method.seed + 7919)["contrast"]):
        for k, angle in enumerate(values):
            parameters = {"orientation": [angle], "width": [width], "contrast": [contrast]}
            pixels = draw("line", parameters, (SIZE, SIZE), (float(middle), float(middle)))
            with torch.no_grad():
                wanted[trial, :, k] = net.module.act(net.module.conv(pixels))[0, [1, 5], middle, middle]
    assert found == pytest.approx(wanted.mean(0), abs=1e-4)


def test_a_unit_at_a_place_of_its_own_sees_its_stimuli_there(net):
    position = 5 * SIZE + 9
    found = tune(net, [Unit(SITE, 1, position=position), Unit(SITE, 1)], "orientation", NONE).table
    assert found["centre"].to_numpy().tolist() == [[5.0, 9.0], [7.0, 7.0]]
    first, second = found["preference"].to_numpy()
    assert apart(float(first), float(second), 180.0) < 4


def test_directions_and_logits_have_tuning_curves(net):
    along = ow.Direction(SITE, np.eye(6)[2])
    found = tune(net, [along, f"{SITE}[2]"], "orientation", NONE).table["response"].to_numpy()
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert tune(net, "module:head.out[0]", "hue", NONE).table.sizes["stimulus"] == 24


def test_stand_ins_that_are_given_are_the_control(net):
    torch.manual_seed(5)
    others = [opened(type(net.module)()) for _ in range(2)]
    for other in others:
        torch.nn.init.normal_(other.module.conv.weight)
    found = tune(net, f"{SITE}[0]", "orientation", NONE, untrained=others)
    assert found.settings["untrained"] == ["planted", "planted"]
    assert found.table.sizes["control"] == 12


def test_a_result_can_be_kept_and_drawn_round_and_straight(oriented, net, tmp_path: Path):
    from openwork.reports.result import result_pictures
    from openwork.results.result import Result

    oriented.save(tmp_path / "a")
    tune(net, f"{SITE}[0]", "frequency", NONE).save(tmp_path / "b")
    titles = [result_pictures(Result.load(tmp_path / name))[0].picture for name in "ab"]
    assert titles[0].svg.count("curve-band") == 6
    assert "polygon" in titles[0].svg
    assert "cycles a pixel" in titles[1].svg


def test_an_unknown_feature_is_named(net):
    with pytest.raises(UnknownName, match="orientation"):
        tune(net, SITE, "orientations")


def test_a_network_that_reads_text_is_refused():
    with pytest.raises(BadInput, match="reads images"):
        tune(ow.open("py-attn2"), "blocks.0.resid_post[0]")


def test_a_size_that_the_network_does_not_read_is_refused(net):
    with pytest.raises(BadInput, match="only; got the size"):
        tune(net, SITE, "orientation", Tuning(size=(20, 20)))


def test_an_image_too_small_to_draw_in_is_refused():
    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, images):
            return self.conv(images).mean((2, 3))

    with pytest.raises(BadInput, match="8 pixels or more"):
        tune(opened(Small(), 4), "module:conv.out")


def test_a_response_that_is_no_number_names_the_unit(net):
    broken = opened(Filters())
    with torch.no_grad():
        broken.module.conv.weight[2] = float("nan")
    with pytest.raises(BadInput, match=r"act.out\[2\] is NaN"):
        tune(broken, f"{SITE}[2]", "hue", NONE)


@pytest.mark.parametrize("wrong", [{"find": 0}, {"held_out": 1}, {"claims": -1}])
def test_knobs_that_mean_nothing_are_refused(wrong):
    with pytest.raises(BadInput, match="expected"):
        Tuning(**wrong)
