"""Pose alignment: a known frame, hand and origin are found again, whatever some particles say."""

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.analysis.alignment import align_rotations, fit_origin, rotation_errors
from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import (
    geodesic_distance,
    mirror,
    random_rotations,
    rotation_vector_to_matrix,
)
from hoarfrost.geometry.symmetry import point_group
from phantoms import GaussianPhantom


def perturbed(rotations: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    vectors = torch.randn(len(rotations), 3, generator=generator, dtype=torch.float64)
    return rotation_vector_to_matrix(vectors * math.radians(degrees)) @ rotations


def in_another_frame(truth: Tensor, frame: Tensor, mirrored: bool) -> Tensor:
    """Poses of the same views for an object that the frame (and the mirror) takes to the true one."""
    poses = truth @ frame
    return mirror(poses) if mirrored else poses


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("outliers", "noise"), [(0.0, 0.5), (0.6, 1.0), (0.3, 5.0)])
def test_frame_and_hand_are_found(mirrored: bool, outliers: float, noise: float, generator: torch.Generator) -> None:
    truth, frame = random_rotations(2000, generator), random_rotations(1, generator)[0]
    estimated = perturbed(in_another_frame(truth, frame, mirrored), noise, generator)
    wrong = int(outliers * len(truth))
    estimated[:wrong] = random_rotations(wrong, generator)
    found = align_rotations(estimated, truth)
    assert found.mirrored == mirrored
    expected = math.radians(5 * noise / math.sqrt(len(truth) - wrong))
    assert geodesic_distance(found.rotation, frame) < expected
    errors = rotation_errors(found.apply(estimated), truth)
    assert math.degrees(errors[wrong:].median()) == pytest.approx(1.54 * noise, rel=0.1)
    assert found.agreement == pytest.approx(1 - outliers, abs=0.02)


def test_perfect_poses_have_no_error(generator: torch.Generator) -> None:
    truth, frame = random_rotations(50, generator), random_rotations(1, generator)[0]
    found = align_rotations(in_another_frame(truth, frame, True), truth)
    errors = rotation_errors(found.apply(in_another_frame(truth, frame, True)), truth)
    assert math.degrees(errors.max()) < 1e-4


@pytest.mark.parametrize("name", ["C3", "D7"])
def test_poses_count_modulo_the_point_group(name: str, generator: torch.Generator) -> None:
    truth, frame = random_rotations(500, generator), random_rotations(1, generator)[0]
    group = point_group(name).double()
    picks = torch.randint(len(group), (len(truth),), generator=generator)
    estimated = perturbed(in_another_frame(truth @ group[picks], frame, False), 0.5, generator)
    found = align_rotations(estimated, truth, symmetry=name)
    errors = rotation_errors(found.apply(estimated), truth, symmetry=name)
    assert not found.mirrored
    assert found.agreement == 1.0
    assert math.degrees(errors.median()) == pytest.approx(1.54 * 0.5, rel=0.15)
    without = align_rotations(estimated, truth)
    assert without.agreement < 1.5 / len(group) + 0.1


def test_frame_and_origin_are_those_of_the_object(generator: torch.Generator) -> None:
    """Images tell nothing else: the same images come from the moved, mirrored object in its own poses."""
    truth, frame = random_rotations(12, generator), random_rotations(1, generator)[0]
    offset = torch.tensor([5.0, -3.0, 8.0], dtype=torch.float64)
    shifts = 6 * torch.randn(12, 2, generator=generator, dtype=torch.float64)
    true_object = GaussianPhantom.random(8, 30.0, generator)
    images = true_object.project(truth, shifts, 64, 3.0)
    # x_true = frame x_est + offset, after the mirror
    centres = (true_object.centres - offset) @ frame * torch.tensor([1.0, 1.0, -1.0])
    other_object = GaussianPhantom(centres, true_object.sigmas, true_object.masses)
    poses = in_another_frame(truth, frame, True)
    other_shifts = shifts + (truth @ offset)[:, :2]
    assert torch.allclose(other_object.project(poses, other_shifts, 64, 3.0), images, atol=1e-10)
    found = align_rotations(poses, truth)
    assert found.mirrored
    assert geodesic_distance(found.rotation, frame) < 1e-6
    assert torch.allclose(fit_origin(other_shifts, shifts, truth), offset, atol=1e-6)


def test_origin_ignores_wild_shifts(generator: torch.Generator) -> None:
    rotations = random_rotations(400, generator)
    offset = torch.tensor([2.0, -1.0, 4.0], dtype=torch.float64)
    truth = torch.zeros(400, 2, dtype=torch.float64)
    estimated = (rotations @ offset)[:, :2] + 0.1 * torch.randn(400, 2, generator=generator)
    estimated[:80] += 30.0
    assert torch.allclose(fit_origin(estimated, truth, rotations), offset, atol=0.1)


def test_origin_along_a_single_view_stays_put(generator: torch.Generator) -> None:
    rotations = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    estimated = torch.tensor([1.0, 2.0], dtype=torch.float64).expand(20, 2)
    found = fit_origin(estimated, torch.zeros(20, 2, dtype=torch.float64), rotations)
    assert torch.allclose(found, torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64), atol=1e-6)


def test_no_particles_are_refused() -> None:
    with pytest.raises(InputError, match="no poses to compare"):
        align_rotations(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3))
