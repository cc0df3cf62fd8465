"""What is measured on a whole stack."""

import torch

from hoarfrost.data.dataset import BandStack, Normalisation, estimate_noise, whitened_vectors
from hoarfrost.fourier.band import Band
from hoarfrost.physics.noise import sample_noise
from hoarfrost.types import ImageArray, Optics, Particles

BOX = 32
SHELL = torch.arange(24)
STEEP = 0.1 + 10 / (1 + (SHELL / 4) ** 2)


def test_each_optics_group_has_its_own_noise(generator: torch.Generator) -> None:
    """Of images on a background of deviation one; a group of which few images are seen has the noise of all."""
    group = torch.tensor([0] * 600 + [1] * 600 + [2] * 40)
    parts = [sample_noise(count, BOX, power, generator) for count, power in ((600, torch.ones(24)), (640, STEEP))]
    optics = Optics.uniform(len(group), pixel_size=2.0).replace(group=group)
    stack, band = Particles(ImageArray(torch.cat(parts)), optics), Band.to_nyquist(BOX)
    white, steep, few = estimate_noise(stack, band, Normalisation(0.3 * BOX), sample=len(group))[:, 3:]
    assert (white - 1).abs().max() < 0.1
    # The deviation of a pixel is the mean power of all coefficients.
    ky = torch.fft.fftfreq(BOX, 1 / BOX)
    shell = torch.hypot(ky[:, None], ky).round().long()
    assert (steep / (STEEP / STEEP[shell].mean())[3 : band.limit + 1] - 1).abs().max() < 0.15
    assert (few / ((600 * white + 640 * steep) / 1240) - 1).abs().max() < 0.05


def test_stored_images_are_the_whitened_ones_any_number_of_them(tmp_path, generator: torch.Generator) -> None:
    """Half precision keeps three digits; a batch may be empty, as where no particle is left for a class."""
    images = torch.randn(40, BOX, BOX, generator=generator)
    stack, band = Particles(ImageArray(images), Optics.uniform(40, pixel_size=2.0)), Band(BOX, 10)
    noise, normalisation = torch.ones(1, band.limit + 1), Normalisation(0.3 * BOX)
    stored = BandStack(tmp_path / "bands", band, stack.optics, 2.0, noise)
    stored.allocate()
    stored.write(slice(0, 40), stack, normalisation)
    low = band.prefix(6)
    for rows in (torch.arange(40), torch.tensor([17, 3, 3]), torch.zeros(0, dtype=torch.long)):
        exact = whitened_vectors(stack, rows, low, normalisation, noise) if len(rows) else torch.zeros(0, len(low))
        found = stored.images(rows, low).vectors
        assert found.shape == exact.shape
        torch.testing.assert_close(found, exact.to(found), rtol=2e-3, atol=1e-3)
