"""Point groups and the asymmetric unit of viewing directions."""

import math
import re

import pytest
import torch
from torch import Tensor

from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.so3_grid import OrientationGrid
from hoarfrost.geometry.symmetry import (
    in_asymmetric_unit,
    least_turn,
    point_group,
    symmetric_distance,
    to_asymmetric_unit,
)
from phantoms import GaussianPhantom

ORDERS = {
    "C1": 1, "C2": 2, "C7": 7, "c3": 3, "C12": 12, "D1": 2, "D2": 4, "D7": 14, "D17": 34,
    "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60,
}  # fmt: skip


def random_directions(count: int, generator: torch.Generator) -> Tensor:
    vectors = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def has_axis(group: Tensor, fold: int, *axis: float) -> bool:
    """Whether the group holds the turn by 360/fold degrees about an axis."""
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    turn = rotation_vector_to_matrix(2 * math.pi / fold * unit)
    return bool((geodesic_distance(group, turn.expand_as(group)) < 1e-6).any())


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_is_a_group_of_its_order(name: str, order: int) -> None:
    group = point_group(name)
    assert group.shape == (order, 3, 3)
    assert group.dtype == torch.float64
    assert torch.equal(group[0], torch.eye(3, dtype=torch.float64))
    assert (group @ group.mT - torch.eye(3)).abs().max() < 1e-13
    assert (torch.linalg.det(group) - 1).abs().max() < 1e-13

    def rows(matrices: Tensor) -> Tensor:
        return torch.cdist(matrices.flatten(-2), group.flatten(-2), compute_mode="donot_use_mm_for_euclid_dist")

    products = rows((group[:, None] @ group).flatten(0, 1))
    assert products.amin(1).max() < 1e-12
    assert rows(group.mT).amin(1).max() < 1e-12
    assert (rows(group) + 10 * torch.eye(order)).min() > 0.1


def test_axes_are_relions() -> None:
    golden = (1 + math.sqrt(5)) / 2
    assert has_axis(point_group("C5"), 5, 0, 0, 1)
    assert has_axis(point_group("D3"), 2, 1, 0, 0)
    assert not has_axis(point_group("D3"), 2, 0, 1, 0)
    assert has_axis(point_group("T"), 3, 0, 0, 1)
    assert has_axis(point_group("T"), 2, 0, 0.816496580928, 0.577350269190)
    assert all(has_axis(point_group("O"), 4, *axis) for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    assert has_axis(point_group("O"), 3, 1, 1, 1)
    assert all(has_axis(point_group("I"), 2, *axis) for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    assert has_axis(point_group("I"), 5, 1, 0, golden)
    assert has_axis(point_group("I"), 3, 0, 1, golden**2)
    assert has_axis(point_group("I1"), 5, golden, 0, -1)
    assert has_axis(point_group("I1"), 3, golden**2, 1, 0)
    assert has_axis(point_group("I3"), 5, 0, 0, 1)
    assert has_axis(point_group("I3"), 3, -0.4911234778630044, 0.3568220764705179, 0.7946544753759428)
    assert has_axis(point_group("I4"), 5, 0, 0, 1)
    assert has_axis(point_group("I4"), 5, 2, 0, 1)
    assert has_axis(point_group("I4"), 3, 0.4911234778630044, 0.3568220764705179, 0.7946544753759428)
    assert not has_axis(point_group("I4"), 3, -0.4911234778630044, 0.3568220764705179, 0.7946544753759428)


@pytest.mark.parametrize("name", ["C0", "C100", "X", "D", "I5", "Oh", "", "C3v", "c-1"])
def test_an_unknown_group_is_named_with_those_that_exist(name: str) -> None:
    expected = (
        f"symmetry {name!r}: no such point group; expected C1 to C99, D1 to D99, T, O, I (= I2), I1, I2, I3 or I4"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        point_group(name)


def test_a_group_can_be_changed_without_changing_the_next() -> None:
    point_group("D3").zero_()
    assert torch.equal(point_group("D3")[0], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_every_direction_has_one_representative(name: str, order: int, generator: torch.Generator) -> None:
    directions = random_directions(1000, generator)
    equivalent = torch.einsum("gji,nj->ngi", point_group(name), directions)
    assert (in_asymmetric_unit(equivalent, name).sum(-1) == 1).all()


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_the_unit_is_one_share_of_the_sphere(name: str, order: int, generator: torch.Generator) -> None:
    count = 40000
    share = in_asymmetric_unit(random_directions(count, generator), name).double().mean()
    assert abs(float(share) - 1 / order) <= 4 * math.sqrt((1 - 1 / order) / (order * count))


@pytest.mark.parametrize("name", ["C4", "D2", "T", "O", "I"])
def test_an_even_grid_is_cut_to_its_share(name: str) -> None:
    """A search over the views of one unit costs next to nothing more than its share."""
    grid = OrientationGrid(4)
    rot, tilt = grid.directions.unbind(-1)
    views = torch.stack([tilt.sin() * rot.cos(), tilt.sin() * rot.sin(), tilt.cos()], dim=-1)
    kept = int(in_asymmetric_unit(views, name).sum())
    assert kept == pytest.approx(len(views) / len(point_group(name)), rel=0.08)


@pytest.mark.parametrize("name", ["C1", "C5", "D3", "T", "O", "I", "I3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_representative_poses(name: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    rotations = random_rotations(200, generator, dtype)
    moved = to_asymmetric_unit(rotations, name)
    assert moved.dtype == dtype
    assert in_asymmetric_unit(moved[:, 2], name).double().mean() > 0.98
    assert (symmetric_distance(rotations, moved, name) < (1e-6 if dtype == torch.float64 else 2e-3)).all()
    group = point_group(name).to(dtype)
    another = rotations @ group[torch.randint(len(group), (200,), generator=generator)]
    assert geodesic_distance(to_asymmetric_unit(another, name), moved).median() < 1e-3


@pytest.mark.parametrize("name", ["C1", "C4", "D7", "T", "O", "I"])
def test_distance_is_that_to_the_nearest_equivalent_pose(name: str, generator: torch.Generator) -> None:
    first, second = random_rotations(50, generator), random_rotations(50, generator)
    group = point_group(name)
    every = geodesic_distance(first[:, None], second[:, None] @ group)
    found = symmetric_distance(first, second, name)
    assert torch.allclose(found, every.amin(1), atol=1e-12)
    picks = torch.randint(len(group), (2, 50), generator=generator)
    moved = symmetric_distance(first @ group[picks[0]], second @ group[picks[1]], name)
    assert torch.allclose(moved, found, atol=1e-7)
    assert torch.allclose(symmetric_distance(second, first, name), found, atol=1e-7)
    near = first @ rotation_vector_to_matrix(torch.tensor([[1e-5, 0.0, 0.0]]).double())
    assert torch.allclose(
        symmetric_distance(first, near @ group[picks[0]], name), torch.tensor(1e-5).double(), rtol=1e-3
    )


def test_distance_takes_batches_of_poses(generator: torch.Generator) -> None:
    first, second = random_rotations(6, generator), random_rotations(24, generator).unflatten(0, (6, 4))
    found = symmetric_distance(first[:, None].expand_as(second), second, "C3")
    assert found.shape == (6, 4)
    assert torch.allclose(found[2], symmetric_distance(first[[2, 2, 2, 2]], second[2], "C3"))


@pytest.mark.parametrize("name", ["C3", "D2", "T", "O", "I1"])
def test_a_symmetric_object_looks_the_same_from_equivalent_poses(name: str, generator: torch.Generator) -> None:
    """``V(g x) = V(x)``, and the poses R and R g give one image."""
    group = point_group(name)
    unit = GaussianPhantom.random(2, 30.0, generator, sigma=5.0)
    count = len(group)
    whole = GaussianPhantom(
        torch.einsum("gij,aj->gai", group, unit.centres).flatten(0, 1),
        unit.sigmas.repeat(count),
        unit.masses.repeat(count),
    )
    pose = random_rotations(1, generator)
    pick = group[[1, count - 1, count // 2]]
    images = whole.project(torch.cat([pose, pose @ pick]), torch.zeros(4, 2), 24, 4.0)
    assert torch.allclose(images[1:], images[:1].expand(3, -1, -1), atol=1e-9)
    data = whole.volume(25, 4.0).data
    if name in ("D2", "O", "I1"):
        # The twofold on z turns the grid onto itself.
        assert torch.allclose(data, data.flip(1, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "degrees"), [("C1", 360), ("C2", 180), ("C7", 360 / 7), ("D3", 120), ("O", 90), ("I3", 72)]
)
def test_the_least_turn_is_that_of_the_axis_of_highest_order(name: str, degrees: float) -> None:
    assert math.degrees(least_turn(name)) == pytest.approx(degrees)
