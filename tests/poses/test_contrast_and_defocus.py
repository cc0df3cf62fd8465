"""Scales and defocus of single particles: the right values come back, with the errors that the noise must cause."""

import math

import pytest
import torch

from hoarfrost.data.dataset import BandImages, whitened_transfer
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.poses.contrast import Contrast, contrast, shrunk
from hoarfrost.poses.defocus import DefocusRefinement, whitened_derivative
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Optics
from phantoms import GaussianPhantom

BOX, PIXEL, LIMIT, COUNT = 48, 2.0, 22, 240


class Scene:
    """Slices of a phantom, and noisy images of them through any optics; whitened by unit noise."""

    def __init__(self, generator, strength):
        phantom = GaussianPhantom.random(40, 30.0, generator, sigma=2.5)
        self.band, self.generator = Band(BOX, LIMIT), generator
        self.rotations = random_rotations(COUNT, generator)
        self.shifts = torch.randn(COUNT, 2, generator=generator, dtype=torch.float64)
        volume = phantom.volume(BOX, PIXEL).data
        density = FourierVolume(volume, PIXEL, SliceGrid(BOX, LIMIT))
        scale = strength / density.project(self.rotations.float(), self.band).abs().square().sum(-1).mean().sqrt()
        self.density = FourierVolume(volume * scale, PIXEL, SliceGrid(BOX, LIMIT))
        self.noise = torch.ones(3, LIMIT + 1)
        self.weight = torch.ones(len(self.band))

    def images(self, optics, scale=None):
        transfer = whitened_transfer(optics, self.band, self.noise)
        slices = transfer * self.density.project(self.rotations.float(), self.band)
        clean = slices * self.band.shift_phases(self.shifts.float())
        noise = torch.view_as_complex(torch.randn(*clean.shape, 2, generator=self.generator)) / math.sqrt(2)
        factor = 1.0 if scale is None else scale[:, None].float()
        return BandImages(self.band, factor * clean + noise, transfer)


@pytest.fixture
def optics(generator):
    defocus = 12000 + 6000 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    return Optics.uniform(COUNT, pixel_size=PIXEL).replace(
        defocus_u=defocus + 400,
        defocus_v=defocus,
        defocus_angle=torch.rand(COUNT, generator=generator, dtype=torch.float64),
        group=torch.arange(COUNT) % 3,
    )


def shifted(optics, change):
    return optics.replace(defocus_u=optics.defocus_u + change, defocus_v=optics.defocus_v + change)


def test_scales_have_the_errors_that_the_noise_causes(optics, generator):
    scene = Scene(generator, 12.0)
    truth = 0.8 + 0.4 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    found = contrast(scene.images(optics, truth), scene.density, scene.rotations, scene.shifts, scene.weight)
    errors = (found.scale - truth) / found.deviation
    assert 0.88 < errors.square().mean().sqrt() < 1.12
    assert errors.mean().abs() < 4 / math.sqrt(COUNT)


def test_an_image_without_signal_keeps_its_scale(optics, generator):
    scene = Scene(generator, 12.0)
    empty = FourierVolume(torch.zeros_like(scene.density.volume), PIXEL, scene.density.grid)
    found = contrast(scene.images(optics), empty, scene.rotations, scene.shifts, scene.weight)
    assert (found.scale == 1).all()
    assert torch.equal(shrunk(found, optics.group), found.scale)


def test_shrunken_scales_are_the_posterior_means(generator):
    count, spread, deviation = 4000, 0.1, 0.2
    group = torch.arange(count) % 2
    centre = torch.tensor([0.8, 1.3]).double()[group]
    truth = centre + spread * torch.randn(count, generator=generator, dtype=torch.float64)
    measured = truth + deviation * torch.randn(count, generator=generator, dtype=torch.float64)
    result = shrunk(Contrast(measured, torch.full_like(measured, deviation)), group)
    share = spread**2 / (spread**2 + deviation**2)
    expected = centre + share * (measured - centre)
    assert (result - expected).square().mean().sqrt() < 0.02
    least = math.sqrt(1 / (1 / spread**2 + 1 / deviation**2))
    assert (result - truth).square().mean().sqrt() < 1.05 * least


def test_scatter_that_noise_explains_is_one_scale(generator):
    measured = 1 + 0.1 * torch.randn(500, generator=generator, dtype=torch.float64)
    result = shrunk(Contrast(measured, torch.full_like(measured, 0.13)), torch.zeros(500, dtype=torch.int64))
    assert result.std() < 1e-6


@pytest.mark.parametrize("premultiplied", [False, True])
def test_the_derivative_by_defocus_is_that_of_the_transfer(premultiplied, optics, generator):
    optics = optics.replace(
        premultiplied=torch.full((COUNT,), premultiplied),
        b_factor=torch.full((COUNT,), 40.0).double(),
        scale=torch.full((COUNT,), 1.3).double(),
    )[:5]
    band, noise, step = Band(BOX, LIMIT), 0.5 + torch.rand(3, LIMIT + 1, generator=generator), 10.0
    up, down = (whitened_transfer(shifted(optics, sign * step), band, noise) for sign in (1, -1))
    measured = (up - down) / (2 * step)
    actual = whitened_derivative(optics, band, noise)
    assert (measured - actual).norm() < 2e-3 * actual.norm()


@pytest.mark.parametrize("premultiplied", [False, True])
def test_a_planted_defocus_error_is_found_within_the_bound(premultiplied, optics, generator):
    scene = Scene(generator, 60.0)
    optics = optics.replace(premultiplied=torch.full((COUNT,), premultiplied))
    planted = 120 * torch.randn(COUNT, generator=generator, dtype=torch.float64)
    images = scene.images(shifted(optics, planted))
    method = DefocusRefinement(scene.weight, scene.noise, prior=1e4)
    found = method.refine(images, scene.density, optics, scene.rotations, scene.shifts)
    ratio = (found.change - planted).square().mean().sqrt() / found.deviation.square().mean().sqrt()
    assert found.deviation.median() < 60
    assert 0.85 < ratio < 1.15
    better = found.applied(optics)
    assert torch.allclose(better.defocus_u - better.defocus_v, optics.defocus_u - optics.defocus_v)


def test_a_group_finds_its_common_error_more_exactly(optics, generator):
    scene = Scene(generator, 12.0)
    planted = torch.tensor([150.0, -80.0, 20.0]).double()[optics.group]
    images = scene.images(shifted(optics, planted))
    method = DefocusRefinement(scene.weight, scene.noise, prior=1e4, per_group=True)
    found = method.refine(images, scene.density, optics, scene.rotations, scene.shifts)
    assert len(found.change.unique()) == 3
    assert ((found.change - planted).abs() < 4 * found.deviation).all()
    assert found.deviation.max() < 40


def test_the_prior_holds_what_the_image_does_not_tell(optics, generator):
    scene = Scene(generator, 3.0)
    planted = 50 * torch.randn(COUNT, generator=generator, dtype=torch.float64)
    images = scene.images(shifted(optics, planted))
    found = DefocusRefinement(scene.weight, scene.noise, prior=50.0).refine(
        images, scene.density, optics, scene.rotations, scene.shifts
    )
    assert (found.change - planted).square().mean() < 1.02 * planted.square().mean()
    assert (found.deviation <= 50).all()
