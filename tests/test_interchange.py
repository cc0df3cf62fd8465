"""Every density with every pose estimator on one small phantom; a new class is done when it is in this table."""

import math

import pytest
import torch

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.poses.base import PoseEstimator
from hoarfrost.poses.fixed import FixedPoses
from hoarfrost.poses.gauss_newton import GaussNewton, PoseRefinement
from hoarfrost.poses.search import ExhaustiveSearch
from hoarfrost.representations.base import Density
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom

BOX, PIXEL, LIMIT = 32, 4.0, 9
BAND = Band(BOX, LIMIT)


def scene():
    generator = torch.Generator().manual_seed(7)
    phantom = GaussianPhantom.random(14, 45.0, generator, sigma=6.0)
    rotations = random_rotations(16, generator)
    shifts = 3 * torch.rand(16, 2, generator=generator, dtype=torch.float64) - 1.5
    clean = BAND.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL))
    scale = clean.abs().square().sum(-1).mean().sqrt() / 25
    noise = torch.view_as_complex(torch.randn(16, len(BAND), 2, generator=generator)) / math.sqrt(2)
    images = BandImages(BAND, (clean / scale).to(torch.complex64) + noise, torch.ones(16, len(BAND)))
    return phantom, float(PIXEL / scale), images, rotations, shifts, generator


def densities(phantom, scale):
    volume = (phantom.volume(BOX, PIXEL).data * scale).float()
    return {
        "voxels, padding 2": FourierVolume(volume, PIXEL, SliceGrid(BOX, LIMIT, 2)),
        "voxels, padding 3": FourierVolume(volume, PIXEL, SliceGrid(BOX, LIMIT, 3)),
    }


def estimators(rotations, shifts, generator):
    """Each with the median error in degrees that it may leave."""
    weight = torch.ones(len(BAND))
    near = rotations @ rotation_vector_to_matrix(0.06 * torch.randn(16, 3, generator=generator, dtype=torch.float64))
    return {
        "fixed": (FixedPoses(rotations, shifts.float()), 1e-3),
        "search": (ExhaustiveSearch(OrientationGrid(2), shift_grid(2.0, 5), weight, keep=8), 10.0),
        "gauss-newton": (PoseRefinement(GaussNewton(weight, 5), near, shifts.float() + 0.3), 2.0),
    }


@pytest.mark.parametrize("density_name", ["voxels, padding 2", "voxels, padding 3"])
@pytest.mark.parametrize("estimator_name", ["fixed", "search", "gauss-newton"])
def test_every_density_with_every_estimator(density_name, estimator_name):
    phantom, scale, images, rotations, shifts, generator = scene()
    density = densities(phantom, scale)[density_name]
    estimator, allowed = estimators(rotations, shifts, generator)[estimator_name]
    assert isinstance(density, Density)
    assert isinstance(estimator, PoseEstimator)
    posterior = estimator.estimate(images, density)
    rotation, shift = posterior.mode
    assert geodesic_distance(rotation.double(), rotations).median() <= math.radians(allowed)
    assert (shift.double() - shifts).norm(dim=-1).median() < 0.9
    assert posterior.log_likelihood.isfinite().all()
    torch.testing.assert_close(posterior.weights.sum(1), torch.ones(16))
