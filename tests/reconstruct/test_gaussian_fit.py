import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.data.dataset import whitened_images
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.optimise.loop import run_stages
from hoarfrost.reconstruct.half_fits import ALL, setting_of, state_of
from hoarfrost.reconstruct.homogeneous import reconstruct
from hoarfrost.reconstruct.homogeneous_plan import first_state, make_plan
from hoarfrost.reconstruct.misfit import Misfit
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.representations.gaussian_seeds import random_gaussians
from hoarfrost.types import ImageArray, Optics, Particles, Poses
from phantoms import GaussianPhantom

BOX, PIXEL, COUNT = 32, 4.0, 500
SETTINGS = ReconstructConfig(method="gaussians", gaussians=150, diameter=105.0)


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(5)
    phantom = GaussianPhantom.random(25, 32.0, generator, sigma=4.5)
    rotations = random_rotations(COUNT, generator)
    shifts = 8 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64) - 4
    images = phantom.project(rotations, shifts, BOX, PIXEL).float()
    images = images / images.std() + 2.0 * torch.randn(images.shape, generator=generator)
    optics = Optics.uniform(COUNT, pixel_size=PIXEL)
    return Particles(ImageArray(images), optics, Poses(rotations, shifts)), phantom


@pytest.mark.parametrize("changes", [{}, {"anisotropic": False}, {"start": "random"}])
def test_gaussians_give_a_better_map_than_back_projection(scene, changes):
    particles, phantom = scene
    truth = phantom.volume(BOX, PIXEL)
    fitted = reconstruct(particles, SETTINGS.model_copy(update=changes))
    divided = reconstruct(particles, ReconstructConfig(diameter=105.0))
    ours, theirs = (fourier_shell_correlation(one.maps.map, truth)[1:13] for one in (fitted, divided))
    assert float(ours.mean()) > float(theirs.mean())
    halves = fitted.maps.half_maps
    assert float(fourier_shell_correlation(halves.first, halves.second)[1:8].min()) > 0.8


def test_a_fit_that_was_saved_between_steps_goes_on_exactly(scene):
    particles, _ = scene
    plan = make_plan(particles, SETTINGS, Path("nowhere"))
    state = first_state(plan)
    stages = plan.stages
    for stage in stages[:2]:
        for step in range(stage.steps):
            state, _ = stage.run(state, step)
    fit = stages[2]
    whole = state
    for step in range(fit.steps):
        whole, figures = fit.run(whole, step)
    assert figures["gaussians"] == 150
    again = make_plan(particles, SETTINGS, Path("nowhere"))
    resumed = state
    for step in range(fit.steps):
        resumed, _ = again.stages[2].run({key: value.clone() for key, value in resumed.items()}, step)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_fit_that_goes_on_is_not_thrown_off_its_way(scene):
    """Rates that come up slowly keep what was reached, and the fit ends nearer to the images than it began."""
    particles, _ = scene
    plan = make_plan(particles, SETTINGS, Path("nowhere"))
    state = first_state(plan)
    for stage in plan.stages[:3]:
        for step in range(stage.steps):
            state, figures = stage.run(state, step)
    reached, misfits = figures["misfit"], []
    fit, sums, setting = plan.fit, plan.sums.of(state, 1), setting_of(plan.setting, state)
    own = fit.begin(sums, setting, state_of(state, 1))
    for step in range(fit.steps):
        own, figures = fit.run(sums, setting, own, step)
        misfits += [figures["misfit"]] if figures else []
    assert misfits[0] < 1.005 * reached
    assert misfits[-1] < 0.997 * reached


def test_noise_gives_halves_that_do_not_agree(scene):
    particles, _ = scene
    noise = torch.randn(COUNT, BOX, BOX, generator=torch.Generator().manual_seed(8))
    found = reconstruct(particles.replace(images=ImageArray(noise)), SETTINGS)
    curve = fourier_shell_correlation(found.maps.half_maps.first, found.maps.half_maps.second)
    assert float(curve[6:].abs().mean()) < 0.15
    assert math.isfinite(float(found.maps.map.data.abs().max()))


@pytest.mark.parametrize("anisotropic", [True, False])
def test_training_on_images_comes_to_the_same_map(scene, anisotropic):
    particles, phantom = scene
    config = SETTINGS.model_copy(
        update={"preset": "images", "gaussians": 40, "anisotropic": anisotropic, "start": "random", "epochs": 15}
    )
    found = reconstruct(particles, config)
    fsc = fourier_shell_correlation(found.maps.map, phantom.volume(BOX, PIXEL))
    assert float(fsc[1:8].min()) > 0.9


def test_the_gradient_of_the_sums_is_that_of_the_images(scene, tmp_path):
    """What the two ways of training climb is one likelihood."""
    particles, _ = scene
    plan = make_plan(particles, SETTINGS.model_copy(update={"anisotropic": False}), tmp_path)
    state = first_state(plan)
    state = run_stages([plan.prepare, plan.maps], state)
    sums = plan.sums.of(state, ALL)
    limit = plan.sums.grid.limit
    generator = torch.Generator().manual_seed(6)
    density = random_gaussians(12, 45.0, 4e3, BOX, PIXEL, generator, isotropic=True).widened(25.0)
    masses = density.masses.clone().requires_grad_()
    centres = density.centres.clone().requires_grad_()
    density = replace(density, masses=masses, centres=centres)

    misfit = Misfit.of(sums, limit, 0.5 * BOX, 1.5)
    grid = density.on_grid(misfit.transform.side, misfit.transform.spacing * PIXEL)
    by_sums = torch.autograd.grad(misfit(grid), [masses, centres])

    images = whitened_images(
        particles, torch.arange(COUNT), Band(BOX, limit), plan.prepare.normalisation, plan.stack.noise
    )
    centred = images.centred(state["shifts"].float())
    model = images.transfer * density.project(state["rotations"].float(), images.band)
    by_images = torch.autograd.grad((centred.vectors - model).abs().square().sum(), [masses, centres])
    for one, other in zip(by_sums, by_images, strict=True):
        cosine = (one * other).sum() / (one.norm() * other.norm())
        assert float(cosine) > 0.995
