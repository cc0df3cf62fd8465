import math

import pytest
import torch

from phantoms import GaussianPhantom

pytest.importorskip("hoarfrost.physics.ctf")

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.poses.gauss_newton import normal_equations
from hoarfrost.poses.gradient import PoseAdam, PoseTable, value_and_slope
from hoarfrost.poses.likelihood import likelihood_at
from hoarfrost.representations.voxel import FourierVolume

BOX, PIXEL, LIMIT = 40, 3.0, 12


@pytest.fixture
def scene(generator):
    phantom = GaussianPhantom.random(25, 30.0, generator, sigma=5.0)
    band = Band(BOX, LIMIT)
    rotations = random_rotations(12, generator)
    shifts = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    kx, ky = band.k.double().unbind(-1)
    transfer = torch.sin(0.02 * (kx**2 + 1.3 * ky**2) + 0.3).expand(12, -1)
    vectors = transfer * band.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL))
    scale = vectors.abs().square().sum(-1).mean().sqrt() / 30
    density = FourierVolume(
        phantom.volume(BOX, PIXEL).data.double() * PIXEL / scale, PIXEL, SliceGrid(BOX, LIMIT, padding=3)
    )
    away = rotation_vector_to_matrix(0.06 * torch.randn(12, 3, generator=generator, dtype=torch.float64))
    return BandImages(band, vectors / scale, transfer), density, rotations, shifts, rotations @ away


def test_the_slope_is_that_of_gauss_newton_and_of_differences(scene, generator):
    images, density, _, shifts, start = scene
    weight = torch.rand(len(images.band), generator=generator, dtype=torch.float64) + 0.5
    value, slope = value_and_slope(images, density, start, shifts + 0.2, weight)
    equations = normal_equations(images, density, start, shifts + 0.2, weight)
    torch.testing.assert_close(value, equations.log_likelihood, rtol=1e-9, atol=1e-9)
    # Both are slopes of one function; Gauss-Newton's uses the smoother gradient of the unsampled transform.
    assert (slope - 2 * equations.slope).norm() < 0.1 * slope.norm()
    for axis in range(5):
        change = torch.zeros(5, dtype=torch.float64)
        change[axis] = 1e-7
        both = [
            likelihood_at(
                images,
                density,
                start @ rotation_vector_to_matrix(s * change[:3]),
                shifts + 0.2 + s * change[3:],
                weight,
            )
            for s in (1, -1)
        ]
        torch.testing.assert_close((both[0] - both[1]) / 2e-7, slope[:, axis], rtol=1e-4, atol=1e-2)


def test_it_climbs_to_the_pose(scene):
    images, density, rotations, shifts, start = scene
    weight = torch.ones(len(images.band), dtype=torch.float64)
    table = PoseTable.of(start, shifts + 0.4)
    began = likelihood_at(images, density, start, shifts + 0.4, weight)
    _, best = PoseAdam(weight, iterations=60).advance(images, density, table)
    assert geodesic_distance(start, rotations).median() > math.radians(4)
    assert geodesic_distance(best.rotations, rotations).median() < math.radians(0.6)
    assert (best.shifts - shifts).norm(dim=-1).median() < 0.05
    assert (best.log_likelihood >= began).all()
    torch.testing.assert_close(best.rotations @ best.rotations.mT, torch.eye(3, dtype=torch.float64).expand(12, 3, 3))


def test_only_the_rows_of_a_batch_move_and_history_is_kept(scene):
    images, density, _, shifts, start = scene
    method = PoseAdam(torch.ones(len(images.band), dtype=torch.float64), iterations=3)
    whole = PoseTable.of(start, shifts)
    rows = torch.tensor([1, 4, 7])
    batch, _ = method.advance(images[rows], density, whole[rows])
    table = whole.updated(rows, batch)
    others = torch.tensor([row for row in range(12) if row not in rows])
    for before, after in zip(whole[others].columns, table[others].columns, strict=True):
        assert torch.equal(before, after)
    assert torch.equal(table.steps[rows], torch.full((3,), 3))
    # Three steps and three more from the table are six at once.
    twice, _ = method.advance(images[rows], density, table[rows])
    once, _ = PoseAdam(method.weight, iterations=6).advance(images[rows], density, whole[rows])
    for first, second in zip(twice.columns, once.columns, strict=True):
        torch.testing.assert_close(first, second)


def test_an_empty_image_keeps_its_pose(scene):
    images, density, _, shifts, start = scene
    empty = BandImages(images.band, torch.zeros_like(images.vectors), torch.zeros_like(images.transfer))
    table, best = PoseAdam(torch.ones(len(images.band))).advance(empty, density, PoseTable.of(start, shifts))
    torch.testing.assert_close(table.rotations, start)
    torch.testing.assert_close(best.shifts, shifts)
