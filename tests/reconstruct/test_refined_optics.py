"""Defocus and contrast refined at settled poses: planted errors shrink, and without the options nothing changes."""

import math

import pytest
import torch

from hoarfrost.errors import Interrupted
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.optimise.events import StageStarted
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.reconstruct.refine import refine
from hoarfrost.reconstruct.refined_optics import refined_optics
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.types import ImageArray, Optics, Particles, Poses
from memory import Memory
from phantoms import GaussianPhantom
from stacks import noisy_images

BOX, PIXEL, COUNT = 32, 3.0, 300

LOCAL = RefineConfig(diameter=80.0, low_pass=15.0, soft_below=0, rounds=2, iterations=2, seed=3)


@pytest.fixture(scope="module")
def planted():
    """Particles with their poses, whose table has other defocus values and contrasts than the images; those; a map."""
    generator = torch.Generator().manual_seed(8)
    phantom = GaussianPhantom.random(30, 32.0, generator, sigma=2.2)
    rotations = random_rotations(COUNT, generator)
    shifts = PIXEL * (2 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64) - 1)
    defocus = 8000 + 8000 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    group = torch.arange(COUNT) % 2
    table = Optics.uniform(COUNT, pixel_size=PIXEL).replace(defocus_u=defocus, defocus_v=defocus - 200, group=group)
    error = torch.tensor([250.0, -350.0]).double()[group]
    error += 150 * torch.randn(COUNT, generator=generator, dtype=torch.float64)
    contrast = 0.5 + torch.rand(COUNT, generator=generator, dtype=torch.float64)
    true = table.replace(defocus_u=defocus + error, defocus_v=defocus - 200 + error, scale=contrast)
    poses = Poses(rotations, shifts)
    particles = Particles(ImageArray(noisy_images(phantom, poses, true, BOX, 1.0, generator)), table, poses)
    return particles, error, contrast, phantom.volume(BOX, PIXEL)


@pytest.fixture(scope="module")
def plain(planted):
    particles, _, _, reference = planted
    return refine(particles, reference, LOCAL)


@pytest.fixture(scope="module")
def both(planted):
    particles, _, _, reference = planted
    return refine(particles, reference, LOCAL.model_copy(update={"defocus": "particle", "contrast": True}))


def deviation(values):
    return float(values.square().mean().sqrt())


def test_without_the_options_the_optics_are_those_of_the_table(planted, plain):
    assert plain.particles.optics is planted[0].optics
    assert plain.defocus is None
    assert plain.contrast is None


def test_defocus_and_contrast_of_every_particle_come_back(planted, plain, both):
    particles, error, contrast, _ = planted
    assert deviation(both.defocus.change - error) < 0.5 * deviation(error)
    expected = float(both.defocus.deviation.square().mean().sqrt())
    assert 0.6 * expected < deviation(both.defocus.change - error) < 1.7 * expected
    assert deviation(both.contrast - contrast / contrast.mean()) < 0.5 * float(contrast.std())
    optics = both.particles.optics
    torch.testing.assert_close(optics.defocus_u, particles.optics.defocus_u + both.defocus.change)
    torch.testing.assert_close(optics.defocus_u - optics.defocus_v, torch.full((COUNT,), 200.0).double())
    torch.testing.assert_close(optics.scale, both.contrast.double())
    assert both.rounds > plain.rounds
    assert both.maps.fsc.resolution(0.5) < plain.maps.fsc.resolution(0.5)


def test_the_defocus_of_a_group_comes_back(planted):
    particles, error, _, reference = planted
    found = refine(particles, reference, LOCAL.model_copy(update={"defocus": "group", "rounds": 1}))
    assert found.contrast is None
    for number in (0, 1):
        rows = particles.optics.group == number
        assert len(found.defocus.change[rows].unique()) == 2, "each half for itself"
        assert abs(float(found.defocus.change[rows].mean() - error[rows].mean())) < 90, (
            "a map made with the errors holds back a part"
        )


@pytest.mark.parametrize("stage", ["defocus", "contrast-1", "optics-round-1", "maps"])
def test_a_stopped_run_goes_on_to_the_same_result(planted, both, stage, tmp_path):
    particles, _, _, reference = planted
    config = LOCAL.model_copy(update={"defocus": "particle", "contrast": True})
    store, begun = Memory(), []

    def listen(event):
        if isinstance(event, StageStarted):
            begun.append(event.stage)

    with pytest.raises(Interrupted):
        refine(
            particles, reference, config, workspace=tmp_path, store=store, listener=listen,
            should_stop=lambda: stage in begun,
        )  # fmt: skip
    resumed = refine(particles, reference, config, workspace=tmp_path, store=store)
    torch.testing.assert_close(resumed.particles.poses.rotations, both.particles.poses.rotations)
    torch.testing.assert_close(resumed.particles.optics.defocus_u, both.particles.optics.defocus_u)
    torch.testing.assert_close(resumed.maps.map.data, both.maps.map.data)


def test_a_contrast_of_premultiplied_images_is_that_of_the_images():
    optics = Optics.uniform(3, pixel_size=PIXEL).replace(
        defocus_u=torch.full((3,), 9000.0).double(), premultiplied=torch.tensor([False, True, True])
    )
    contrast = torch.tensor([0.8, 0.8, 1.3])
    band = Band.to_nyquist(BOX)

    def model(optics):
        transfer = contrast_transfer_function(optics, band.frequency)
        return torch.where(optics.premultiplied[:, None], transfer.square(), transfer)

    found = model(refined_optics(optics, {"contrast": contrast}))
    torch.testing.assert_close(found, contrast[:, None] * model(optics))
    assert math.isclose(float(refined_optics(optics, {}).scale.mean()), 1.0)
