import pytest
import torch

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.representations.base import ParticleDensity, of_images
from hoarfrost.representations.basis import ParticleVolumes, VolumeBasis
from hoarfrost.representations.voxel import FourierVolume

BOX, LIMIT = 24, 8


@pytest.fixture
def basis(generator):
    volumes = torch.randn(3, BOX, BOX, BOX, generator=generator, dtype=torch.float64)
    return VolumeBasis(volumes, 3.0, SliceGrid(BOX, LIMIT))


def test_slices_mixed_are_slices_of_the_mixed_map(basis, generator):
    band, rotations = Band(BOX, LIMIT), random_rotations(6, generator)
    coefficients = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    stretch = torch.eye(2, dtype=torch.float64) + 0.03 * torch.randn(6, 2, 2, generator=generator, dtype=torch.float64)
    # The corners of a stretched band may lie beyond the grid.
    band = band.prefix(6)
    particles = ParticleVolumes(basis, coefficients)
    found = particles.project(rotations, band, stretch)
    for row in range(6):
        volume = basis.volumes[0] + coefficients[row, 0] * basis.volumes[1] + coefficients[row, 1] * basis.volumes[2]
        one = FourierVolume(volume, 3.0, basis.grid)
        torch.testing.assert_close(found[row], one.project(rotations[row : row + 1], band, stretch[row : row + 1])[0])
        torch.testing.assert_close(basis.at(coefficients[row]).volume, volume)
    mean = particles.to_volume(BOX).data
    torch.testing.assert_close(mean, basis.at(coefficients.mean(0)).volume)


def test_images_take_their_own_densities_along(basis, generator):
    coefficients = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    particles = ParticleVolumes(basis, coefficients)
    rows = torch.tensor([2, 2, 0])
    assert isinstance(particles, ParticleDensity)
    assert torch.equal(of_images(particles, rows).coefficients, coefficients[rows])
    common = basis.at(coefficients[0])
    assert of_images(common, rows) is common


def test_slices_are_differentiable_in_the_coefficients(basis, generator):
    band, rotations = Band(BOX, 3), random_rotations(2, generator)
    coefficients = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z: torch.view_as_real(ParticleVolumes(basis, z).project(rotations, band)), coefficients
    )
