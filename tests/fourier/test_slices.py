import pytest
import torch

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid, as_table
from hoarfrost.geometry.rotations import random_rotations
from phantoms import GaussianPhantom


def relative_error(actual, expected):
    return ((actual - expected).abs().square().sum() / expected.abs().square().sum()).sqrt()


@pytest.mark.parametrize("box", [32, 33])
@pytest.mark.parametrize(("radius", "bound"), [(12.0, 0.006), (26.0, 0.024)])
def test_slices_are_the_transforms_of_projections(box, radius, bound, generator):
    phantom = GaussianPhantom.random(20, radius, generator, sigma=6.0)
    rotations = random_rotations(8, generator)
    shifts = torch.zeros(8, 2, dtype=torch.float64)
    band = Band.to_nyquist(box)
    images = band.from_images(phantom.project(rotations, shifts, box, 3.0))
    grid = SliceGrid(box, band.limit)
    table = as_table(grid.forward(phantom.volume(box, 3.0).data.double() * 3.0))
    slices = grid.extract(table, grid.points(rotations, band))[..., 0]
    assert relative_error(slices, images) < bound


def test_more_padding_is_more_exact(generator):
    phantom = GaussianPhantom.random(20, 24.0, generator, sigma=6.0)
    rotations, band = random_rotations(4, generator), Band(32, 14)
    truth = band.from_images(phantom.project(rotations, torch.zeros(4, 2), 32, 3.0))
    errors = []
    for padding in (1, 2, 3):
        grid = SliceGrid(32, 14, padding)
        table = as_table(grid.forward(phantom.volume(32, 3.0).data.double() * 3.0))
        errors.append(relative_error(grid.extract(table, grid.points(rotations, band))[..., 0], truth))
    assert errors[0] > 2.5 * errors[1] > 3.5 * errors[2]


def test_insertion_is_the_exact_adjoint_of_extraction(generator):
    grid, band = SliceGrid(16, 7), Band(16, 7)
    rotations = random_rotations(5, generator)
    points = grid.points(rotations, band)
    field = torch.randn(*grid.shape, 2, generator=generator, dtype=torch.float64)
    data = torch.randn(5, len(band), 2, generator=generator, dtype=torch.float64)
    field, data = torch.view_as_complex(field), torch.view_as_complex(data)
    extracted = grid.extract(as_table(field), points)[..., 0]
    sums = torch.zeros(field.numel(), 3, dtype=torch.float64)
    grid.insert(sums, points, data, torch.ones(5, len(band), dtype=torch.float64))
    left = (extracted.conj() * data).real.sum()
    right = (field.flatten().conj() * torch.complex(sums[:, 0], sums[:, 1])).real.sum()
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(sums[:, 2].sum(), torch.tensor(5.0 * len(band), dtype=torch.float64))


def test_folded_sums_are_hermitian_where_the_grid_holds_both_of_a_pair(generator, monkeypatch):
    monkeypatch.setattr("hoarfrost.fourier.slices.NODES_AT_ONCE", 1000)
    grid = SliceGrid(16, 7)
    assert len(grid.planes) > 2
    nodes = torch.randn(*grid.shape, 3, generator=generator, dtype=torch.float64)
    folded, weight = grid.fold(nodes.flatten(0, 2))
    centre = grid.shape[0] // 2
    for z, y, x in [(0, 3, 0), (centre, centre, 0), (2, centre + 1, 0), (4, 1, 3), (centre, 2, 5)]:
        value, opposite = nodes[z, y, x], nodes[2 * centre - z, 2 * centre - y, 0]
        both = x == 0
        assert folded[z, y, x].real == value[0] + both * opposite[0]
        assert folded[z, y, x].imag == value[1] - both * opposite[1]
        assert weight[z, y, x] == value[2] + both * opposite[2]


def test_grid_and_volume_are_inverse_up_to_the_limit(generator):
    volume = GaussianPhantom.random(10, 15.0, generator, sigma=5.0).volume(24, 3.0).data.double()
    grid = SliceGrid(24, 11)
    kernel_squared = grid.gridding_kernel(volume) ** 2
    torch.testing.assert_close(grid.inverse(grid.forward(volume)) * kernel_squared, volume, atol=1e-7, rtol=0)


def test_slice_gradients_agree_with_finite_differences(generator):
    volume = GaussianPhantom.random(5, 8.0, generator).volume(12, 3.0).data.double()
    grid, band = SliceGrid(12, 4), Band(12, 4)
    rotations = random_rotations(2, generator)
    weights = torch.randn(2, len(band), generator=generator, dtype=torch.float64)

    def loss(rotation, density):
        table = as_table(grid.forward(density))
        return (weights * grid.extract(table, grid.points(rotation, band))[..., 0].abs().square()).sum()

    assert torch.autograd.gradcheck(lambda r: loss(r, volume), rotations.requires_grad_(), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(lambda v: loss(rotations.detach(), v), volume.requires_grad_(), atol=1e-5)


def test_an_anisotropic_frequency_matrix_reads_the_stretched_slice(generator):
    grid, band = SliceGrid(32, 15), Band(32, 7)
    phantom = GaussianPhantom.random(10, 25.0, generator, sigma=6.0)
    table = as_table(grid.forward(phantom.volume(32, 3.0).data.double()))
    rotations = random_rotations(3, generator)
    doubled = 2 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    stretched = grid.extract(table, grid.points(rotations, band, doubled))[..., 0]
    wide = Band(32, 15)
    plain = grid.extract(table, grid.points(rotations, wide))[..., 0]
    for column, k in enumerate(band.k[:40].tolist()):
        if (torch.tensor(k) * 2).float().norm() <= 15:
            partner = (wide.k == 2 * band.k[column]).all(-1)
            torch.testing.assert_close(stretched[:, column], plain[:, partner][:, 0])
