"""Every density with every pose estimator on one small phantom; a new class is done when it is in this table."""

import functools
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
from hoarfrost.poses.gradient import GradientRefinement, PoseAdam
from hoarfrost.poses.hierarchical import HierarchicalSearch
from hoarfrost.poses.local_search import LocalSearch, PoseCells
from hoarfrost.poses.search import ExhaustiveSearch
from hoarfrost.reconstruct.backprojection import FoldedSums, node_shells
from hoarfrost.reconstruct.fits import FitSetting
from hoarfrost.reconstruct.neural_fit import NeuralFit
from hoarfrost.representations.base import Density, ParticleDensity
from hoarfrost.representations.basis import ParticleVolumes, VolumeBasis
from hoarfrost.representations.gaussians import GaussianDensity
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom

BOX, PIXEL, LIMIT = 32, 4.0, 9
BAND = Band(BOX, LIMIT)


def scene(vary=0.0):
    """Images of a phantom and, where ``vary`` says so, of two more that each image has more or less of."""
    generator = torch.Generator().manual_seed(7)
    phantoms = [GaussianPhantom.random(count, 45.0, generator, sigma=6.0) for count in (14, 5, 5)]
    rotations = random_rotations(16, generator)
    shifts = 3 * torch.rand(16, 2, generator=generator, dtype=torch.float64) - 1.5
    coefficients = vary * torch.randn(16, 2, generator=generator, dtype=torch.float64)
    shares = torch.cat([torch.ones(16, 1, dtype=torch.float64), coefficients], dim=1)
    clean = sum(
        BAND.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL)) * share[:, None]
        for phantom, share in zip(phantoms, shares.T, strict=True)
    )
    scale = clean.abs().square().sum(-1).mean().sqrt() / 25
    noise = torch.view_as_complex(torch.randn(16, len(BAND), 2, generator=generator)) / math.sqrt(2)
    images = BandImages(BAND, (clean / scale).to(torch.complex64) + noise, torch.ones(16, len(BAND)))
    volumes = torch.stack([phantom.volume(BOX, PIXEL).data for phantom in phantoms]) * float(PIXEL / scale)
    return volumes, coefficients.float(), images, rotations, shifts, generator


@functools.cache
def network():
    """A network trained on the transform of the scene's map."""
    (volume, *_), *_ = scene()
    grid = SliceGrid(BOX, LIMIT)
    values, shells = grid.forward(volume * grid.gridding_kernel(volume) ** 2), node_shells(grid)
    sums = FoldedSums(grid, values, (shells <= LIMIT).float())
    setting = FitSetting(BOX, PIXEL, 60.0, 1, torch.ones(LIMIT + 1))
    fit = NeuralFit(iterations=250, batch=1024, points=64, width=64)
    state = fit.begin(sums, setting, None)
    for step in range(fit.steps):
        state, _ = fit.run(sums, setting, state, step)
    return fit.density(state, setting)


def densities(volumes, coefficients):
    basis = VolumeBasis(volumes, PIXEL, SliceGrid(BOX, LIMIT, 3))
    return {
        "voxels, padding 2": FourierVolume(volumes[0], PIXEL, SliceGrid(BOX, LIMIT, 2)),
        "voxels, padding 3": FourierVolume(volumes[0], PIXEL, SliceGrid(BOX, LIMIT, 3)),
        "a point of a basis": basis.at(torch.zeros(2)),
        "a basis, image by image": ParticleVolumes(basis, coefficients),
        "a network": network(),
        "Gaussians": gaussians(float(volumes[0].sum()), 1),
        "Gaussians with axes": gaussians(float(volumes[0].sum()), 3),
    }


def gaussians(mass, axes):
    """The first phantom of the scene."""
    phantom = GaussianPhantom.random(14, 45.0, torch.Generator().manual_seed(7), sigma=6.0)
    return GaussianDensity(
        centres=phantom.centres.float(),
        masses=(phantom.masses * (mass / phantom.masses.sum())).float(),
        scales=phantom.sigmas.float()[:, None].expand(-1, axes),
        quaternions=None if axes == 1 else torch.tensor([0.0, 0.6, 0.0, 0.8]).expand(14, 4),
        box=BOX,
        voxel_size=PIXEL,
    )


def estimators(rotations, shifts, generator):
    """Each with the median error in degrees that it may leave."""
    weight = torch.ones(len(BAND))
    near = rotations @ rotation_vector_to_matrix(0.06 * torch.randn(16, 3, generator=generator, dtype=torch.float64))
    away, cells = shifts.float() + 0.3, PoseCells.about(near[:, None], shifts[:, None], 2, 1.5, neighbours=True)
    return {
        "fixed": (FixedPoses(rotations, shifts.float()), 1e-3),
        "search": (ExhaustiveSearch(OrientationGrid(2), shift_grid(2.0, 5), weight, keep=8), 10.0),
        "hierarchical": (HierarchicalSearch(weight, l_start=7, l_end=LIMIT, n_iter=3, t_extent=3.0, t_n_grid=3), 3.0),
        "local search": (LocalSearch(cells, weight, (7, 8, LIMIT)), 3.0),
        "gradient": (GradientRefinement(PoseAdam(weight), near, away), 2.5),
        "gauss-newton": (PoseRefinement(GaussNewton(weight, 5), near, away), 2.0),
    }


ESTIMATORS = ("fixed", "search", "hierarchical", "local search", "gradient", "gauss-newton")
ONE_DENSITY = (
    "voxels, padding 2",
    "voxels, padding 3",
    "a point of a basis",
    "Gaussians",
    "Gaussians with axes",
)
OWN_DENSITIES = ("fixed", "hierarchical", "local search", "gradient")
"""Estimators for which every image may have a density of its own."""

PAIRS = [(name, density) for density in ONE_DENSITY for name in ESTIMATORS]
# Gauss-Newton takes its derivatives from the network's map, which a short training leaves too rough for its bar.
PAIRS += [(name, "a network") for name in ESTIMATORS if name != "gauss-newton"]
PAIRS += [(name, "a basis, image by image") for name in OWN_DENSITIES]


@pytest.mark.parametrize(("estimator_name", "density_name"), PAIRS)
def test_every_density_with_every_estimator(estimator_name, density_name):
    vary = 0.8 if density_name == "a basis, image by image" else 0.0
    volumes, coefficients, images, rotations, shifts, generator = scene(vary)
    density = densities(volumes, coefficients)[density_name]
    estimator, allowed = estimators(rotations, shifts, generator)[estimator_name]
    assert isinstance(density, Density)
    assert isinstance(density, ParticleDensity) == (vary > 0)
    assert isinstance(estimator, PoseEstimator)
    posterior = estimator.estimate(images, density)
    rotation, shift = posterior.mode
    assert geodesic_distance(rotation.double(), rotations).median() <= math.radians(allowed)
    assert (shift.double() - shifts).norm(dim=-1).median() < 0.9
    assert not posterior.log_likelihood.isnan().any()
    assert posterior.log_likelihood[:, 0].isfinite().all()
    torch.testing.assert_close(posterior.weights.sum(1), torch.ones(16))
    assert ((posterior.confidence > 0) & (posterior.confidence < 1 + 1e-5)).all()
