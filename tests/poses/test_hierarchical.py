import math

import pytest
import torch

from phantoms import GaussianPhantom

pytest.importorskip("hoarfrost.physics.ctf")

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations
from hoarfrost.geometry.shift_grid import shift_cells
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import in_asymmetric_unit, symmetric_distance
from hoarfrost.poses.gauss_newton import log_likelihood
from hoarfrost.poses.hierarchical import HierarchicalSearch
from hoarfrost.poses.search import ExhaustiveSearch
from hoarfrost.representations.basis import ParticleVolumes, VolumeBasis
from hoarfrost.representations.voxel import FourierVolume

BOX, PIXEL, LIMIT = 40, 3.0, 14


def scene(generator, phantom=None):
    """Clean images of a phantom under a strongly astigmatic transfer function."""
    phantom = phantom or GaussianPhantom.random(25, 36.0, generator, sigma=4.0)
    band = Band(BOX, LIMIT)
    rotations = random_rotations(16, generator)
    shifts = 8 * torch.rand(16, 2, generator=generator, dtype=torch.float64) - 4
    kx, ky = band.k.double().unbind(-1)
    transfer = torch.cos(0.02 * (kx**2 + 2.5 * ky**2)).expand(16, -1)
    vectors = transfer * band.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL))
    scale = vectors.abs().square().sum(-1).mean().sqrt() / 30
    density = FourierVolume((phantom.volume(BOX, PIXEL).data * PIXEL / scale).float(), PIXEL, SliceGrid(BOX, LIMIT, 3))
    return BandImages(band, (vectors / scale).to(torch.complex64), transfer.float()), density, rotations, shifts


def test_defaults_are_those_published():
    search = HierarchicalSearch(torch.ones(1))
    assert [search.limit(level) for level in range(search.n_iter + 1)] == [12, 17, 22, 27, 32]
    assert search.shift_count == 14
    assert len(OrientationGrid(search.base_healpix)) == 4608
    # The last level: 0.94 degrees and 0.18 pixels.
    last = OrientationGrid(search.base_healpix + search.n_iter)
    assert math.degrees(last.spacing) == pytest.approx(0.94, abs=0.01)
    assert 2 * search.t_extent / search.shift_count / 2**search.n_iter == pytest.approx(0.179, abs=0.001)


def test_it_ends_on_the_finest_grid(generator):
    images, density, rotations, shifts = scene(generator)
    frame = random_rotations(1, generator)[0]
    search = HierarchicalSearch(torch.ones(len(images.band)), l_start=8, l_end=LIMIT, t_extent=6.0, frame=frame)
    posterior = search.estimate(images, density)
    rotation, shift = posterior.mode
    distance = geodesic_distance(rotation, rotations)
    assert distance.median() < math.radians(0.8)
    assert distance.max() < math.radians(2.5)
    assert (shift - shifts).norm(dim=-1).median() < 0.1
    assert posterior.rotations.shape[1] == search.n_kept_poses
    weight = torch.ones(len(images.band))
    again = log_likelihood(images, density, rotation, shift, weight)
    torch.testing.assert_close(posterior.log_likelihood[:, 0], again, rtol=1e-4, atol=0.01)


def test_its_coarse_stage_is_the_exhaustive_search(generator):
    images, density, _, _ = scene(generator)
    weight = torch.ones(len(images.band))
    search = HierarchicalSearch(weight, l_start=LIMIT, l_end=LIMIT, n_iter=0, t_extent=5.0, t_n_grid=2)
    own = search.estimate(images, density)
    grid = ExhaustiveSearch(OrientationGrid(2), shift_cells(5.0, 4), weight, keep=8).estimate(images, density)
    torch.testing.assert_close(own.log_likelihood, grid.log_likelihood)
    assert geodesic_distance(own.rotations, grid.rotations.double()).max() < 1e-3


def test_every_image_is_searched_in_its_own_density(generator):
    """Images of two shapes: with the mean of both for all, some are lost; with the right one for each, none."""
    first, second = (GaussianPhantom.random(10, 36.0, generator, sigma=4.0) for _ in range(2))
    one, density_one, rotations_one, shifts_one = scene(generator, first)
    two, density_two, rotations_two, shifts_two = scene(generator, second)
    volumes = torch.stack([density_one.volume, density_two.volume])
    mean, difference = volumes.mean(0), (volumes[0] - volumes[1]) / 2
    basis = VolumeBasis(torch.stack([mean, difference]), PIXEL, density_one.grid)
    images = BandImages(one.band, torch.cat([one.vectors, two.vectors]), torch.cat([one.transfer, two.transfer]))
    sides = torch.tensor([1.0, -1.0]).repeat_interleave(16)[:, None]
    search = HierarchicalSearch(
        torch.ones(len(images.band)), l_start=8, l_end=LIMIT, n_iter=2, t_extent=5.0, t_n_grid=4
    )
    rotations, shifts = torch.cat([rotations_one, rotations_two]), torch.cat([shifts_one, shifts_two])
    own = search.estimate(images, ParticleVolumes(basis, sides))
    assert geodesic_distance(own.mode[0], rotations).max() < math.radians(5)
    assert (own.mode[1] - shifts).norm(dim=-1).max() < 0.7
    alone = search.estimate(one, density_one)
    torch.testing.assert_close(own.log_likelihood[:16, 0], alone.log_likelihood[:, 0], rtol=1e-3, atol=0.05)
    common = search.estimate(images, basis.at(torch.zeros(1)))
    assert (common.log_likelihood[:, 0] < own.log_likelihood[:, 0]).all()


def test_one_asymmetric_unit_is_enough(generator):
    half = GaussianPhantom.random(8, 36.0, generator, sigma=4.0)
    turn = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    whole = GaussianPhantom(
        torch.cat([half.centres, half.centres * turn]), half.sigmas.repeat(2), half.masses.repeat(2)
    )
    images, density, rotations, _ = scene(generator, whole)
    weight = torch.ones(len(images.band))
    search = HierarchicalSearch(weight, l_start=8, l_end=LIMIT, n_iter=0, t_extent=5.0, t_n_grid=4, symmetry="C2")
    coarse = search.estimate(images, density)
    assert in_asymmetric_unit(coarse.rotations[..., 2, :], "C2").all()
    found = HierarchicalSearch(weight, l_start=8, l_end=LIMIT, n_iter=2, t_extent=5.0, t_n_grid=4, symmetry="C2")
    posterior = found.estimate(images, density)
    assert symmetric_distance(posterior.mode[0], rotations, "C2").median() < math.radians(3)
    assert posterior.symmetry == "C2"
