import math

import pytest
import torch

from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.errors import InputError
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.reconstruct.homogeneous import back_project_particles
from hoarfrost.types import ImageArray, Optics, Particles, Poses
from phantoms import GaussianPhantom

BOX, PIXEL, COUNT = 36, 4.0, 600


@pytest.fixture(scope="module")
def scene():
    """Particles of two optics groups whose pixel sizes differ by eight per cent."""
    generator = torch.Generator().manual_seed(9)
    phantom = GaussianPhantom.random(20, 45.0, generator, sigma=6.0)
    band = Band.to_nyquist(BOX)
    rotations = random_rotations(COUNT, generator)
    shifts = 10 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64) - 5
    group = torch.arange(COUNT) % 2
    pixel = torch.where(group == 0, PIXEL, 1.08 * PIXEL).double()
    defocus = 8000 + 10000 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(COUNT, pixel_size=PIXEL).replace(
        defocus_u=defocus, defocus_v=defocus, pixel_size=pixel, group=group
    )
    vectors = torch.empty(COUNT, len(band), dtype=torch.complex128)
    for number, size in enumerate((PIXEL, 1.08 * PIXEL)):
        mine = group == number
        vectors[mine] = band.from_images(phantom.project(rotations[mine], shifts[mine], BOX, size)) * size**2
    images = band.to_images(vectors * contrast_transfer_function(optics, band.frequency)).float()
    images = images / images.std() + torch.randn(images.shape, generator=generator) / math.sqrt(2.0)
    return Particles(ImageArray(images), optics, Poses(rotations, shifts)), phantom


def test_known_poses_give_the_map(scene):
    particles, phantom = scene
    maps = back_project_particles(particles, diameter=125.0)
    fsc = fourier_shell_correlation(maps.map, phantom.volume(BOX, particles.pixel_size))
    assert fsc[1:10].min() > 0.9
    assert maps.fsc.resolution(0.143) < 14


def test_each_particle_counts_at_its_own_pixel_size(scene):
    particles, phantom = scene
    collapsed = particles.replace(optics=particles.optics.replace(pixel_size=torch.full((COUNT,), PIXEL).double()))
    truth = phantom.volume(BOX, particles.pixel_size)
    own = fourier_shell_correlation(back_project_particles(particles, diameter=125.0).map, truth)
    same = fourier_shell_correlation(back_project_particles(collapsed, diameter=125.0).map, truth)
    assert own[4:11].mean() > same[4:11].mean() + 0.02


def test_particles_without_poses_are_refused(scene):
    particles, _ = scene
    with pytest.raises(InputError, match="no poses"):
        back_project_particles(particles.replace(poses=None))
