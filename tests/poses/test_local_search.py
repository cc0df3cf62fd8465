import math

import pytest
import torch

from phantoms import GaussianPhantom

pytest.importorskip("hoarfrost.physics.ctf")

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.shift_grid import shift_cells
from hoarfrost.poses.gauss_newton import log_likelihood
from hoarfrost.poses.local_search import PoseCells, divide, local_search, pose_scores
from hoarfrost.representations.voxel import FourierVolume

BOX, PIXEL, LIMIT = 32, 4.0, 10


@pytest.fixture
def scene(generator):
    """Clean images of a phantom under an astigmatic transfer function and an anisotropic magnification."""
    phantom = GaussianPhantom.random(25, 40.0, generator, sigma=6.0)
    band = Band(BOX, LIMIT)
    rotations = random_rotations(20, generator)
    shifts = 3 * torch.rand(20, 2, generator=generator, dtype=torch.float64) - 1.5
    kx, ky = band.k.double().unbind(-1)
    transfer = torch.cos(0.02 * (kx**2 + 1.5 * ky**2)).expand(20, -1)
    vectors = transfer * band.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL))
    scale = vectors.abs().square().sum(-1).mean().sqrt() / 20
    density = FourierVolume((phantom.volume(BOX, PIXEL).data * PIXEL / scale).float(), PIXEL, SliceGrid(BOX, LIMIT, 3))
    images = BandImages(band, (vectors / scale).to(torch.complex64), transfer.float())
    return images, density, rotations, shifts


def near(rotations, degrees, generator):
    axis = torch.nn.functional.normalize(
        torch.randn(len(rotations), 3, generator=generator, dtype=torch.float64), dim=1
    )
    return rotations @ rotation_vector_to_matrix(math.radians(degrees) * axis)


@pytest.mark.parametrize("marginal", [False, True])
def test_scores_are_the_likelihood_at_the_best_or_mean_shift(scene, generator, marginal):
    images, density, rotations, shifts = scene
    stretch = torch.tensor([[1.02, 0.01], [0.01, 0.97]])
    images = BandImages(images.band, images.vectors, images.transfer, stretch.expand(20, 2, 2))
    weight = torch.rand(len(images.band), generator=generator) + 0.5
    rows, offsets = torch.tensor([3, 3, 0, 17, 8]), shift_cells(1.0, 3)
    turned = near(rotations[rows], 4.0, generator)
    values, best = pose_scores(images, density, rows, turned, shifts[rows].float(), offsets, weight, marginal=marginal)
    every = torch.stack(
        [log_likelihood(images[rows], density, turned, shifts[rows].float() + offset, weight) for offset in offsets], 1
    )
    expected = every.double().exp().mean(1).log() if marginal else every.double().amax(1)
    torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(best, shifts[rows].float() + offsets[every.argmax(1)])


def test_cells_about_poses_are_each_there_once(generator):
    rotations = random_rotations(5, generator)[:, None].expand(-1, 4, 3, 3).clone()
    rotations[:, 3] = random_rotations(5, generator)
    frame = random_rotations(1, generator)[0]
    cells = PoseCells.about(rotations, torch.zeros(5, 4, 2), 2, 1.0, frame=frame)
    assert torch.equal(cells.orientation >= 0, torch.tensor([[True, False, False, True]]).expand(5, -1))
    distance = geodesic_distance(cells.rotations[:, 0], rotations[:, 0])
    assert distance.max() < 1.1 * cells.grid.spacing
    around = PoseCells.about(rotations[:, :1], torch.zeros(5, 1, 2), 2, 1.0, frame=frame, neighbours=True)
    assert torch.equal(around.orientation[:, 0], cells.orientation[:, 0])
    assert around.orientation.shape == (5, 27)


def test_the_search_narrows_in_on_the_pose(scene, generator):
    images, density, rotations, shifts = scene
    start = near(rotations, 8.0, generator)[:, None]
    frame = random_rotations(1, generator)[0]
    cells = PoseCells.about(start, shifts[:, None].float() + 0.7, 2, 1.6, frame=frame, neighbours=True)
    posterior = local_search(images, density, cells, torch.ones(len(images.band)), (6, 8, 10), keep=16)
    rotation, shift = posterior.mode
    distance = geodesic_distance(rotation, rotations)
    assert distance.median() < math.radians(1.5)
    assert distance.max() < math.radians(3)
    assert (shift - shifts).norm(dim=-1).max() < 0.4
    assert (posterior.log_likelihood.diff(dim=1) <= 0).all()
    torch.testing.assert_close(posterior.weights.sum(1), torch.ones(20))
    assert (posterior.confidence > 0.999).all()


def test_what_is_unlikely_is_left_out_and_the_rest_unchanged(scene, generator):
    images, density, rotations, shifts = scene
    cells = PoseCells.about(near(rotations, 5.0, generator)[:, None], shifts[:, None].float(), 2, 1.0, neighbours=True)
    weight = torch.ones(len(images.band))
    every = divide(images, density, cells, weight, keep=64, shift_count=2)
    few = divide(images, density, cells, weight, keep=64, shift_count=2, depth=5.0)
    kept = few.orientation >= 0
    inside = every.log_likelihood > every.log_likelihood[:, :1] - 5
    assert torch.equal(kept.sum(1), inside.sum(1))
    width = few.orientation.shape[1]
    assert width < 64
    torch.testing.assert_close(few.log_likelihood[kept], every.log_likelihood[:, :width][kept])
    assert torch.equal(few.posterior().weights > 0, kept)
    onward = divide(images, density, few, weight, keep=8, shift_count=2)
    assert onward.grid.order == 4
    assert (onward.log_likelihood[:, 0] >= few.log_likelihood[:, 0] - 5).all()


def test_symmetric_alternatives_are_the_same_answer(scene):
    rotations = scene[2]
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    both = torch.stack([rotations, rotations @ half_turn], dim=1)
    cells = PoseCells.about(both, torch.zeros(20, 2, 2), 2, 1.0)
    cells = PoseCells(cells.grid, cells.frame, cells.orientation, cells.shifts, 1.0, torch.zeros(20, 2))
    torch.testing.assert_close(cells.posterior().confidence, torch.full((20,), 0.5))
    torch.testing.assert_close(cells.posterior("C2").confidence, torch.ones(20))
