import math

import pytest
import torch

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.kernels.library import INSTRUCTION_SETS, library, limit_instructions
from hoarfrost.kernels.refine_poses import SlicedImages
from hoarfrost.poses.gauss_newton import GaussNewton, log_likelihood, normal_equations
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")

BOX, PIXEL, LIMIT, COUNT = 40, 3.0, 11, 40


@pytest.fixture(params=INSTRUCTION_SETS)
def instructions(request):
    best = limit_instructions(INSTRUCTION_SETS[-1])
    if limit_instructions(request.param) != request.param:
        limit_instructions(best)
        pytest.skip(f"this machine has no {request.param}")
    yield request.param
    limit_instructions(best)


@pytest.fixture(params=[False, True], ids=["plain", "magnified"])
def scene(request, generator):
    """Noisy images, density and poses somewhat off, in float64; magnified ones reach beyond the grid."""
    phantom = GaussianPhantom.random(25, 30.0, generator, sigma=5.0)
    band = Band(BOX, LIMIT)
    rotations = random_rotations(COUNT, generator)
    shifts = 2 * torch.randn(COUNT, 2, generator=generator, dtype=torch.float64)
    kx, ky = band.k.double().unbind(-1)
    transfer = torch.sin(0.02 * (kx**2 + 1.3 * ky**2) + 0.3).repeat(COUNT, 1)
    vectors = transfer * band.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL))
    scale = vectors.abs().square().sum(-1).mean().sqrt() / 30
    noise = torch.randn(*vectors.shape, 2, generator=generator, dtype=torch.float64) / math.sqrt(2)
    matrices = None
    if request.param:
        skew = torch.randn(COUNT, 2, 2, generator=generator, dtype=torch.float64)
        matrices = (1.08 * torch.eye(2, dtype=torch.float64) + 0.01 * skew).float().double()
    density = FourierVolume(phantom.volume(BOX, PIXEL).data.double() * PIXEL / scale, PIXEL, SliceGrid(BOX, LIMIT))
    images = BandImages(band, vectors / scale + torch.view_as_complex(noise), transfer, matrices)
    away = rotation_vector_to_matrix(0.05 * torch.randn(COUNT, 3, generator=generator, dtype=torch.float64))
    weight = 0.5 + torch.rand(len(band), generator=generator, dtype=torch.float64)
    return images, density, rotations @ away, shifts + 0.3, weight


def single(images, density):
    matrix = None if images.frequency_matrix is None else images.frequency_matrix.float()
    narrow = BandImages(images.band, images.vectors.to(torch.complex64), images.transfer.float(), matrix)
    return narrow, FourierVolume(density.volume.float(), density.voxel_size, density.grid)


def test_normal_equations_are_those_of_the_float64_twin(scene, instructions):
    images, density, rotations, shifts, weight = scene
    expected = normal_equations(images, density, rotations, shifts, weight)
    actual = normal_equations(*single(images, density), rotations, shifts, weight)
    size = expected.curvature.diagonal(dim1=-2, dim2=-1).sqrt()
    outer = size[:, :, None] * size[:, None]
    assert ((actual.curvature - expected.curvature) / outer).abs().max() < 2e-4
    assert ((actual.slope - expected.slope) / size).abs().max() < 2e-3
    torch.testing.assert_close(actual.log_likelihood.double(), expected.log_likelihood, rtol=1e-4, atol=1e-2)


def test_log_likelihood_is_that_of_the_float64_twin(scene, instructions):
    images, density, rotations, shifts, weight = scene
    expected = log_likelihood(images, density, rotations, shifts, weight)
    actual = log_likelihood(*single(images, density), rotations, shifts, weight)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-2)


def test_refined_poses_are_those_of_the_readable_path(scene, instructions, monkeypatch):
    images, density, rotations, shifts, weight = scene
    images, density = single(images, density)
    method = GaussNewton(weight.float(), 5)
    compiled = method.refine(images, density, rotations, shifts)
    monkeypatch.setattr(SlicedImages, "fits", lambda *_: False)
    readable = method.refine(images, density, rotations, shifts)
    assert geodesic_distance(rotations, readable.rotations).median() > math.radians(2)
    apart = geodesic_distance(compiled.rotations, readable.rotations)
    assert apart.quantile(0.9) < math.radians(1e-3)
    # Next to the optimum a step is taken or not by the last digit of the likelihood.
    assert apart.max() < math.radians(0.05)
    assert (compiled.shifts - readable.shifts).abs().quantile(0.9) < 1e-4
    torch.testing.assert_close(compiled.log_likelihood, readable.log_likelihood, rtol=1e-4, atol=1e-2)
    identity = compiled.rotations.mT @ compiled.rotations
    torch.testing.assert_close(identity, torch.eye(3, dtype=torch.float64).expand_as(identity), rtol=0, atol=1e-12)


def test_an_empty_image_keeps_its_pose(scene, instructions):
    images, density, rotations, shifts, weight = scene
    images, density = single(images, density)
    empty = BandImages(images.band, torch.zeros_like(images.vectors), torch.zeros_like(images.transfer))
    refined = GaussNewton(weight.float(), 3).refine(empty, density, rotations, shifts)
    torch.testing.assert_close(refined.rotations, rotations)
    torch.testing.assert_close(refined.shifts, shifts.float())


def test_results_do_not_depend_on_the_batch(scene, instructions):
    images, density, rotations, shifts, weight = scene
    images, density = single(images, density)
    method = GaussNewton(weight.float(), 2)
    whole = method.refine(images, density, rotations, shifts)
    part = method.refine(images[5:9], density, rotations[5:9], shifts[5:9])
    assert torch.equal(whole.rotations[5:9], part.rotations)
    assert torch.equal(whole.shifts[5:9], part.shifts)


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_points_are_read_as_in_the_float64_twin(channels, instructions, generator):
    grid = SliceGrid(20, 8)
    table = torch.randn(grid.shape[0] * grid.shape[1] * grid.shape[2], channels, generator=generator)
    reach = grid.centre * 1.05
    points = reach * (2 * torch.rand(3, 77, 3, generator=generator) - 1)
    expected = grid.extract(table.double(), points.double())
    actual = grid.extract(table, points)
    beyond = (points.abs() >= grid.centre).any(-1)
    assert 10 < beyond.sum() < 77
    assert (actual[beyond] == 0).all()
    torch.testing.assert_close(actual.to(torch.complex128), expected, rtol=0, atol=2e-5)


def test_derivatives_still_flow_where_they_are_wanted(generator):
    grid = SliceGrid(20, 8)
    table = torch.randn(grid.shape[0] * grid.shape[1] * grid.shape[2], 2, generator=generator, requires_grad=True)
    points = grid.points(random_rotations(2, generator).float(), Band(20, 8))
    grid.extract(table, points).abs().square().sum().backward()
    assert table.grad is not None
    assert table.grad.abs().sum() > 0
