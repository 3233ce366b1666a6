"""Motifs that were put into a network by hand are found, and what is none is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openwork.errors import BadInput
from openwork.results.result import Result
from openwork.vision.circuits.motifs import Matching, families, pixels_site
from openwork.vision.circuits.superposed import Sharing, correlation, presence, superposed
from openwork.vision.circuits.unions import Uniting, evenness, unions
from openwork.worlds.picture_array import PictureArray

from .motif_network import ANGLES, Motifs, images, opened

FIRST, SECOND = "module:act.out", "module:second.out"
EIGHT = Matching(angles=8, images=24)


@pytest.fixture(scope="module")
def found() -> Result:
    return families(opened(), images(60), FIRST, method=EIGHT)


def test_turned_gabors_are_one_family_with_their_angles(found: Result) -> None:
    table = found.table
    assert table["family"].to_numpy()[:4].tolist() == [0] * 4
    first = table["angle"].to_numpy()[:4]
    relative = (first - first[0]) % 180  # an even Gabor is itself after half a turn
    np.testing.assert_allclose(relative, ANGLES)


def test_a_blob_is_round_and_random_kernels_are_in_no_family(found: Result) -> None:
    assert found.table["round"].to_numpy().tolist() == [False] * 4 + [True] * 2 + [False] * 6
    assert (found.table["family"].to_numpy()[4:] == -1).all()


def test_the_family_answers_to_turned_held_out_images_and_random_units_do_not(found: Result) -> None:
    (finding,) = found.findings
    assert finding.verdict == "supported"
    assert finding.estimate > 0.8
    assert finding.control is not None
    assert finding.control.mean < 0.4


def test_random_kernels_have_no_family_and_nothing_is_claimed() -> None:
    module = Motifs()
    torch.nn.init.normal_(module.first.weight)
    result = families(opened(module), images(40), FIRST, method=EIGHT)
    assert not result.findings
    assert "no two units" in result.remarks[0]


def test_a_result_goes_to_disk_and_back(found: Result, tmp_path: Any) -> None:
    again = Result.load(found.save(tmp_path / "out"))
    assert again.findings == found.findings
    assert (again.table["family"] == found.table["family"]).all()


def test_the_pixels_are_what_the_first_module_reads() -> None:
    assert pixels_site(opened()) == "module:first.in"


def test_the_union_is_found_and_any_member_is_enough_for_it() -> None:
    sets = [(0, 1, 2, 3), (0, 1, 8, 9)]
    result = unions(opened(), images(480), sets, FIRST, SECOND, Uniting(images=240))
    table = result.table
    assert float(table["q"][0, 0]) < 0.05
    (finding,) = result.findings
    assert finding.verdict == "supported", finding.reasons
    assert f"{SECOND}[0] over channels 0, 1, 2, 3" in finding.claim
    assert (table["alone_low"].to_numpy() > 0).all()


def test_a_reader_of_one_member_is_no_union() -> None:
    module = Motifs()
    with torch.no_grad():
        module.second.weight[0, 1:4] = 0.02  # all weights are positive, but one counts
    result = unions(opened(module), images(480), [(0, 1, 2, 3)], FIRST, f"{SECOND}[0]", Uniting(images=240))
    assert all(finding.verdict != "supported" for finding in result.findings)


def test_evenness_is_that_of_all_sets_counted_one_by_one() -> None:
    from itertools import combinations

    weight = np.random.default_rng(0).normal(size=(2, 6))
    least, p = evenness(weight, [(0, 2)], Uniting(draws=4000))
    for unit in range(2):
        every = [min(weight[unit, i], weight[unit, j]) for i, j in combinations(range(6), 2)]
        assert float(least[unit, 0]) == min(weight[unit, 0], weight[unit, 2])
        assert abs(p[unit, 0] - np.mean([value >= least[unit, 0] for value in every])) < 0.03


def test_the_shared_unit_is_found_with_the_readers_of_both_signs() -> None:
    result = superposed(opened(), images(400), FIRST, SECOND, Sharing(claims=1))
    (finding,) = result.findings
    assert finding.verdict == "supported", finding.reasons
    assert f"{FIRST}[4] is shared by thing: red and thing: blue" in finding.claim
    assert result.table["shared_readers"].to_numpy()[0].tolist() == [1, 2]
    positive, negative = result.table["shared_weights"].to_numpy()[0]
    assert positive > 0 > negative


def test_a_unit_that_all_read_with_one_sign_is_not_shared() -> None:
    module = Motifs()
    with torch.no_grad():
        module.second.weight[2, 4] = 1.0
    result = superposed(opened(module), images(400), FIRST, SECOND, Sharing(claims=0))
    assert "shared_unit" not in result.table or 4 not in result.table["shared_unit"].to_numpy()


def test_correlation_with_presence_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    values, there = random.normal(size=(30, 2)), random.random((30, 3)) < 0.5
    there[:, 2] = True
    found = correlation(values, there)
    assert found[1, 0] == pytest.approx(np.corrcoef(values[:, 1], there[:, 0])[0, 1])
    assert (found[:, 2] == 0).all()


def test_presence_is_read_off_masks() -> None:
    some = images(8)
    names, there = presence(some, range(8))
    assert names == ["thing: red", "thing: blue", "thing: bars"]
    assert (there.sum(1) == 1).all()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Matching(angles=1), "angles"),
        (lambda: Matching(slopes="none"), "slopes"),
        (lambda: Matching(least=1.0), "least"),
        (lambda: Uniting(draws=0), "draws"),
        (lambda: Uniting(slopes="none"), "slopes"),
        (lambda: Sharing(strong=2.0), "shares"),
        (lambda: Sharing(slopes="none"), "slopes"),
        (lambda: unions(opened(), images(8), [(0,)], FIRST, SECOND), "two or more"),
        (lambda: unions(opened(), images(8), [(0, 99)], FIRST, SECOND), "channels"),
        (lambda: unions(opened(), images(8), [], FIRST, SECOND), "sets"),
        (lambda: families(opened(), images(8), "logits", method=EIGHT), "places"),
        (lambda: superposed(opened(), PictureArray(images(8).values), FIRST, SECOND), "masks"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        call()
