"""RELION 3.1 reads the particle tables that hoarfrost writes, and makes the same maps of them."""

import math

import pytest
import torch
from benchmarks.relion_maps import agreement, levelled, relion_found, relion_reconstruct, soft_ball, with_truth

from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.reconstruct.assignment import split_halves
from hoarfrost.reconstruct.homogeneous import reconstruct
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.types import Optics, Poses
from phantoms import GaussianPhantom

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(not relion_found(), reason="RELION is not installed"),
]

COUNT, BOX, PIXEL, SNR = 1000, 48, 3.0, 1.0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a stack, a table of its true poses as hoarfrost writes it, and the density that it shows."""
    folder = tmp_path_factory.mktemp("project")
    generator = torch.Generator().manual_seed(8)
    phantom = GaussianPhantom.random(60, 45.0, generator, sigma=2.5)
    rotations = random_rotations(COUNT, generator)
    shifts = PIXEL * (8 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64) - 4)
    defocus = 6000 + 12000 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(COUNT, pixel_size=PIXEL).replace(
        defocus_u=defocus + 250,
        defocus_v=defocus - 250,
        defocus_angle=math.pi * torch.rand(COUNT, generator=generator, dtype=torch.float64),
    )
    band = Band.to_nyquist(BOX)
    clean = band.from_images(phantom.project(rotations, shifts, BOX, PIXEL))
    images = band.to_images(clean * contrast_transfer_function(optics, band.frequency)).float()
    images /= images.std()
    images += torch.randn(images.shape, generator=generator) / math.sqrt(SNR)
    write_stack(folder / "images.mrcs", [images], count=COUNT, box=BOX, pixel_size=PIXEL)
    particles = read_particles(folder / "images.mrcs").replace(
        optics=optics, poses=Poses(rotations, shifts), half=split_halves(COUNT, None, seed=1)
    )
    write_particles(particles, folder / "particles.star")
    return folder, phantom.volume(BOX, PIXEL)


@pytest.fixture(scope="module")
def ours(project):
    """Our half-maps of that table by their number, as arrays."""
    maps = reconstruct(read_particles(project[0] / "particles.star"), ReconstructConfig(diameter=100.0)).maps.half_maps
    return {1: array(maps.first), 2: array(maps.second)}


def array(volume):
    return volume.data.double().numpy()


@pytest.mark.parametrize("half", [1, 2])
def test_maps_of_one_table_agree(half, project, ours):
    """FSC above 0.98 to half Nyquist, and the same resolution against the truth within one shell."""
    folder, truth = project
    theirs = relion_reconstruct(folder / "particles.star", folder / f"{half}.mrc", project=folder, half=half)
    ball = soft_ball(BOX, 0.4 * BOX)
    masked = [levelled(data, ball) for data in (ours[half], theirs, array(truth))]
    found = with_truth(agreement(ours[half], theirs), *masked)
    assert found.least > 0.98
    assert abs(found.our_crossing - found.their_crossing) < 1
    assert found.our_crossing > 0.6 * BOX / 2, "both are blurred: agreement would mean little"


def test_the_comparison_sees_a_wrong_sign(project, ours):
    """Shifts or angles of the other sign would not pass."""
    folder, _ = project
    particles = read_particles(folder / "particles.star")
    for poses in (
        particles.poses.replace(shifts=-particles.poses.shifts),
        particles.poses.replace(rotations=particles.poses.rotations.mT.contiguous()),
    ):
        write_particles(particles.replace(poses=poses), folder / "wrong.star")
        wrong = relion_reconstruct(folder / "wrong.star", folder / "wrong.mrc", project=folder, half=1)
        assert agreement(ours[1], wrong).least < 0.5
