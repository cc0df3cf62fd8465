import math

import pytest
import torch

from phantoms import GaussianPhantom

pytest.importorskip("hoarfrost.physics.ctf")

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, in_plane, random_rotations
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import least_turn, symmetric_distance
from hoarfrost.kernels.library import instruction_set, limit_instructions
from hoarfrost.poses.base import PosePosterior
from hoarfrost.poses.likelihood import SliceBank, best_over_shifts, score_candidates, weighted_data
from hoarfrost.poses.search import ExhaustiveSearch, coarse_orientations, search_bank
from hoarfrost.representations.voxel import FourierVolume

BOX, PIXEL, LIMIT = 32, 4.0, 8


@pytest.fixture
def scene(generator):
    phantom = GaussianPhantom.random(25, 40.0, generator, sigma=6.0)
    band = Band(BOX, LIMIT)
    rotations = random_rotations(20, generator)
    shifts = 3 * torch.rand(20, 2, generator=generator, dtype=torch.float64) - 1.5
    vectors = band.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL))
    scale = vectors.abs().square().sum(-1).mean().sqrt() / 20
    density = FourierVolume((phantom.volume(BOX, PIXEL).data * PIXEL / scale).float(), PIXEL, SliceGrid(BOX, LIMIT))
    vectors = (vectors / scale).to(torch.complex64)
    images = BandImages(band, vectors, torch.ones(20, len(band)))
    return images, density, rotations, shifts


def written_out(images, density, rotation, shift, weight):
    """S of the module docstring for one image, rotation and shift, term by term in float64."""
    slice_ = density.project(rotation[None].float(), images.band)[0].to(torch.complex128)
    moved = images.vectors.to(torch.complex128) * images.band.shift_phases(-shift.double())
    transfer = images.transfer.double()
    cross = 2 * (weight * transfer * (moved * slice_.conj()).real).sum(-1)
    return cross - (weight * transfer**2 * slice_.abs() ** 2).sum(-1)


def test_scores_agree_with_the_formula_at_orientations_and_half_turns(scene, generator):
    images, density, _, _ = scene
    weight = torch.rand(len(images.band), generator=generator) + 0.5
    bank = SliceBank.of(density, random_rotations(6, generator).float(), images.band)
    shifts = shift_grid(2.0, 3)
    data, power = weighted_data(images, weight)
    phases = images.band.shift_phases(-shifts)
    expected = torch.stack(
        [
            torch.stack([written_out(images, density, r, t, weight) for r in bank.rotations.double()], dim=-1)
            for t in shifts
        ],
        dim=1,
    )
    every = torch.arange(len(bank)).expand(len(images), -1)
    exact = score_candidates(data, power, phases, bank, every)
    # Half-turns are conjugated slices of the other orientation: equal up to interpolation, which is odd under them.
    torch.testing.assert_close(exact.double(), expected, rtol=1e-4, atol=0.02)
    fast = best_over_shifts(data, power, phases, bank)
    assert (fast - expected.amax(1)).abs().max() < 0.01 * expected.abs().max()


def test_search_finds_the_nearest_orientation_and_shift(scene):
    images, density, rotations, shifts = scene
    grid = OrientationGrid(2)
    search = ExhaustiveSearch(grid, shift_grid(2.0, 5), torch.ones(len(images.band)), keep=16)
    posterior = search.estimate(images, density)
    rotation, shift = posterior.mode
    distance = geodesic_distance(rotation.double(), rotations)
    assert distance.median() < 0.7 * grid.spacing
    assert (distance < 1.5 * grid.spacing).float().mean() > 0.9
    assert (shift - shifts).norm(dim=-1).median() < 0.8
    assert (posterior.log_likelihood.diff(dim=1) <= 0).all()
    torch.testing.assert_close(posterior.weights.sum(1), torch.ones(20))


@pytest.mark.skipif(instruction_set() in (None, "portable"), reason="no compiled search here")
def test_compiled_search_and_pytorch_find_the_same(scene):
    images, density, _, _ = scene
    search = ExhaustiveSearch(OrientationGrid(2), shift_grid(2.0, 5), torch.ones(len(images.band)), keep=16)
    bank = search.bank(density, images.band)
    fast = search_bank(images, bank, search.shifts, search.weight, 16)
    best = instruction_set()
    limit_instructions("portable")
    try:
        plain = search_bank(images, bank, search.shifts, search.weight, 16)
    finally:
        limit_instructions(best)
    scale = float(plain.log_likelihood.abs().max())
    torch.testing.assert_close(fast.log_likelihood[:, 0], plain.log_likelihood[:, 0], rtol=0, atol=2e-3 * scale)
    assert (fast.orientation[:, 0] == plain.orientation[:, 0]).float().mean() > 0.8


def test_turning_the_grid_turns_the_answer_with_it(scene, generator):
    images, density, rotations, _ = scene
    frame = random_rotations(1, generator)[0]
    search = ExhaustiveSearch(OrientationGrid(2), shift_grid(2.0, 3), torch.ones(len(images.band)), keep=4, frame=frame)
    rotation, _ = search.estimate(images, density).mode
    assert geodesic_distance(rotation.double(), rotations).median() < math.radians(12)


def test_confidence_is_the_weight_about_the_mode():
    turns = torch.tensor([0.0, 10.0, 19.0, 25.0, 90.0], dtype=torch.float64).deg2rad()
    log_likelihood = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()[None]
    posterior = PosePosterior(in_plane(turns)[None], torch.zeros(1, 5, 2), log_likelihood)
    torch.testing.assert_close(posterior.confidence, torch.tensor([0.85]))
    # Under a fourfold axis the view from 90 degrees is the same.
    symmetric = PosePosterior(in_plane(turns)[None], torch.zeros(1, 5, 2), log_likelihood, "C4")
    torch.testing.assert_close(symmetric.confidence, torch.tensor([0.90]))


@pytest.mark.parametrize("symmetry", ["C1", "C5", "C7", "D7", "O", "I"])
def test_every_pose_has_a_node_well_nearer_than_the_false_optimum_between_equivalent_ones(symmetry, generator):
    grid = coarse_orientations(symmetry)
    search = ExhaustiveSearch(grid, shift_grid(1.0, 1), torch.ones(1), 1, random_rotations(1, generator)[0], symmetry)
    half = search.rotations()
    nodes = torch.cat([half, torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=half.dtype)) @ half])
    poses = random_rotations(60, generator)
    nearest = torch.stack([symmetric_distance(pose.expand_as(nodes), nodes, symmetry).min() for pose in poses])
    assert float(nearest.max()) < 0.4 * min(least_turn(symmetry) / 2, math.radians(36))
