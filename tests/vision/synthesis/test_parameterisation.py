"""What pictures are made of: transforms that go back and forth, and rows that know nothing of each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openwork.errors import BadInput
from openwork.vision.synthesis.maco import Phase, real_phase
from openwork.vision.synthesis.objective import Rows
from openwork.vision.synthesis.parameterisation import (
    Cppn,
    Fourier,
    Moved,
    Pixels,
    Pyramid,
    Shape,
    Shared,
    picture_of,
    spectrum_of,
)
from openwork.vision.synthesis.spectrum import Spectrum
from openwork.worlds.picture_array import PictureArray

SIZES = [(8, 8), (8, 7), (7, 8), (9, 5)]
EVERY = [Fourier(), Pixels(), Pyramid(), Shared(), Cppn()]


def draws(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def corpus(size=12):
    pixels = torch.randint(0, 256, (9, 3, size, size), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return PictureArray(pixels, "noise")


@pytest.mark.parametrize("size", SIZES)
def test_a_transform_and_its_inverse_give_the_picture_again(size):
    picture = torch.randn(2, 3, *size)
    torch.testing.assert_close(picture_of(spectrum_of(picture), *size), picture, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_fourier_pictures_are_what_the_formula_of_lucid_says(size):
    shape = Shape(3, *size)
    numbers = Fourier(sd=1.0).start(draws(5), Rows((0,)), shape)
    found = Fourier(sd=1.0).components(numbers, Rows((0,)), shape)[0]
    height, width = size
    spectrum = torch.view_as_complex(numbers["spectrum"])[0].numpy()
    for row, f_y in enumerate(np.fft.fftfreq(height)):
        for column, f_x in enumerate(np.fft.rfftfreq(width)):
            f = np.sqrt(f_y**2 + f_x**2)
            spectrum[:, row, column] *= np.sqrt(height * width) / max(f, 1 / max(height, width))
    np.testing.assert_allclose(found.numpy(), np.fft.irfft2(spectrum, s=size) / 4, atol=1e-5)


@pytest.mark.parametrize("image", EVERY, ids=lambda image: type(image).__name__)
@pytest.mark.parametrize("size", SIZES)
def test_every_parameterisation_gives_pictures_of_the_size_asked_for(image, size):
    rows, shape = Rows((0, 0, 1)), Shape(3, *size)
    found = image.components(image.start(draws(1, 2, 3), rows, shape), rows, shape)
    assert found.shape == (3, 3, *size)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("image", EVERY, ids=lambda image: type(image).__name__)
def test_a_rows_numbers_come_from_its_own_seed_alone(image):
    shape = Shape(3, 8, 8)
    among = image.components(image.start(draws(1, 2), Rows((0, 1)), shape), Rows((0, 1)), shape)[1]
    alone = image.components(image.start(draws(2), Rows((0,)), shape), Rows((0,)), shape)[0]
    torch.testing.assert_close(among, alone)


def test_variants_share_the_coarse_part():
    image, shape, rows = Shared(own=Pixels(sd=0.0), sd=1.0), Shape(3, 8, 8), Rows((0, 0, 1))
    found = image.components(image.start(draws(1, 2, 3), rows, shape), rows, shape)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_a_moved_picture_begins_as_the_picture():
    given = torch.randn(3, 8, 8)
    image, rows, shape = Moved(Fourier(sd=0.0), given), Rows((0,)), Shape(3, 8, 8)
    torch.testing.assert_close(image.components(image.start(draws(1), rows, shape), rows, shape)[0], given)


@pytest.mark.parametrize("size", SIZES)
def test_maco_keeps_the_magnitudes_of_the_spectrum_before_standardising(size):
    spectrum, rows, shape = Spectrum.of(corpus()), Rows((0, 1)), Shape(3, *size)
    phase = Phase(spectrum)
    numbers = phase.start(draws(1, 2), rows, shape)
    found = spectrum_of(phase.constrained(numbers["phase"], shape)).abs()
    wanted = spectrum.at(*size)
    assert torch.allclose(found, wanted.expand_as(found), rtol=1e-3, atol=1e-4 * float(wanted.max()))


def test_free_phases_without_symmetry_would_change_magnitudes():
    phase, magnitude = torch.randn(1, 1, 8, 5), torch.ones(1, 1, 8, 5)
    free = spectrum_of(picture_of(torch.polar(magnitude, phase), 8, 8)).abs()
    held = spectrum_of(picture_of(torch.polar(magnitude, real_phase(phase, 8)), 8, 8)).abs()
    assert float((free - 1).abs().max()) > 0.1
    assert float((held - 1).abs().max()) < 1e-5


def test_a_spectrum_of_the_same_size_is_the_mean_magnitude():
    pictures = corpus()
    spectrum = Spectrum.of(pictures)
    components = spectrum.colour.components(pictures.pixels(range(9)).double() / 255)
    wanted = np.abs(np.fft.rfft2(components.numpy())).mean(0)
    np.testing.assert_allclose(spectrum.at(12, 12).numpy(), wanted, rtol=1e-4)


def test_an_empty_corpus_has_no_spectrum():
    with pytest.raises(BadInput, match="there are none"):
        Spectrum.of(corpus(), rows=[])


def test_a_pyramid_needs_a_level():
    with pytest.raises(BadInput, match="at least one level"):
        Pyramid(levels=0)
