import pytest
import torch

from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.reconstruct.misfit import Misfit, prefix

BOX, LIMIT = 20, 8


@pytest.fixture
def sums():
    generator = torch.Generator().manual_seed(3)
    grid = SliceGrid(BOX, LIMIT)
    own = BackProjection.empty(grid)
    own.sums = torch.randn(own.sums.shape, generator=generator)
    own.sums[:, 2] = own.sums[:, 2].abs()
    return own.folded()


def test_a_density_that_predicts_the_data_has_no_misfit(sums):
    misfit = Misfit.of(sums, LIMIT, half_width=8.0, oversampling=1.2)
    side = misfit.transform.side
    volume = torch.rand(side, side, side, generator=torch.Generator().manual_seed(4))
    exact = Misfit(misfit.transform, misfit.transform.forward(volume), misfit.weight)
    assert float(exact(volume)) < 1e-10
    assert float(exact(torch.zeros_like(volume))) == pytest.approx(1.0, rel=1e-5)
    assert float(exact.missing(volume).abs().max()) < 1e-6 * float(exact.missing(0 * volume).abs().max()) + 1e-9


def test_the_gradient_is_that_of_finite_differences(sums):
    misfit = Misfit.of(sums, LIMIT, half_width=7.0, oversampling=1.0)
    side = misfit.transform.side
    generator = torch.Generator().manual_seed(5)
    volume = torch.rand(side, side, side, generator=generator).requires_grad_()
    direction = torch.randn(volume.shape, generator=generator)
    (gradient,) = torch.autograd.grad(misfit(volume), volume)
    ahead, behind = (float(misfit(volume.detach() + step * direction)) for step in (0.5, -0.5))
    # The misfit is quadratic, so that the central difference is exact.
    assert float((gradient * direction).sum()) == pytest.approx(ahead - behind, rel=2e-3)


def test_missing_density_points_downhill(sums):
    misfit = Misfit.of(sums, LIMIT, half_width=7.0, oversampling=1.0)
    side = misfit.transform.side
    volume = torch.zeros(side, side, side, requires_grad=True)
    (gradient,) = torch.autograd.grad(misfit(volume), volume)
    missing = misfit.missing(volume.detach())
    torch.testing.assert_close(gradient, missing * (-2 / misfit.scale), rtol=1e-4, atol=1e-7)


def test_a_smaller_band_keeps_the_inner_nodes(sums):
    inner = prefix(sums, 5)
    centre, middle = sums.grid.centre, inner.grid.centre
    for z, y, x in ((0, 0, 3), (4, -7, 2), (-9, 3, 0)):
        assert inner.data[middle + z, middle + y, x] == sums.data[centre + z, centre + y, x]
    assert int(inner.shells[middle, middle, 6]) == 3


def test_nodes_that_no_image_reached_do_not_count(sums):
    sums.weight[:, :, 3:5] = 0
    misfit = Misfit.of(sums, LIMIT, half_width=7.0, oversampling=1.0)
    assert float(misfit.weight[:, :, 3:5].abs().max()) == 0
    assert bool(misfit.target.isfinite().all())
