import pytest
import torch

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid, as_table
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.kernels.library import INSTRUCTION_SETS, library, limit_instructions

needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")


@pytest.fixture(params=INSTRUCTION_SETS[:3])
def instructions(request):
    best = limit_instructions(INSTRUCTION_SETS[-1])
    yield limit_instructions(request.param)
    limit_instructions(best)


def slices(count, band, generator):
    """Rotations, shifts, vectors and transfer functions."""
    vectors = torch.view_as_complex(torch.randn(count, len(band), 2, generator=generator))
    transfer = torch.rand(count, len(band), generator=generator) - 0.3
    shifts = 3 * torch.randn(count, 2, generator=generator)
    return random_rotations(count, generator).float(), shifts, vectors, transfer


def empty(grid, dtype=torch.float32):
    depth, height, width = grid.shape
    return torch.zeros(depth * height * width, 3, dtype=dtype)


def distance(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@needs_kernels
@pytest.mark.parametrize("limit", [1, 7, 20, 36])
@pytest.mark.parametrize("stretched", [False, True])
def test_images_are_inserted_as_in_float64(instructions, limit, stretched, generator):
    band, grid = Band(80, limit), SliceGrid(80, limit + 2)
    rotations, shifts, vectors, transfer = slices(75, band, generator)
    matrix = torch.eye(2) + 0.04 * torch.randn(75, 2, 2, generator=generator) if stretched else None
    fast, exact = empty(grid), empty(grid, torch.float64)
    grid.insert_images(fast, rotations, shifts, band, vectors, transfer, matrix)
    grid.insert_images(
        exact,
        rotations.double(),
        shifts.double(),
        band,
        vectors.to(torch.complex128),
        transfer.double(),
        None if matrix is None else matrix.double(),
    )
    assert distance(fast.double(), exact) < 1e-5


@needs_kernels
def test_slices_are_inserted_by_the_adjoint_of_extraction(instructions, generator):
    grid, band = SliceGrid(32, 15), Band(32, 15)
    rotations, _, values, weights = slices(40, band, generator)
    field = torch.view_as_complex(torch.randn(*grid.shape, 2, generator=generator))
    sums = empty(grid)
    grid.insert_slices(sums, rotations, band, values, weights)
    extracted = grid.extract(as_table(field), grid.points(rotations, band))[..., 0]
    left = (extracted.conj() * values).real.double().sum()
    right = (field.flatten().conj() * torch.complex(sums[:, 0], sums[:, 1])).real.double().sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(sums[:, 2].double().sum(), weights.double().sum(), rtol=1e-5, atol=0)


@needs_kernels
@pytest.mark.parametrize("pose", ["axes", "edge"])
def test_points_on_nodes_and_on_the_last_of_them(instructions, pose, generator):
    """Slices along the axes put every point on a node, the outermost ones on the band's edge."""
    grid, band = SliceGrid(40, 19), Band(40, 19)
    quarter = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    rotations = torch.stack([torch.eye(3), quarter, quarter @ quarter, -quarter])
    if pose == "edge":
        rotations = random_rotations(4, generator).float() @ rotations
    values = torch.view_as_complex(torch.randn(4, len(band), 2, generator=generator))
    fast, exact = empty(grid), empty(grid, torch.float64)
    grid.insert_slices(fast, rotations, band, values, torch.ones(4, len(band)))
    ones = torch.ones(4, len(band), dtype=torch.float64)
    grid.insert_slices(exact, rotations.double(), band, values.to(torch.complex128), ones)
    assert distance(fast.double(), exact) < 1e-5


@needs_kernels
def test_what_lies_outside_the_grid_is_left_out(instructions, generator):
    """A frequency matrix may carry the band's edge beyond the grid."""
    grid, band = SliceGrid(32, 8), Band(32, 8)
    rotations, _, values, weights = slices(5, band, generator)
    doubled = 2 * torch.eye(2).expand(5, 2, 2)
    sums, exact = empty(grid), empty(grid)
    grid.insert_slices(sums, rotations, band, values, weights, doubled)
    inner = band.radius < 8.4 / 2  # grid coordinates up to centre = 17
    outside = (grid.points(rotations, band, doubled).abs() >= grid.centre).any(-1)
    kept = torch.where(outside, 0, values), torch.where(outside, 0, weights)
    points = torch.where(outside[..., None], 0, grid.points(rotations, band, doubled))
    grid.insert(exact, points, *kept)
    assert not outside[:, inner].any()
    assert outside.any()
    assert distance(sums, exact) < 1e-5


@needs_kernels
def test_sums_do_not_depend_on_the_number_of_threads(generator):
    grid, band = SliceGrid(48, 23), Band(48, 23)
    rotations, shifts, vectors, transfer = slices(150, band, generator)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(empty(grid))
            grid.insert_images(results[-1], rotations, shifts, band, vectors, transfer)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_images_are_inserted_shifted_and_multiplied_by_their_transfer_functions(generator):
    grid, band = SliceGrid(24, 9), Band(24, 9)
    rotations, shifts, vectors, transfer = slices(6, band, generator)
    rotations, shifts, transfer = rotations.double(), shifts.double(), transfer.double()
    vectors = vectors.to(torch.complex128)
    images, values = empty(grid, torch.float64), empty(grid, torch.float64)
    grid.insert_images(images, rotations, shifts, band, vectors, transfer)
    moved = vectors * transfer * band.shift_phases(-shifts)
    grid.insert_slices(values, rotations, band, moved, transfer.square())
    torch.testing.assert_close(images, values)
