"""Noise spectra: measured beside particles, taken out, and drawn from."""

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.physics.noise import NoiseAccumulator, estimate_noise, sample_noise, whiten
from phantoms import GaussianPhantom

BOX = 64
SHELL = torch.arange(60, dtype=torch.float64)
SPECTRA = {
    "white": torch.ones(60),
    "coloured": 0.2 + 6 / (1 + (SHELL / 6) ** 2),
    "steep": 0.05 + 20 / (1 + (SHELL / 4) ** 2) ** 1.5,
    "rising": 1 - 0.8 * torch.exp(-((SHELL / 12) ** 2)),
}


def particles(count: int, generator: torch.Generator) -> Tensor:
    """Noiseless images of a bright particle well within a quarter of the box."""
    phantom = GaussianPhantom.random(30, 12.0, generator, sigma=1.5)
    images = phantom.project(random_rotations(50, generator), torch.zeros(50, 2), BOX, 1.0).float()
    return (3 * images / images.std()).repeat(count // 50, 1, 1)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("radius", [0.32, 0.45])
def test_spectrum_of_the_background(name: str, radius: float, generator: torch.Generator) -> None:
    """Within 3 % above shell 3, whatever the particle does inside the circle."""
    spectrum = SPECTRA[name]
    images = sample_noise(4000, BOX, spectrum, generator) + particles(4000, generator)
    band = Band.to_nyquist(BOX)
    found = estimate_noise(images, band, radius_px=radius * BOX)
    ratio = found.double() / spectrum[: band.limit + 1]
    assert len(found) == band.limit + 1
    assert (ratio[4:] - 1).abs().max() < 0.03
    assert (ratio[1:4] - 1).abs().max() < 0.12
    assert found[0] == found[1]


def test_blur_of_the_window_is_undone(generator: torch.Generator) -> None:
    """Without that, a steep spectrum comes out far too high where it is low."""
    spectrum = 1e-3 + 30 * torch.exp(-((SHELL / 3) ** 2))
    images, band = sample_noise(3000, BOX, spectrum, generator), Band.to_nyquist(BOX)
    found = estimate_noise(images, band, radius_px=0.42 * BOX)
    axis = torch.arange(BOX) - BOX // 2
    outside = (axis[:, None] ** 2 + axis**2 > (0.42 * BOX) ** 2).float()
    naive = band.shell_mean(band.from_images(images * outside).abs().square().mean(0)) / outside.mean()
    assert naive[20] > 5 * spectrum[20]
    assert 0.8 < found[20] / spectrum[20] < 1.25


def test_images_cut_from_a_larger_field(generator: torch.Generator) -> None:
    """Opposite borders of a real image do not meet; the power is that of the images as they are, edges included."""
    field = sample_noise(2000, 120, 0.2 + 6 / (1 + (torch.arange(86) / 10) ** 2), generator)
    images, band = field[:, 20 : 20 + BOX, 30 : 30 + BOX].contiguous(), Band.to_nyquist(BOX)
    actual = band.shell_mean(band.from_images(images).abs().square().mean(0))
    found = estimate_noise(images, band, radius_px=0.35 * BOX)
    assert (found / actual - 1)[4:].abs().max() < 0.06


def test_streaming_is_the_same_as_all_at_once(generator: torch.Generator) -> None:
    images, band = torch.randn(90, BOX, BOX, generator=generator), Band(BOX, 20)
    accumulator = NoiseAccumulator(band, 20.0)
    for part in images.split(40):
        accumulator.add(part)
    assert accumulator.count == 90
    assert torch.allclose(accumulator.spectrum(), estimate_noise(images, band, radius_px=20.0), rtol=1e-5)


def test_a_circle_beyond_the_corners_leaves_some_background(generator: torch.Generator) -> None:
    images, band = torch.randn(3000, 32, 32, generator=generator), Band.to_nyquist(32)
    found = estimate_noise(images, band, radius_px=32.0)
    assert (found[3:] - 1).abs().max() < 0.15


def test_no_images_no_spectrum() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        NoiseAccumulator(Band(32, 10), 10.0).spectrum()


@pytest.mark.parametrize("box", [48, 49])
def test_drawn_noise_has_the_spectrum_it_was_drawn_from(box: int, generator: torch.Generator) -> None:
    spectrum = (1 / (1 + torch.arange(12) / 4)).float()
    images, band = sample_noise(2000, box, spectrum, generator), Band.to_nyquist(box)
    power = band.shell_mean(band.from_images(images).abs().square().mean(0))
    expected = torch.cat([spectrum, spectrum[-1].expand(band.limit - 11)])
    assert (power[1:] / expected[1:] - 1).abs().max() < 0.05
    assert images.mean().abs() < 0.02
    kurtosis = images.flatten().double().pow(4).mean() / images.flatten().double().var() ** 2
    assert kurtosis == pytest.approx(3.0, abs=0.05)


def test_noise_is_repeated_by_its_seed() -> None:
    spectrum = torch.ones(10)
    first, again = (sample_noise(2, 16, spectrum, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)


def test_whitened_noise_is_white(generator: torch.Generator) -> None:
    band = Band.to_nyquist(BOX)
    spectrum = SPECTRA["coloured"][: band.limit + 1].float()
    vectors = whiten(band.from_images(sample_noise(3000, BOX, spectrum, generator)), spectrum, band)
    power = vectors.abs().square().mean(0)
    assert power.mean() == pytest.approx(1.0, abs=0.01)
    assert (band.shell_mean(power)[2:] - 1).abs().max() < 0.03
    correlation = (vectors[:, 0] * vectors[:, 9].conj()).mean().abs()
    assert correlation < 4 / math.sqrt(3000)
