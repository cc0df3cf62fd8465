import math

import pytest
import torch

from phantoms import GaussianPhantom

pytest.importorskip("hoarfrost.physics.ctf")

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.poses.gauss_newton import GaussNewton, information_limit, log_likelihood, normal_equations
from hoarfrost.representations.voxel import FourierVolume

BOX, PIXEL, LIMIT = 40, 3.0, 12


@pytest.fixture
def scene(generator):
    """Images of a phantom with a transfer function that differs by direction, noise-free, in float64."""
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
    return BandImages(band, vectors / scale, transfer), density, rotations, shifts


def test_slope_and_curvature_are_those_of_the_likelihood(scene, generator):
    images, density, rotations, shifts = scene
    weight = torch.rand(len(images.band), generator=generator, dtype=torch.float64) + 0.5
    turned = rotations @ rotation_vector_to_matrix(0.03 * torch.randn(12, 3, generator=generator, dtype=torch.float64))
    moved = shifts + 0.2
    equations = normal_equations(images, density, turned, moved, weight)
    torch.testing.assert_close(
        equations.log_likelihood, log_likelihood(images, density, turned, moved, weight), rtol=1e-9, atol=1e-9
    )
    step, scale = 1e-3, equations.slope.norm(dim=0)
    for axis in range(5):
        change = torch.zeros(5, dtype=torch.float64)
        change[axis] = step
        values = [
            log_likelihood(
                images,
                density,
                turned @ rotation_vector_to_matrix(sign * change[:3]),
                moved + sign * change[3:],
                weight,
            )
            for sign in (1, -1)
        ]
        measured = (values[0] - values[1]) / (2 * step)
        assert (measured - 2 * equations.slope[:, axis]).norm() < 0.1 * 2 * scale[axis]


def test_refinement_finds_the_pose_again(scene, generator):
    images, density, rotations, shifts = scene
    away = rotation_vector_to_matrix(0.08 * torch.randn(12, 3, generator=generator, dtype=torch.float64))
    weight = torch.ones(len(images.band), dtype=torch.float64)
    start = rotations @ away
    refined = GaussNewton(weight, iterations=6).refine(images, density, start, shifts + 0.4)
    before = geodesic_distance(start, rotations)
    after = geodesic_distance(refined.rotations, rotations)
    assert before.median() > math.radians(4)
    assert after.median() < math.radians(0.15)
    assert (refined.shifts - shifts).abs().median() < 0.02
    began = log_likelihood(images, density, start, shifts + 0.4, weight)
    assert (refined.log_likelihood >= began).all()


def test_an_empty_image_keeps_its_pose_finite(scene):
    images, density, rotations, shifts = scene
    empty = BandImages(images.band, torch.zeros_like(images.vectors), torch.zeros_like(images.transfer))
    refined = GaussNewton(torch.ones(len(images.band), dtype=torch.float64)).refine(empty, density, rotations, shifts)
    assert refined.rotations.isfinite().all()
    assert refined.shifts.isfinite().all()


def test_errors_of_noisy_images_meet_the_information_limit(scene, generator):
    images, density, rotations, shifts = scene
    weight = torch.ones(len(images.band), dtype=torch.float64)
    turns, moves, limits = [], [], None
    for _ in range(20):
        noise = torch.randn(*images.vectors.shape, 2, generator=generator, dtype=torch.float64) / math.sqrt(2)
        noisy = BandImages(images.band, images.vectors + torch.view_as_complex(noise), images.transfer)
        refined = GaussNewton(weight, iterations=5).refine(noisy, density, rotations, shifts)
        turns.append(geodesic_distance(refined.rotations, rotations).square())
        moves.append((refined.shifts - shifts).square().sum(-1))
        limits = information_limit(normal_equations(noisy, density, rotations, shifts, weight))
    turn, move = torch.stack(turns).mean(0).sqrt(), torch.stack(moves).mean(0).sqrt()
    assert 0.85 < (turn / limits[0]).median() < 1.25
    assert 0.85 < (move / limits[1]).median() < 1.25
