import pytest
import torch

from hoarfrost.fourier import transforms
from hoarfrost.fourier.band import Band


@pytest.mark.parametrize("box", [16, 17])
def test_parseval_round_trip_and_centre(box, generator):
    images = torch.randn(3, box, box, generator=generator, dtype=torch.float64)
    spectra = transforms.fourier_transform_2d(images)
    torch.testing.assert_close(spectra.abs().square().sum(), images.square().sum())
    torch.testing.assert_close(transforms.inverse_fourier_transform_2d(spectra), images)
    torch.testing.assert_close(spectra[:, box // 2, box // 2].real, images.sum((1, 2)) / box)
    volume = torch.randn(box, box, box, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(transforms.inverse_fourier_transform_3d(transforms.fourier_transform_3d(volume)), volume)


def test_a_point_at_the_origin_has_a_flat_real_spectrum():
    image = torch.zeros(1, 9, 9, dtype=torch.float64)
    image[0, 4, 4] = 1
    torch.testing.assert_close(
        transforms.fourier_transform_2d(image), torch.full((1, 9, 9), 1 / 9, dtype=torch.complex128)
    )


@pytest.mark.parametrize(("start", "end"), [(32, 20), (32, 21), (33, 20), (33, 21), (20, 33)])
def test_resampling_keeps_values_and_the_origin(start, end):
    def gaussian(box):
        axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
        return torch.exp(-((axis[None, :, None] - 0.05) ** 2 + (axis[None, None] + 0.03) ** 2) / (2 * 0.09**2))

    resampled = transforms.resample_centred(gaussian(start), end, (-2, -1))
    torch.testing.assert_close(resampled, gaussian(end), atol=3e-3, rtol=0)


@pytest.mark.parametrize("box", [16, 17, 30])
def test_band_is_the_half_plane_of_the_full_transform(box, generator):
    band = Band.to_nyquist(box)
    images = torch.randn(4, box, box, generator=generator, dtype=torch.float64)
    kx, ky = band.k.unbind(-1)
    expected = transforms.fourier_transform_2d(images)[:, ky + box // 2, kx + box // 2]
    torch.testing.assert_close(band.from_images(images), expected)


def test_band_counts_every_pair_once_and_prefixes_nest():
    band = Band(64, 20)
    both = {tuple(k) for k in band.k.tolist()} | {tuple(k) for k in (-band.k).tolist()}
    inside = {(x, y) for x in range(-20, 21) for y in range(-20, 21) if 0 < x * x + y * y <= 400}
    assert both == inside
    assert 2 * len(band) == len(inside)
    small = band.prefix(9)
    assert torch.equal(small.k, band.k[: len(small)])


@pytest.mark.parametrize("box", [16, 17])
def test_to_images_is_the_adjoint_counting_conjugates(box, generator):
    band = Band(box, 6)
    images = torch.randn(2, box, box, generator=generator, dtype=torch.float64)
    vectors = torch.randn(2, len(band), 2, generator=generator, dtype=torch.float64)
    vectors = torch.view_as_complex(vectors)
    left = 2 * (band.from_images(images).conj() * vectors).real.sum()
    torch.testing.assert_close(left, (images * band.to_images(vectors)).sum())
    torch.testing.assert_close(band.from_images(band.to_images(vectors)), vectors)


def test_shift_phases_move_an_image_by_whole_pixels(generator):
    band = Band.to_nyquist(17)
    smooth = band.to_images(band.from_images(torch.randn(1, 17, 17, generator=generator, dtype=torch.float64)))
    moved = torch.roll(smooth, (2, -3), (-2, -1))
    shifted = band.from_images(smooth) * band.shift_phases(torch.tensor([[-3.0, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(shifted, band.from_images(moved))


def test_shell_mean_undoes_at_shells():
    band = Band(32, 12)
    spectrum = torch.arange(13, dtype=torch.float64)
    torch.testing.assert_close(band.shell_mean(band.at_shells(spectrum))[1:], spectrum[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_of_band_vectors_is_the_adjoint(dtype, generator):
    """Also where a kernel would otherwise pick the coefficients."""
    band = Band(16, 6)
    images = torch.randn(2, 16, 16, generator=generator, dtype=dtype).requires_grad_()
    vectors = torch.randn(2, len(band), 2, generator=generator, dtype=dtype)
    (gradient,) = torch.autograd.grad((torch.view_as_real(band.from_images(images)) * vectors).sum(), images)
    torch.testing.assert_close(gradient, 0.5 * band.to_images(torch.view_as_complex(vectors)))
