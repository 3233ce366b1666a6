"""Features of networks that see, matched: planted permutations are found, random channels are not universal."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from openwork import metrics
from openwork.geometry.features import features
from openwork.geometry.panel import Panel, compare
from openwork.geometry.samples import Places, Sampling
from openwork.geometry.shuffled import Blank
from openwork.geometry.transplant import Fits, Stage
from openwork.geometry.universality import Matching, match
from openwork.network import Network
from openwork.results.claims import Standard

from .seers import CHANNELS, MAP, SIDE, patches, pictures, readout, seer

FAST = Matching(sampling=Sampling(tokens=16), standard=Standard(alpha=0.25), untrained=3)
ORDER = (3, 5, 0, 1, 4, 2)
TOKENS = "blocks.0.resid_pre"


@cache
def permuted() -> Any:
    return match(seer(), seer(ORDER, loud=(1, 40.0)), pictures(48), MAP, method=FAST)


def partners(found: Any) -> list[int]:
    return [int(str(name).split("[")[1][:-1]) for name in found.table["counterpart"].values]


def test_permuted_channels_are_matched_exactly_whatever_their_scale() -> None:
    assert partners(permuted()) == [ORDER.index(i) for i in range(CHANNELS)]
    np.testing.assert_allclose(permuted().table["likeness"], 1, atol=1e-6)
    assert permuted().table.attrs["universal"] == CHANNELS
    assert permuted().findings[0].control.kind == "matchings on pairings of places of different images"


def test_counterparts_on_maps_carry_the_predictions() -> None:
    carried = permuted().findings[1]
    assert str(carried.verdict) == "supported"
    assert carried.control is not None
    assert carried.control.exceeding == 0


def test_the_half_that_was_replaced_is_not_universal() -> None:
    found = match(seer(), seer((0, 1, 2, 9, 10, 11)), pictures(), MAP, method=FAST)
    assert found.table["universal"].values.tolist() == [True] * 3 + [False] * 3
    assert partners(found)[:3] == [0, 1, 2]


def test_grids_of_other_strides_meet() -> None:
    found = match(seer(), seer(ORDER, stride=2), pictures(), MAP, method=FAST)
    assert partners(found) == [ORDER.index(i) for i in range(CHANNELS)]
    np.testing.assert_allclose(found.table["likeness"], 1, atol=1e-6)


def test_patch_tokens_of_a_transformer_are_matched_with_maps() -> None:
    vit, cnn = patches()
    found = match(vit, cnn, pictures(), TOKENS, "module:conv.out", FAST)
    assert partners(found) == list(reversed(range(CHANNELS)))
    np.testing.assert_allclose(found.table["likeness"], 1, atol=1e-5)
    assert len(found.findings) == 2


def test_a_copy_without_what_was_learned_shares_no_features() -> None:
    found = match(seer(), Blank(seer()).shuffled(11), pictures(), MAP, method=FAST)
    assert str(found.findings[0].verdict) != "supported"
    assert found.findings[0].rival is not None
    assert abs(found.findings[0].rival.difference.estimate) < 0.2
    assert found.table.attrs["universal"] <= 1


def test_the_matching_is_the_best_of_all_permutations_by_loops() -> None:
    net, other = seer(), seer((9, 1, 10, 0))
    found = match(net, other, pictures(), MAP, method=FAST)
    places = Places.of([net, other], pictures(), FAST.sampling, [[MAP], [MAP]])
    assert places.points is not None
    find = places.texts("find")
    columns: list[list[list[float]]] = []
    for model in (net, other):
        form: Any = model.images
        maps = model.run(form.encode(pictures().pixels(find).float() / 255), keep=MAP)[MAP].detach()
        at = [
            (row, round(y * SIDE - 0.5), round(x * SIDE - 0.5))
            for row, image in enumerate(find)
            for y, x in places.points[image]
        ]
        columns.append([[float(maps[row, c, y, x]) for row, y, x in at] for c in range(maps.shape[1])])
    alike = [[np.corrcoef(a, b)[0, 1] for b in columns[1]] for a in columns[0]]
    best = max(
        itertools.permutations(range(CHANNELS), len(columns[1])),
        key=lambda chosen: sum(alike[i][j] for j, i in enumerate(chosen)),
    )
    expected = {i: j for j, i in enumerate(best)}
    names = found.table["counterpart"].values
    assert {i: partners_of(name) for i, name in enumerate(names) if str(name)} == expected
    for i, j in expected.items():
        assert float(found.table["find_likeness"][i]) == pytest.approx(alike[i][j], abs=1e-5)


def partners_of(name: Any) -> int:
    return int(str(name).split("[")[1][:-1])


def test_a_channel_is_written_from_the_other_map_at_the_same_place() -> None:
    net, other = seer(), seer(ORDER, stride=2)
    places = Places.of([net, other], pictures(8), FAST.sampling, [[MAP], [MAP]])
    a, b = (features(n, places.read(n, MAP, i)).split(False) for i, n in enumerate((net, other)))
    fits = Fits(a, b)
    stage = Stage.of(net, other, places, fits)
    rows = places.texts("held-out")
    inner: Any = net.module
    form: Any = net.images
    images = form.encode(pictures(8).pixels(rows).float() / 255)
    weight, bias = fits.map(2, 4)
    with torch.no_grad():
        mine = inner.act(inner.conv(images)).clone()
        theirs: Any = other.run(images, keep=MAP)[MAP]
        clean = net.run(images).logits
        for y, x in itertools.product(range(SIDE), repeat=2):
            # cells of stride 2 are centred on even pixels and hold the one before; the last pixel has none of its own
            row, column = (min((v + 1) // 2, SIDE // 2 - 1) for v in (y, x))
            mine[:, 2, y, x] = (theirs[:, 4, row, column].double() * weight[0, 0] + bias[0]).float()
        edited = mine.mean((2, 3)) @ readout().T
    expected = metrics.kl_divergence(clean, edited).numpy()
    np.testing.assert_allclose(stage.divergence([(2, 4)]), expected, rtol=1e-3, atol=1e-6)


def test_writing_a_channel_from_itself_changes_nothing() -> None:
    net = seer()
    places = Places.of([net, net], pictures(), FAST.sampling, [[MAP], [MAP]])
    own = features(net, places.read(net, MAP)).split(False)
    stage = Stage.of(net, net, places, Fits(own, own))
    pairs = [(i, i) for i in range(CHANNELS)]
    assert stage.divergence(pairs).max() < 0.01 * stage.divergence(pairs, silent=True).mean()


def test_the_class_token_is_left_alone() -> None:
    vit, cnn = patches()
    places = Places.of([vit, cnn], pictures(8), FAST.sampling, [[TOKENS], ["module:conv.out"]])
    a, b = (
        features(n, places.read(n, site, i)).split(False)
        for i, (n, site) in enumerate(((vit, TOKENS), (cnn, "module:conv.out")))
    )
    stage = Stage.of(vit, cnn, places, Fits(a, b))
    inputs: Any = places.inputs(places.texts("held-out"))
    edits = stage._edits(stage._reads(places.texts("held-out")), [(0, 1)], False)
    clean = vit.run(inputs, keep=TOKENS)[TOKENS].detach()
    edited = vit.run(inputs, edits=edits, keep=TOKENS)[TOKENS].detach()
    assert torch.equal(clean[:, 0], edited[:, 0])
    assert not torch.equal(clean[:, 1:, 0], edited[:, 1:, 0])
    assert torch.equal(clean[:, :, 1:], edited[:, :, 1:])


def test_means_over_images_are_compared_and_not_put_to_work_on_maps() -> None:
    pooled = Matching(sampling=Sampling(pooled=True), standard=FAST.standard, untrained=2, groups=8)
    found = match(seer(), seer(ORDER), pictures(), MAP, method=pooled)
    assert partners(found) == [ORDER.index(i) for i in range(CHANNELS)]
    assert len(found.findings) == 1
    assert any("no place of its maps can carry" in remark for remark in found.remarks)


def test_features_without_places_are_carried_by_means_over_maps() -> None:
    net: Network = seer()
    found = match(net, seer(ORDER), pictures(48), "module:head.in", MAP, FAST)
    assert partners(found) == [ORDER.index(i) for i in range(CHANNELS)]
    assert str(found.findings[1].verdict) == "supported"


def test_a_comparison_takes_images_and_sites_of_both() -> None:
    vit, cnn = patches()
    method = Panel(sampling=FAST.sampling, standard=FAST.standard)
    found = compare(vit, cnn, pictures(), TOKENS, TOKENS, method, "module:conv.out", "module:conv.out")
    assert float(found.table["similarity"][0, 0]) == pytest.approx(1, abs=1e-5)
    assert found.table.attrs["universal"] == CHANNELS
