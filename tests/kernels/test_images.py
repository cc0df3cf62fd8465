import pytest
import torch

from hoarfrost.data.dataset import Normalisation
from hoarfrost.fourier.band import Band
from hoarfrost.kernels.images import normalise_images, pick_coefficients
from hoarfrost.kernels.library import INSTRUCTION_SETS, library, limit_instructions

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")


@pytest.fixture(params=INSTRUCTION_SETS[:3])
def instructions(request):
    best = limit_instructions(INSTRUCTION_SETS[-1])
    yield limit_instructions(request.param)
    limit_instructions(best)


@pytest.mark.parametrize("box", [31, 48])
@pytest.mark.parametrize("invert", [False, True])
def test_images_are_normalised_as_in_float64(instructions, box, invert, generator):
    """Far from zero as well, as images straight from a detector are."""
    images = 3000.0 + 5.0 * torch.randn(7, box, box, generator=generator)
    exact = Normalisation(0.4 * box, invert).apply(images.double())
    normalise_images(images, 0.4 * box, invert)
    torch.testing.assert_close(images.double(), exact, rtol=0, atol=1e-3)


def test_an_empty_background_takes_the_deviation_of_the_image_and_a_constant_stays_zero(instructions):
    images = torch.full((2, 32, 32), 4.0)
    images[0, 14:18, 14:18] = 9.0
    normalise_images(images, 12.0, False)
    assert images[0].std() == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(images[1], torch.zeros(32, 32))


@pytest.mark.parametrize("box", [31, 48])
def test_band_vectors_are_those_of_float64(instructions, box, generator):
    images = torch.randn(5, box, box, generator=generator)
    for band in (Band(box, 9), Band.to_nyquist(box)):
        exact = band.from_images(images.double())
        torch.testing.assert_close(band.from_images(images).to(exact.dtype), exact, rtol=0, atol=1e-5)


def test_coefficients_are_picked_and_multiplied(instructions, generator):
    spectra = torch.view_as_complex(torch.randn(3, 50, 2, generator=generator))
    factor = torch.view_as_complex(torch.randn(21, 2, generator=generator))
    place = torch.randperm(50, generator=generator)[:21]
    torch.testing.assert_close(pick_coefficients(spectra, place, factor), spectra[:, place] * factor)
