"""Patching by channel and place: exact, and what was painted over is where it is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, UnknownName
from openwork.results.result import Result
from openwork.vision.circuits.pairs import Pairs, covered, redrawn, swapped
from openwork.vision.circuits.places import Placing, elsewhere, patch_places, places_of
from openwork.worlds.picture_array import PictureArray
from openwork.worlds.shapes import Shapes

from .chain_network import CHAIN, SIDE, SITES, images, opened

FEW = Placing(pairs=20, channels=2)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return covered(images(150), "object", "red")


@pytest.fixture(scope="module")
def found(pairs: Pairs) -> Result:
    return patch_places(opened(), pairs, SITES[1], FEW)


def test_the_channel_of_the_chain_brings_the_answer_back(found: Result) -> None:
    assert int(found.table["channel_effect"].to_numpy().argmax()) == CHAIN[1]
    assert found.table["top"].to_numpy()[0] == CHAIN[1]


def test_the_places_of_what_was_covered_are_supported_against_places_elsewhere(found: Result) -> None:
    assert len(found.findings) == 2
    for finding in found.findings:
        assert finding.verdict == "supported", finding.reasons
        assert finding.control is not None
        assert finding.control.mean < 0.5 * finding.estimate


def test_every_cell_is_that_of_a_full_forward_pass_written_out(found: Result, pairs: Pairs) -> None:
    from openwork.task import split_rows
    from openwork.vision.halves import some

    held = split_rows(len(pairs), 0)
    rows = some([r for r in range(len(pairs)) if r not in held], FEW.pairs, 0)
    module: Any = opened().module

    def second(x: torch.Tensor) -> torch.Tensor:
        return module.acts[1](module.layers[1](module.acts[0](module.layers[0](x))))

    def after(x: torch.Tensor) -> torch.Tensor:
        return module.head(module.acts[2](module.layers[2](x)).mean((2, 3)))

    with torch.no_grad():
        clean, corrupted = (second(x[rows].float() / 255) for x in (pairs.clean, pairs.corrupted))
        answer = after(clean).argmax(1)
        wrong = after(corrupted).scatter(1, answer[:, None], -torch.inf).argmax(1)

        def metric(x: torch.Tensor) -> torch.Tensor:
            logits = after(x)
            return (logits.gather(1, answer[:, None]) - logits.gather(1, wrong[:, None]))[:, 0]

        base = metric(corrupted)
        for c, y, x in ((CHAIN[1], 3, 4), (CHAIN[1], 7, 7)):
            patched = corrupted.clone()
            patched[:, c, y, x] = clean[:, c, y, x]
            expected = float((metric(patched) - base).mean())
            cell = found.table["channel_place_effect"].sel(top=c, y=y, x=x)
            assert float(cell) == pytest.approx(expected, abs=1e-4)
        patched = corrupted.clone()
        patched[:, :, 5, 5] = clean[:, :, 5, 5]
        expected = float((metric(patched) - base).mean())
        assert float(found.table["place_effect"].sel(y=5, x=5)) == pytest.approx(expected, abs=1e-4)


def test_places_elsewhere_are_as_many_in_the_same_arrangement() -> None:
    grid = opened().grid(SITES[0])
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2:5, 3:6] = True
    part = places_of(grid, mask)
    assert len(part) == 9
    other = elsewhere(grid, part, np.random.default_rng(0))
    assert len({*other}) == 9
    assert not {*other} & {*part}


def test_a_change_too_small_for_any_place_is_at_the_nearest_one() -> None:
    grid = opened().grid(SITES[0])
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2, 3] = True
    assert places_of(grid, mask) == [2 * SIDE + 3]


def test_a_covered_part_has_the_colour_of_what_is_around_it(pairs: Pairs) -> None:
    assert bool((pairs.clean != pairs.corrupted).any(1)[pairs.changed].any())
    assert not bool((pairs.clean != pairs.corrupted).any(1)[~pairs.changed].any())
    assert int(pairs.corrupted.amax()) < 150


def test_a_scene_is_drawn_again_with_another_object() -> None:
    shapes = Shapes(size=48, split="find", count=6)
    pairs = redrawn(shapes, lambda scene: swapped(scene, "house"), range(6), "houses")
    assert 4 <= len(pairs) <= 6
    assert float(pairs.changed.float().mean()) < 0.9


def test_a_result_goes_to_disk_and_back(found: Result, tmp_path: Any) -> None:
    again = Result.load(found.save(tmp_path / "out"))
    np.testing.assert_array_equal(again.table["place_effect"], found.table["place_effect"])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda p: patch_places(opened(), p, "logits", FEW), BadInput, "map"),
        (lambda p: patch_places(opened(), p, "module:acts.9.out", FEW), UnknownName, "acts"),
        (lambda p: Placing(pairs=1), BadInput, "two pairs"),
        (lambda p: Pairs(p.clean, p.clean, p.changed), BadInput, "differ"),
        (lambda p: Pairs(p.clean, p.clean[:1], p.changed), BadInput, "shape"),
        (lambda p: covered(images(6), "part", "red"), UnknownName, "object"),
        (lambda p: covered(images(6), "object", "rde"), UnknownName, "red"),
        (lambda p: covered(PictureArray(images(6).values), "object", "red"), BadInput, "masks"),  # pyright: ignore
        (lambda p: redrawn(Shapes(size=48, count=2), lambda s: None, range(2)), BadInput, "scenes"),
        (
            lambda p: patch_places(opened(), Pairs(p.clean[:3], p.corrupted[:3], p.changed[:3]), SITES[1], FEW),
            BadInput,
            "four pairs",
        ),
    ],
)
def test_what_does_not_fit_is_refused(pairs: Pairs, call: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        call(pairs)
