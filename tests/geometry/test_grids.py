import math

import pytest
import torch

from hoarfrost.geometry.rotations import geodesic_distance, in_plane, random_rotations
from hoarfrost.geometry.shift_grid import shift_grid, subdivide
from hoarfrost.geometry.so3_grid import OrientationGrid


def nearest(targets, grid):
    return torch.stack([geodesic_distance(t, grid).min() for t in targets])


@pytest.mark.parametrize(("order", "count"), [(1, 576), (2, 4608)])
def test_the_grid_covers_rotations_evenly(order, count, generator):
    grid = OrientationGrid(order)
    rotations = grid.rotations()
    assert len(rotations) == len(grid) == count
    assert rotations.mean(0).abs().max() < 1e-9  # the mean of all rotations is zero, and the grid is symmetric
    distance = nearest(random_rotations(300, generator), rotations)
    assert distance.max() < 0.9 * grid.spacing
    assert distance.mean() < 0.5 * grid.spacing


def test_children_nest(generator):
    coarse, fine = OrientationGrid(1), OrientationGrid(2)
    children = coarse.children(torch.arange(len(coarse)))
    assert torch.equal(children.flatten().sort().values, torch.arange(len(fine)))
    assert torch.equal(fine.parents(children), torch.arange(len(coarse))[:, None].expand(-1, 8))
    distance = geodesic_distance(fine.rotations(children), coarse.rotations()[:, None].expand(-1, 8, 3, 3))
    assert distance.max() < coarse.spacing


def test_half_turns_are_half_the_in_plane_grid_away():
    grid = OrientationGrid(1)
    rotations = grid.rotations().unflatten(0, (grid.direction_count, grid.in_plane_count))
    half = grid.in_plane_count // 2
    turned = in_plane(torch.tensor(math.pi, dtype=torch.float64)) @ rotations[:, :half]
    torch.testing.assert_close(turned, rotations[:, half:])


def test_shift_grid_is_a_square_without_corners():
    grid = shift_grid(9.6, 7)
    assert len(grid) == 45
    assert grid.abs().max() == pytest.approx(9.6)
    assert grid.norm(dim=-1).max() == pytest.approx(math.hypot(9.6, 6.4))
    assert (grid == 0).all(-1).any()
    assert torch.equal(shift_grid(9.6, 1), torch.zeros(1, 2))
    fine = subdivide(grid, 3.2)
    torch.testing.assert_close(fine.mean(1), grid)
    torch.testing.assert_close(fine[0, 1, 0] - fine[0, 0, 0], torch.tensor(1.6))
