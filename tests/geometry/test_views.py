"""Places of images: the same points for maps of any grid, for patch tokens, and for images of several sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, UnknownName
from openwork.geometry.features import features
from openwork.geometry.phases import Phasing, phases
from openwork.geometry.samples import Places, Sampling
from openwork.geometry.similarity import Likeness, similarity
from openwork.geometry.spectra import Spectrum, spectra
from openwork.geometry.views import Views, centres, laid_back, laid_out, positions
from openwork.network import Network
from openwork.results.claims import Standard
from openwork.task import Tensors

from .made import gpt2
from .seers import MAP, PATCH, SIDE, deep, patches, pictures, seer

FEW = Sampling(tokens=5, batch=8)
TOKENS = "blocks.0.resid_pre"
LAYERS = "module:blocks.*.out"


def held(net: Network, site: str, rows: list[int]) -> torch.Tensor:
    form: Any = net.images
    return net.run(form.encode(pictures().pixels(rows).float() / 255), keep=site)[site].detach()


def loop(net: Network, site: str, points: np.ndarray, value: torch.Tensor, axes: tuple[str, ...]) -> list[torch.Tensor]:
    """Place by place: the one whose cell holds the pixel."""
    grid, out = net.grid(site), []
    for image, own in enumerate(points):
        for y, x in own:
            pixel = int(y * SIDE), int(x * SIDE)
            for place in range(grid.prefix, grid.prefix + len(grid)):
                top, left, bottom, right = grid.cell(place)
                if top <= pixel[0] < bottom and left <= pixel[1] < right:
                    row, column = grid.place(place)
                    out.append(value[image, :, row, column] if "y" in axes else value[image, place])
    return out


@pytest.mark.parametrize("case", ["map", "strided map", "tokens"])
def test_a_site_is_read_at_the_place_whose_cell_holds_the_point(case: str) -> None:
    net, site = {"map": (seer(), MAP), "strided map": (seer(stride=2), MAP), "tokens": (patches()[0], TOKENS)}[case]
    coarse = seer(stride=2) if case == "map" else net
    places = Places.of([net, coarse], pictures(8), FEW, [[site], [MAP if case == "map" else site]])
    found = places.read(net, site)
    assert places.points is not None
    axes = net.map.info(site).axes
    expected = loop(net, site, places.points, held(net, site, list(range(8))), axes)
    torch.testing.assert_close(found.values[site], torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert found.text.tolist() == [image for image in range(8) for _ in range(5)]


def test_points_are_as_many_as_the_coarsest_map_has_and_differ() -> None:
    places = Places.of([seer(), patches()[0]], pictures(8), Sampling(tokens=99), [[MAP], [TOKENS]])
    assert places.points is not None
    assert places.points.shape == (8, (SIDE // PATCH) ** 2, 2)
    assert len(np.unique(positions(seer().grid(MAP), places.points[0]))) == (SIDE // PATCH) ** 2


def test_the_middle_of_a_cell_is_in_the_cell() -> None:
    for net, site in ((seer(), MAP), (seer(stride=2), MAP), (patches()[0], TOKENS)):
        grid = net.grid(site)
        expected = np.arange(grid.prefix, grid.prefix + len(grid))
        np.testing.assert_array_equal(positions(grid, centres(grid)), expected)


def test_points_beyond_the_outermost_cells_belong_to_the_nearest() -> None:
    grid = seer(stride=2).grid(MAP)
    assert positions(grid, np.array([[0.999, 0.999], [0.0, 0.0]])).tolist() == [len(grid) - 1, 0]


def test_a_site_without_places_makes_every_image_one_place() -> None:
    net = seer()
    places = Places.of([net, net], pictures(8), FEW, [[MAP], ["logits"]])
    found = places.read(net, [MAP, "logits"])
    assert places.kind == "images"
    torch.testing.assert_close(found.values[MAP], held(net, MAP, list(range(8))).mean((2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.values["logits"], held(net, "logits", list(range(8))), atol=1e-5, rtol=1e-5)


def test_the_mean_over_an_image_leaves_the_class_token_out() -> None:
    net = patches()[0]
    found = Places.of([net], pictures(8), Sampling(pooled=True), [[TOKENS]]).read(net, TOKENS)
    expected = held(net, TOKENS, list(range(8)))[:, 1:].mean(1)
    torch.testing.assert_close(found.values[TOKENS], expected, atol=1e-5, rtol=1e-5)


def test_images_of_two_sizes_meet_at_the_same_points() -> None:
    small, large = seer(), seer(scale=2)
    places = Places.of([small, large], Views((pictures(8), pictures(8, 2))), FEW, [[MAP], [MAP]])
    torch.testing.assert_close(
        places.read(small, MAP).values[MAP], places.read(large, MAP, 1).values[MAP], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    "axes", [("batch", "channel", "y", "x"), ("batch", "position", "head", "channel"), ("batch", "channel")]
)
def test_laying_back_undoes_laying_out(axes: tuple[str, ...]) -> None:
    value = torch.arange(2 * 3 * 4 * 5).float().view(2, 3, 4, 5) if len(axes) > 2 else torch.arange(6.0).view(2, 3)
    assert torch.equal(laid_back(laid_out(value, axes), value, axes), value)


def test_the_hash_is_that_of_images_and_points() -> None:
    one, two, other, whole = (
        Places.of([seer()], pictures(8), sampling, [[MAP]]).hash
        for sampling in (FEW, FEW, Sampling(tokens=5, seed=1), Sampling(pooled=True))
    )
    assert one == two
    assert len({one, other, whole}) == 3


def test_maps_of_several_grids_are_compared_layer_by_layer() -> None:
    found = similarity(deep(), pictures(), LAYERS, method=Likeness(sampling=FEW)).table
    assert found.attrs["places"] == "points of images"
    np.testing.assert_allclose(np.diag(found["similarity"]), 1, atol=1e-6)


def test_dimensions_and_phases_take_images() -> None:
    used = spectra(deep(), pictures(), LAYERS, Spectrum(copies=1, sampling=FEW)).table
    assert (used["effective_rank"] <= 4).all()
    cut = phases(deep(), pictures(), LAYERS, Phasing(resamples=5, sampling=FEW, standard=Standard(alpha=0.4))).table
    assert cut.sizes == {"site": 3, "other_site": 3}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Views((pictures(8), pictures(32))), "same images"),
        (lambda: Places.of([seer()], Views((pictures(8),) * 2), FEW, [[MAP]]), "a corpus for each of 1"),
        (lambda: Places.of([gpt2()], pictures(8), FEW, [["embed"]]), "reads images"),
        (lambda: Places.of([seer()], pictures(8), FEW), "sites that will be read"),
        (lambda: Places.of([seer()], pictures(8), FEW, [[MAP]]).read(seer(), "logits"), "pooled=True"),
        (lambda: Places.of([gpt2()], ["a b c"] * 4, Sampling(pooled=True)), "expected images"),
        (lambda: Places.of([seer()], pictures(3), FEW, [[MAP]]), "at least 4"),
        (lambda: Places.of([seer()], pictures(8, 2), FEW, [[MAP]]).read(seer(), MAP), "16 x 16"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(call: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        call()


def test_an_unknown_site_of_images_is_named() -> None:
    with pytest.raises(UnknownName, match="act"):
        Places.of([seer()], pictures(8), FEW, [["module:acts.out"]])


def test_maps_given_as_tensors_are_not_taken_for_units() -> None:
    net: Any = seer()
    values = Tensors({"images": net.images.encode(pictures(8).pixels(range(8)).float() / 255)})
    with pytest.raises(BadInput, match="as images"):
        features(net, Places.of([net], values, FEW).read(net, MAP))
