"""Symmetry axes: found in a turned and moved phantom, missed in one that has none."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.analysis.interpolation import move_volume
from hoarfrost.analysis.symmetry_axes import find_symmetry_axes
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.types import Volume

BOX, VOXEL_SIZE = 40, 4.0


def phantom(symmetry: str, generator: torch.Generator) -> Volume:
    """Gaussian blobs and their images under a point group."""
    group = point_group(symmetry)
    blobs = 40 * (torch.rand(max(2, 24 // len(group)), 3, generator=generator, dtype=torch.float64) - 0.4)
    centres = torch.einsum("gij,nj->gni", group, blobs).flatten(0, 1)
    axis = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) * VOXEL_SIZE
    profiles = torch.exp(-0.5 * ((axis - centres[..., None]) / 7.0) ** 2)
    x, y, z = profiles.unbind(1)
    return Volume(torch.einsum("nz,ny,nx->zyx", z, y, x).float(), VOXEL_SIZE)


@pytest.mark.parametrize("symmetry", ["C2", "C3", "D2", "D7", "T", "O", "I"])
def test_the_axes_of_a_turned_and_moved_map_are_found(symmetry, generator):
    turn = random_rotations(1, generator)[0].double()
    move = torch.tensor([9.0, -6.0, 5.0], dtype=torch.float64)
    volume = move_volume(phantom(symmetry, generator), turn, move)

    axes = find_symmetry_axes(volume, symmetry)

    assert axes.agreement > 0.95
    group = point_group(symmetry)
    expected = turn @ group @ turn.mT
    for element in axes.rotation.mT @ group @ axes.rotation:
        assert torch.rad2deg(geodesic_distance(element[None], expected).min()) < 1.0
    # The centre is known up to a move along a single axis.
    off = axes.rotation @ (move - axes.centre)
    assert torch.linalg.vector_norm(off[:2] if symmetry.startswith("C") else off) < 0.3 * VOXEL_SIZE


@pytest.mark.parametrize("symmetry", ["C3", "D7", "O"])
def test_a_map_without_symmetry_shows_no_axes(symmetry, generator):
    assert find_symmetry_axes(phantom("C1", generator), symmetry).agreement < 0.75
