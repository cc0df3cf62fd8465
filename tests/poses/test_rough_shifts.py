import torch

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.poses.rough_shifts import nearby, rough_shifts
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom

BOX, PIXEL, COUNT = 32, 4.0, 120


def test_shift_of_noisy_images_is_found_within_the_shifts_that_are_searched_next(generator):
    phantom = GaussianPhantom.random(25, 40.0, generator, sigma=6.0)
    band, grid = Band(BOX, 10), shift_grid(4.5, 7)
    true = 9 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64) - 4.5
    vectors = band.from_images(phantom.project(random_rotations(COUNT, generator), true * PIXEL, BOX, PIXEL))
    # Signal over noise as in images that are hard: 0.05 over the whole of them.
    scale = (vectors.abs().square().sum(-1).mean() / (0.05 * BOX**2 / 2)).sqrt()
    noise = torch.randn(vectors.shape, dtype=torch.complex128, generator=generator)
    density = FourierVolume((phantom.volume(BOX, PIXEL).data * PIXEL / scale).float(), PIXEL, SliceGrid(BOX, 10))
    images = BandImages(band, (vectors / scale + noise).to(torch.complex64), torch.ones(COUNT, len(band)))
    found = rough_shifts(images, density, grid, torch.ones(len(band)))
    off = (true[:, None] - found[:, None] - nearby(grid)).norm(dim=-1).amin(1)
    # Half a diagonal of the grid's cell is as near as any of its shifts must be.
    assert (off < 0.75 * 1.5).double().mean() > 0.95


def test_nearby_shifts_are_those_within_two_steps():
    assert len(shift_grid(9.6, 7)) == 45
    near = nearby(shift_grid(9.6, 7))
    steps = (near / 3.2).round().long()
    torch.testing.assert_close(3.2 * steps.float(), near)
    assert {tuple(t) for t in steps.tolist()} == {
        (x, y) for x in range(-2, 3) for y in range(-2, 3) if x * x + y * y <= 4
    }
    assert len(nearby(shift_grid(1.0, 3))) == len(shift_grid(1.0, 3))
    assert nearby(shift_grid(1.0, 1)).tolist() == [[0.0, 0.0]]
