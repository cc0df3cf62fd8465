"""Where the rivals of a pose are sought: a finer grid has the right pose of a faint image among its best more often."""

import torch

from hoarfrost.analysis.confidence import RIGHT_WITHIN
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.poses.gauss_newton import GaussNewton
from hoarfrost.poses.search import coarse_orientations
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.rivals import DISTINCT, Contest, Rivals
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume
from phantoms import GaussianPhantom

BOX, PIXEL, COUNT, SIGNAL = 48, 4.0, 150, 25.0


def test_a_finer_grid_finds_faint_images(generator):
    phantom = GaussianPhantom.random(20, 70.0, generator, sigma=3.0)
    volume, band = phantom.volume(BOX, PIXEL), Band(BOX, 20)
    views = random_rotations(COUNT, generator)
    power = FourierVolume.from_volume(volume, 20).project(views.float(), band).abs().square().sum(1).mean()
    # SIGNAL is the log-likelihood of a right pose, on average.
    density = FourierVolume.from_volume(Volume(volume.data * (SIGNAL / power).sqrt(), PIXEL), 20)
    noise = torch.view_as_complex(torch.randn(COUNT, len(band), 2, generator=generator) * 0.5**0.5)
    images = BandImages(band, density.project(views.float(), band) + noise, torch.ones(COUNT, len(band)))
    weight, frame = torch.ones(len(band)), random_rotations(1, generator)[0]
    model = CoarseModel(BOX, PIXEL, 90.0, "C1", coarse_orientations("C1"), shift_grid(2.0, 3))

    def found(rivals):
        bank = rivals.bank(density, band, weight, frame)
        contest = rivals.search(images, bank, weight)
        best = geodesic_distance(contest.rotations[:, 0], views) < DISTINCT
        return float(best.double().mean()), bank

    coarse = Rivals(model, 3, 3)
    fine = coarse.finer()
    (share, bank), (better, finer_bank) = found(coarse), found(fine)
    assert fine.model.orientations.spacing == coarse.model.orientations.spacing / 2
    assert bank.band.limit < finer_bank.band.limit <= band.limit
    assert share < 0.9, "or nothing is tested"
    assert better > share + 0.1
    assert fine.count > coarse.count


def test_a_contest_takes_in_one_of_more_candidates(generator):
    def contest(count, candidates):
        rotations = random_rotations(count * candidates, generator).unflatten(0, (count, candidates))
        shifts = torch.rand(count, candidates, 2, generator=generator, dtype=torch.float64)
        return Contest(rotations, shifts, torch.randn(count, candidates, generator=generator))

    few, more = contest(5, 2), contest(1, 6)
    both = few.replaced(torch.tensor([3]), more)
    for mine, before, taken in zip(both.best, few.best, more.best, strict=True):
        torch.testing.assert_close(mine[[0, 1, 2, 4]], before[[0, 1, 2, 4]], rtol=0, atol=0)
        torch.testing.assert_close(mine[[3]], taken, rtol=0, atol=0)


def test_an_image_beside_its_optimum_finds_it(generator):
    phantom = GaussianPhantom.random(40, 70.0, generator, sigma=2.5)
    band = Band(BOX, 16)
    density = FourierVolume.from_volume(phantom.volume(BOX, PIXEL), 16)
    views = random_rotations(COUNT, generator)
    images = BandImages(band, density.project(views.float(), band), torch.ones(COUNT, len(band)))
    weight, none = torch.ones(len(band)), torch.zeros(COUNT, 2)
    turn = torch.nn.functional.normalize(torch.randn(COUNT, 3, generator=generator), dim=-1) * 0.9 * DISTINCT
    beside = views @ rotation_vector_to_matrix(turn.double())
    stuck = geodesic_distance(GaussNewton(weight, 3).refine(images, density, beside, none).rotations, views)
    stuck = (stuck > 0.2) & (stuck < DISTINCT)
    assert stuck.sum() > 20, "or nothing is tested"

    # Without rivals that are further off.
    rivals = Rivals(CoarseModel(BOX, PIXEL, 90.0, "C1", coarse_orientations("C1"), shift_grid(2.0, 3)), 0, 3)
    found = rivals.search(images, rivals.bank(density, band, weight, random_rotations(1, generator)[0]), weight)
    contest = rivals.compete(images, density, weight, beside, none, found)
    right = geodesic_distance(contest.best[0], views) < RIGHT_WITHIN
    assert right[stuck].double().mean() > 0.7
    # A pose at its optimum has no such rival, or one that is no better.
    settled = rivals.compete(images, density, weight, views, none, found)
    assert (settled.winner == 0).all()
