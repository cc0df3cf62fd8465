"""Maps laid over each other: the turn, the move and the hand of an analytic phantom are found again."""

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.analysis.alignment import GlobalAlignment
from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.analysis.map_alignment import align_maps
from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.types import Volume
from phantoms import GaussianPhantom

VOXEL = 3.0


def pair_of_maps(
    box: int, mirrored: bool, noise: float, generator: torch.Generator
) -> tuple[Volume, Volume, Tensor, Tensor]:
    """A noisy moving map, a clean target, and the rotation and shift between them."""
    target = GaussianPhantom.random(60, 0.25 * box * VOXEL, generator, sigma=2.0 * VOXEL)
    rotation = random_rotations(1, generator)[0]
    shift = 0.1 * box * VOXEL * (torch.rand(3, generator=generator, dtype=torch.float64) - 0.5)
    centres = (target.centres - shift) @ rotation
    if mirrored:
        centres = centres * torch.tensor([1.0, 1.0, -1.0])
    moving = GaussianPhantom(centres, target.sigmas, target.masses).volume(box, VOXEL)
    noisy = moving.data + noise * moving.data.std() * torch.randn(box, box, box, generator=generator)
    return Volume(noisy, VOXEL), target.volume(box, VOXEL), rotation, shift


@pytest.mark.parametrize(("box", "mirrored"), [(48, False), (49, True)])
def test_alignment_is_found(box: int, mirrored: bool, generator: torch.Generator) -> None:
    moving, target, rotation, shift = pair_of_maps(box, mirrored, 0.0, generator)
    found = align_maps(moving, target)
    assert found.mirrored == mirrored
    assert math.degrees(geodesic_distance(found.rotation, rotation)) < 0.05
    assert torch.linalg.vector_norm(found.shift - shift) < 0.01 * VOXEL
    assert found.correlation > 0.999
    correlation = fourier_shell_correlation(found.apply(moving, target), target)
    assert correlation[1 : box // 4].min() > 0.99


@pytest.mark.parametrize(("mirrored", "noise"), [(False, 0.5), (True, 2.0)])
def test_noise_costs_no_more_than_it_must(mirrored: bool, noise: float, generator: torch.Generator) -> None:
    """Errors against the Cramer-Rao bound of rotation and shift for this noise."""
    moving, target, rotation, shift = pair_of_maps(48, mirrored, noise, generator)
    found = align_maps(moving, target)
    assert found.mirrored == mirrored
    angle, distance = least_errors(target, noise * float(target.data.std()))
    assert geodesic_distance(found.rotation, rotation) < 2.5 * angle
    assert torch.linalg.vector_norm(found.shift - shift) < 2.5 * distance


def least_errors(volume: Volume, noise: float) -> tuple[float, float]:
    """Root-mean-square rotation (radians) and shift (Å) errors that white noise allows an unbiased estimate."""
    gradients = torch.stack(torch.gradient(volume.data.double(), spacing=volume.voxel_size)[::-1]).flatten(1)
    axis = (torch.arange(volume.box) - volume.box // 2).double() * volume.voxel_size
    positions = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1]).flatten(1)
    columns = torch.cat([torch.linalg.cross(positions, gradients, dim=0), gradients])
    covariance = noise**2 * torch.linalg.inv(columns @ columns.T)
    return float(covariance[:3, :3].trace().sqrt()), float(covariance[3:, 3:].trace().sqrt())


@pytest.mark.slow
def test_twenty_pairs_are_all_found(generator: torch.Generator) -> None:
    for pair in range(20):
        moving, target, rotation, shift = pair_of_maps(48, pair % 2 == 1, 1.0, generator)
        found = align_maps(moving, target)
        assert found.mirrored == (pair % 2 == 1)
        assert math.degrees(geodesic_distance(found.rotation, rotation)) < 1.0
        assert torch.linalg.vector_norm(found.shift - shift) < 0.1 * VOXEL


def test_other_hand_is_left_alone_when_told_so(generator: torch.Generator) -> None:
    moving, target, _, _ = pair_of_maps(48, True, 0.0, generator)
    found = align_maps(moving, target, hands=False)
    assert not found.mirrored
    assert found.correlation < 0.98


def test_a_start_from_poses_is_polished(generator: torch.Generator) -> None:
    moving, target, rotation, shift = pair_of_maps(48, True, 0.0, generator)
    nudge = rotation_vector_to_matrix(torch.tensor([0.03, -0.04, 0.05], dtype=torch.float64))
    found = align_maps(moving, target, start=GlobalAlignment(nudge @ rotation, True, 1.0))
    assert found.mirrored
    assert math.degrees(geodesic_distance(found.rotation, rotation)) < 0.05
    assert torch.linalg.vector_norm(found.shift - shift) < 0.01 * VOXEL


def test_grids_may_differ(generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(60, 36.0, generator, sigma=6.0)
    rotation = random_rotations(1, generator)[0]
    turned = GaussianPhantom(phantom.centres @ rotation, phantom.sigmas, phantom.masses)
    target = phantom.volume(48, 3.0)
    found = align_maps(turned.volume(80, 2.0), target)
    assert math.degrees(geodesic_distance(found.rotation, rotation)) < 0.2
    laid_over = found.apply(turned.volume(80, 2.0), target)
    assert laid_over.data.shape == target.data.shape
    assert fourier_shell_correlation(laid_over, target)[1:12].min() > 0.99


def test_what_cannot_be_aligned_is_refused(generator: torch.Generator) -> None:
    moving, target, _, _ = pair_of_maps(32, False, 0.0, generator)
    with pytest.raises(InputError, match="a constant map cannot be aligned"):
        align_maps(Volume(torch.zeros(32, 32, 32), VOXEL), target)
    with pytest.raises(InputError, match="the mask has shape"):
        align_maps(moving, target, mask=torch.ones(8, 8, 8))
