import pytest
import torch

from hoarfrost.fourier.node_transform import NodeTransform
from hoarfrost.fourier.slices import SliceGrid


def test_nodes_are_those_of_the_padded_transform():
    box, limit = 24, 9
    transform = NodeTransform(SliceGrid(box, limit), box, 1.0)
    volume = torch.randn(box, box, box, generator=torch.Generator().manual_seed(1))
    grid = transform.grid
    # The slice grid divides by the gridding kernel, which the nodes of a back-projection still hold.
    expected = grid.forward(volume * grid.gridding_kernel(volume) ** 2)
    torch.testing.assert_close(transform.forward(volume), expected, atol=2e-5, rtol=1e-4)


def test_a_finer_grid_gives_the_same_nodes():
    grid = SliceGrid(24, 9)

    def blob(side: int, spacing: float) -> torch.Tensor:
        axis = (torch.arange(side) - side // 2) * spacing
        profiles = [torch.exp(-0.5 * ((axis - at) / 1.7) ** 2) for at in (2.3, -1.2, 0.4)]
        return profiles[2][:, None, None] * profiles[1][:, None] * profiles[0]

    coarse = NodeTransform(grid, 24, 1.0)
    fine = NodeTransform(grid, 41, 0.55)
    torch.testing.assert_close(fine.forward(blob(41, 0.55)), coarse.forward(blob(24, 1.0)), atol=2e-4, rtol=1e-3)


def test_the_adjoint_is_the_adjoint():
    transform = NodeTransform.covering(SliceGrid(20, 7), half_width=8.0, oversampling=1.5)
    generator = torch.Generator().manual_seed(2)
    side = transform.side
    volume = torch.randn(side, side, side, generator=generator)
    nodes = torch.randn(transform.grid.shape, generator=generator, dtype=torch.complex64)
    predicted = transform.forward(volume)
    there = (predicted.real * nodes.real + predicted.imag * nodes.imag).sum()
    torch.testing.assert_close((volume * transform.adjoint(nodes)).sum(), there, rtol=1e-4, atol=1e-4)
    assert transform.spacing == pytest.approx(20 / (2 * 1.5 * 7))
    assert side * transform.spacing >= 16.0
