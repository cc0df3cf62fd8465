import pytest
import torch

from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.reconstruct.backprojection import BackProjection, symmetrise, turned_sums
from hoarfrost.reconstruct.half_maps import inside, regularised_pair, share_low_shells, small_box
from hoarfrost.types import Optics, Volume
from phantoms import GaussianPhantom

BOX, PIXEL = 40, 3.0


def images_of(phantom, rotations, shifts, optics, band):
    """Noise-free band images of a phantom, with their CTF."""
    transfer = contrast_transfer_function(optics, band.frequency)
    vectors = band.from_images(phantom.project(rotations, shifts * PIXEL, BOX, PIXEL)) * transfer
    return BandImages(band, vectors.to(torch.complex64), transfer)


def defocused(count, generator):
    defocus = 8000 + 12000 * torch.rand(count, generator=generator, dtype=torch.float64)
    return Optics.uniform(count, pixel_size=PIXEL).replace(defocus_u=defocus, defocus_v=defocus - 300)


@pytest.mark.parametrize("box", [40, 41])
def test_many_views_give_the_phantom_back(box, generator):
    phantom = GaussianPhantom.random(20, 28.0, generator, sigma=6.0)
    band, count = Band(box, 15), 500
    rotations = random_rotations(count, generator)
    shifts = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    optics = defocused(count, generator)
    transfer = contrast_transfer_function(optics, band.frequency)
    vectors = band.from_images(phantom.project(rotations, shifts * PIXEL, box, PIXEL)) * transfer
    sums = BackProjection.empty(SliceGrid(box, 15))
    sums.add(BandImages(band, vectors.to(torch.complex64), transfer), rotations, shifts)
    mask = soft_sphere(box, 17.0, 2.0)
    volume = inside(sums.volume(1e-3 * sums.weight_per_shell()), mask)
    fsc = fourier_shell_correlation(Volume(volume, PIXEL), phantom.volume(box, PIXEL))
    assert fsc[1:13].min() > 0.99
    scale = (volume * phantom.volume(box, PIXEL).data).sum() / phantom.volume(box, PIXEL).data.square().sum()
    assert scale == pytest.approx(1 / PIXEL**-1, rel=0.05)  # a projection is the sum times the voxel's depth


def test_sums_add_up_and_order_does_not_matter(generator):
    phantom = GaussianPhantom.random(8, 25.0, generator, sigma=6.0)
    band, grid = Band(BOX, 8), SliceGrid(BOX, 8)
    rotations, shifts = random_rotations(30, generator), torch.zeros(30, 2, dtype=torch.float64)
    images = images_of(phantom, rotations, shifts, defocused(30, generator), band)
    whole = BackProjection.empty(grid)
    whole.add(images, rotations, shifts)
    first, second = BackProjection.empty(grid), BackProjection.empty(grid)
    first.add(images[slice(20, 30)], rotations[20:], shifts[20:])
    second.add(images[slice(0, 20)], rotations[:20], shifts[:20])
    torch.testing.assert_close((first + second).sums, whole.sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("group", ["C3", "D2"])
def test_symmetrised_sums_are_those_of_all_equivalent_poses(group, generator):
    phantom = GaussianPhantom.random(10, 25.0, generator, sigma=7.0)
    band, grid = Band(BOX, 10), SliceGrid(BOX, 10)
    rotations, shifts = random_rotations(300, generator), torch.zeros(300, 2, dtype=torch.float64)
    images = images_of(phantom, rotations, shifts, defocused(300, generator), band)
    operators = point_group(group)
    once, every = BackProjection.empty(grid), BackProjection.empty(grid)
    once.add(images, rotations, shifts)
    for operator in operators:
        every.add(images, rotations @ operator, shifts)
    averaged = symmetrise(once, operators)
    maps = [
        Volume(sums.volume(0.02 * sums.weight_per_shell()), PIXEL)
        for sums in (averaged, BackProjection(grid, every.sums / len(operators)))
    ]
    assert fourier_shell_correlation(*maps)[1:10].min() > 0.97
    assert averaged.sums[:, 2].sum() == pytest.approx(float(once.sums[:, 2].sum()), rel=0.05)


def test_half_maps_share_their_lowest_shells_only(generator):
    grid = SliceGrid(24, 11)
    own, joined = (torch.randn(24, 24, 24, generator=generator) for _ in range(2))
    shared = share_low_shells(grid, own, joined, 3)
    with_joined = fourier_shell_correlation(Volume(shared, 1.0), Volume(joined, 1.0))
    with_own = fourier_shell_correlation(Volume(shared, 1.0), Volume(own, 1.0))
    assert with_joined[:4].min() > 0.999
    assert with_own[5:].min() > 0.999


def test_halves_of_pure_noise_agree_nowhere_beyond_the_mask(generator):
    band = Band(BOX, 15)
    grid = SliceGrid(small_box(BOX, 15), 15)
    halves = []
    for _ in range(2):
        noise = torch.view_as_complex(torch.randn(200, len(band), 2, generator=generator)) / 2**0.5
        sums = BackProjection.empty(grid)
        sums.add(
            BandImages(band, noise, contrast_transfer_function(defocused(200, generator), band.frequency)),
            random_rotations(200, generator),
            torch.zeros(200, 2),
        )
        halves.append(sums)
    pair = regularised_pair(*halves, extent=BOX * PIXEL, radius=45.0)
    assert pair.fsc[4:].abs().mean() < 0.15
    # Regularised by no agreement, what remains at high frequency is next to nothing.
    assert pair.first.abs().max() < halves[0].volume(0.0).abs().max()


def test_the_small_box_holds_the_band():
    assert small_box(128, 14) % 2 == 0
    assert small_box(128, 14) > 2 * 14
    assert small_box(32, 15) == 32


def test_turned_sums_are_those_of_turned_and_moved_poses(generator):
    """In the frame x' = Q (x - c) the poses are R Q^T and t + (R c)_xy."""
    phantom = GaussianPhantom.random(10, 25.0, generator, sigma=7.0)
    band, grid = Band(BOX, 10), SliceGrid(BOX, 10)
    rotations, shifts = random_rotations(300, generator), torch.zeros(300, 2, dtype=torch.float64)
    images = images_of(phantom, rotations, shifts, defocused(300, generator), band)
    turn = random_rotations(1, generator)[0]
    centre = torch.tensor([1.8, -2.1, 0.6], dtype=rotations.dtype)
    before, after = BackProjection.empty(grid), BackProjection.empty(grid)
    before.add(images, rotations, shifts)
    after.add(images, rotations @ turn.mT, (rotations @ centre)[:, :2])
    maps = [
        Volume(sums.volume(0.02 * sums.weight_per_shell()), PIXEL)
        for sums in (turned_sums(before, turn, centre), after)
    ]
    assert fourier_shell_correlation(*maps)[1:10].min() > 0.97
