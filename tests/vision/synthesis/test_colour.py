"""Colours: there and back, and the covariance that a corpus has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openwork.errors import BadInput
from openwork.vision.synthesis.colour import GREY, I1I2I3, IMAGENET, PLAIN, Colour, colours_of
from openwork.worlds.picture_array import PictureArray


@pytest.mark.parametrize("colour", [IMAGENET, I1I2I3, PLAIN], ids=lambda c: c.name)
def test_components_of_pixels_give_the_pixels_again(colour):
    pixels = 0.05 + 0.9 * torch.rand(2, 3, 5, 6)
    torch.testing.assert_close(colour.pixels(colour.components(pixels)), pixels, rtol=0, atol=1e-4)


def test_the_colours_of_a_corpus_are_the_square_root_of_its_covariance():
    generator = np.random.default_rng(0)
    base = generator.normal(size=(40, 1, 6, 6)) * 30
    pixels = np.clip(
        base * np.array([1.0, 0.5, -0.2])[:, None, None] + generator.normal(size=(40, 3, 6, 6)) * 9 + 128, 0, 255
    )
    pictures = PictureArray(torch.tensor(pixels.round()).to(torch.uint8), "coloured")
    matrix = np.array(colours_of(pictures).matrix)
    flat = pictures.pixels(range(40)).double().transpose(0, 1).flatten(1).numpy() / 255
    cov = np.cov(flat)
    made = matrix @ matrix.T
    np.testing.assert_allclose(made / np.trace(made), cov / np.trace(cov), atol=1e-8)


def test_grey_networks_get_grey_pictures():
    assert IMAGENET.of(1) is GREY


def test_colours_of_another_number_of_channels_are_refused():
    with pytest.raises(BadInput, match="expected colours of 4 channels"):
        IMAGENET.of(4)


def test_a_matrix_without_an_inverse_is_refused():
    with pytest.raises(BadInput, match="can be inverted"):
        Colour("flat", ((1.0, 1.0), (1.0, 1.0)))
