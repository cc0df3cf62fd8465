import math

import pytest
import torch

from hoarfrost.geometry.rotations import geodesic_distance, in_plane, random_rotations
from hoarfrost.geometry.shift_grid import shift_cells, shift_grid
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
    # Half the diagonal of a cube's eighth is 0.43 of its side; HEALPix cells are not quite cubes.
    assert distance.max() < 0.7 * coarse.spacing
    assert distance.mean() < 0.46 * coarse.spacing


def test_the_nearest_orientation_is_that_of_the_cell(generator):
    grid = OrientationGrid(2)
    assert torch.equal(grid.nearest(grid.rotations()), torch.arange(len(grid)))
    rotations = random_rotations(200, generator)
    found = grid.nearest(rotations)
    assert geodesic_distance(grid.rotations(found), rotations).max() < 1.1 * grid.spacing
    nearest = torch.stack([geodesic_distance(rotation, grid.rotations()).argmin() for rotation in rotations])
    assert (found == nearest).double().mean() > 0.8
    assert (grid.neighbours(found) == nearest[:, None]).any(1).all()


def test_neighbours_surround_an_orientation():
    grid = OrientationGrid(2)
    every = torch.arange(len(grid))
    neighbours = grid.neighbours(every)
    assert torch.equal(neighbours[:, 0], every)
    assert (neighbours.sort(1).values.diff(dim=1) > 0).all()
    distance = geodesic_distance(grid.rotations(neighbours), grid.rotations()[:, None].expand(-1, 27, 3, 3))
    assert distance.max() < 2.3 * grid.spacing
    assert distance[:, 1:].min() > 0.8 * grid.spacing


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


def test_shift_cells_nest():
    coarse = shift_cells(20.0, 14)
    assert len(coarse) == 196
    assert coarse.unique(dim=0).shape == coarse.shape
    torch.testing.assert_close(coarse.mean(0), torch.zeros(2))
    torch.testing.assert_close(coarse[1] - coarse[0], torch.tensor([20 / 7, 0.0]))
    finer = (coarse[:, None] + shift_cells(20 / 14, 2)).flatten(0, 1)
    expected = shift_cells(20.0, 28)
    order = [rows.round(decimals=3).unique(dim=0) for rows in (finer, expected)]
    torch.testing.assert_close(order[0], order[1])
