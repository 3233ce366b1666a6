"""Pictures of units on a page: self-contained, in the units' order, beside their examples where there are any."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import xarray
from PIL import Image

from openwork.reports.pictures import seen_pictures
from openwork.reports.result import result_page
from openwork.results.result import Result

PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


def table(channels: int = 3, alpha: bool = False) -> xarray.Dataset:
    draws = np.random.default_rng(0)
    variables = {
        "pixels": (("unit", "channel", "y", "x"), draws.random((2, channels, 8, 8)).astype(np.float32)),
        "activation": ("unit", np.array([1.5, 0.0])),
        "alive": ("unit", np.array([True, False])),
        "course": (("unit", "step"), draws.random((2, 5))),
        "others": (("unit", "picture"), draws.random((2, 4))),
    }
    if alpha:
        variables["alpha"] = (("unit", "y", "x"), np.zeros((2, 8, 8), dtype=np.float32))
    return xarray.Dataset(variables, {"unit": ["module:a.out[1]", "b[2]"], "step": range(5)}, {"kind": "pictures"})


def images(svg: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in PNG.findall(svg)]


def test_each_picture_is_shown_with_its_own_pixels():
    found = table()
    shown = images(seen_pictures(found)[0].picture.svg)
    for unit, image in enumerate(shown):
        wanted = np.moveaxis(found.pixels.values[unit], 0, -1) * 255
        np.testing.assert_allclose(image, wanted, atol=0.51)


def test_grey_pictures_are_shown_too():
    assert [image.shape for image in images(seen_pictures(table(channels=1))[0].picture.svg)] == [(8, 8)] * 2


def test_a_dead_unit_says_so():
    assert "no gradient" in seen_pictures(table())[0].picture.svg


def test_what_is_transparent_is_white():
    drawn = seen_pictures(table(alpha=True))
    assert len(drawn) == 3
    assert all(int(image.min()) == 255 for image in images(drawn[1].picture.svg))


def test_examples_stand_beside_the_picture():
    found = table().assign(
        example_pixels=(("example_shown_picture", "c", "py", "px"), np.zeros((3, 3, 4, 4), dtype=np.uint8)),
        example_picture=(("unit", "example"), np.array([[0, 1, 2], [2, -1, 0]])),
        example_activation=(("unit", "example"), np.ones((2, 3))),
        examples_accuracy=(("unit", "gap"), np.full((2, 1), 0.9)),
        examples_other_accuracy=(("unit", "gap"), np.full((2, 1), 0.5)),
    )
    found = found.assign_coords(example_shown=("example", ["strongest", "strongest", "weakest"]))
    svg = seen_pictures(found)[0].picture.svg
    assert len(images(svg)) == 2 + 3 + 2
    assert "images 0.90 right (other units' 0.50)" in svg.replace("&#39;", "'").replace("&apos;", "'")


def test_tables_of_other_methods_are_left_alone():
    assert seen_pictures(xarray.Dataset({"pixels": ("x", [1.0])})) == []


@pytest.mark.parametrize("alpha", [False, True])
def test_a_page_holds_its_pictures_and_loads_nothing(alpha):
    page = result_page(Result("feature visualisation", (), table(alpha=alpha)))
    assert len(PNG.findall(page)) == 2 * (1 + alpha)
    assert "img-src data:" in page
    assert not re.search(r'(src|href)="https?:', page)
