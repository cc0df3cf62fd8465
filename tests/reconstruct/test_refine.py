"""Refinement from a map: it converges from perturbed poses and from none, halves stay apart, noise stays noise."""

import math

import pytest
import torch

from hoarfrost.analysis.metrics import evaluate
from hoarfrost.errors import InputError, Interrupted
from hoarfrost.geometry.rotations import rotation_vector_to_matrix
from hoarfrost.optimise.events import StepDone
from hoarfrost.physics.masks import lowpass, soft_sphere
from hoarfrost.reconstruct.refine import refine
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.types import ImageArray, Particles, Poses, Volume
from memory import Memory
from phantoms import GaussianPhantom
from stacks import noisy_images, phantom_stack

BOX, PIXEL = 32, 4.0

SMALL = RefineConfig(
    diameter=110.0, low_pass=21.0, spacings=(7.5, 3.75), rounds=4, rivals=2, shift_extent=0.06, shift_count=5, seed=3
)


def stack(count, snr, generator):
    """Images of an asymmetric phantom with CTF, shifts and white noise, its poses, and its map."""
    phantom = GaussianPhantom.random(14, 45.0, generator, sigma=5.0)
    settings = {"box": BOX, "pixel_size": PIXEL, "snr": snr, "shift_px": 1.5}
    return *phantom_stack(phantom, count, generator=generator, **settings), phantom.volume(BOX, PIXEL)


@pytest.fixture(scope="module")
def data():
    return stack(300, 1.0, torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def searched(data):
    particles, _, truth = data
    return refine(particles, truth, SMALL)


def errors(result, particles, truth):
    return evaluate(result.particles, particles.replace(poses=truth)).to_dict()


def test_poses_are_found_from_none(data, searched):
    particles, truth, _ = data
    scores = errors(searched, particles, truth)
    assert searched.search == "global"
    assert scores["rotation_deg"]["median"] < 2.5
    assert scores["rotation_deg"]["below_10"] > 0.95
    assert scores["shift_px"]["after_origin"] < 0.3
    assert searched.maps.fsc.resolution(0.143) < 12


@pytest.mark.parametrize("soft", [True, False])
def test_perturbed_poses_come_back(data, soft, generator):
    particles, truth, reference = data
    turns = rotation_vector_to_matrix(math.radians(4) * torch.randn(300, 3, generator=generator, dtype=torch.float64))
    moves = PIXEL * torch.randn(300, 2, generator=generator, dtype=torch.float64)
    off = particles.replace(poses=Poses(truth.rotations @ turns, truth.shifts + moves))
    before = evaluate(off, particles.replace(poses=truth)).to_dict()
    result = refine(off, reference, SMALL.model_copy(update={"soft_below": 5000 if soft else 0}))
    scores = errors(result, particles, truth)
    assert result.search == "local"
    assert scores["rotation_deg"]["median"] < 0.5 * before["rotation_deg"]["median"]
    assert scores["rotation_deg"]["median"] < 2.5
    assert scores["shift_px"]["after_origin"] < 0.3


@pytest.mark.parametrize("soft", [True, False])
def test_poses_of_halves_found_apart_go_on_in_their_own_maps(data, soft):
    # The map given is that of a ball, in which all poses are alike.
    particles, truth, _ = data
    ball = GaussianPhantom(torch.zeros(1, 3).double(), torch.tensor([25.0]).double(), torch.ones(1).double())
    half = 1 + torch.arange(len(particles)) % 2
    known = particles.replace(poses=truth, half=half)
    result = refine(known, ball.volume(BOX, PIXEL), SMALL.model_copy(update={"soft_below": 5000 if soft else 0}))
    scores = errors(result, particles, truth)
    assert scores["rotation_deg"]["median"] < 1.5
    assert scores["rotation_deg"]["below_10"] > 0.99
    assert result.maps.fsc.resolution(0.143) < 12


def test_the_scale_of_the_given_map_is_of_no_account(data, searched):
    particles, _, reference = data
    other = refine(particles, Volume(1000 * reference.data, PIXEL), SMALL)
    torch.testing.assert_close(other.particles.poses.rotations, searched.particles.poses.rotations, atol=1e-3, rtol=0)


def test_halves_of_the_table_are_kept_and_share_nothing(data, generator):
    particles, _, reference = data
    half = 1 + torch.randint(0, 2, (len(particles),), generator=generator)
    result = refine(particles.replace(half=half), reference, SMALL)
    assert torch.equal(result.particles.half, half)
    # Other images in one half leave the other half's map as it was, but for the shells that both share.
    assert not torch.equal(result.maps.half_maps.first.data, result.maps.half_maps.second.data)
    assert float(result.maps.fsc.unmasked.min()) < 0.9


def test_noise_alone_shows_nothing_of_the_given_map(data, generator):
    particles, _, reference = data
    noise = Particles(ImageArray(torch.randn(300, BOX, BOX, generator=generator)), particles.optics)
    result = refine(noise, reference, SMALL.model_copy(update={"low_pass": 32.0}))
    assert result.common == pytest.approx(BOX * PIXEL / 6), "six shells are left of any map"
    assert result.maps.fsc.resolution(0.143) > 0.75 * result.common
    assert result.verdict.level == "bad"


def test_a_given_mask_is_the_mask_of_the_result(data):
    particles, truth, reference = data
    mask = Volume(soft_sphere(BOX, 13.0, 2.0), PIXEL)
    result = refine(particles, reference, SMALL, mask=mask)
    assert torch.equal(result.maps.mask.data, mask.data)
    assert errors(result, particles, truth)["rotation_deg"]["median"] < 2.5


def test_symmetric_particles_are_refined_modulo_the_group(generator):
    particles, truth, _ = stack(200, 1.0, generator)
    # The copies of a phantom turned about z make one with the symmetry C2; every image is drawn from it anew.
    phantom = GaussianPhantom.random(8, 45.0, generator, sigma=5.0)
    turned = phantom.centres * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    both = GaussianPhantom(torch.cat([phantom.centres, turned]), phantom.sigmas.repeat(2), phantom.masses.repeat(2))
    images = noisy_images(both, truth, particles.optics, BOX, 1.0, generator)
    symmetric = Particles(ImageArray(images), particles.optics)
    result = refine(symmetric, both.volume(BOX, PIXEL), SMALL.model_copy(update={"symmetry": "C2"}))
    found = evaluate(result.particles, symmetric.replace(poses=truth), symmetry="C2").to_dict()
    assert found["rotation_deg"]["median"] < 2.5
    copy = result.maps.map.data.flip(1, 2).roll((1, 1), (1, 2))
    assert torch.corrcoef(torch.stack([copy.flatten(), result.maps.map.data.flatten()]))[0, 1] > 0.98


@pytest.mark.parametrize("stop_after", [3, 6, 9])
def test_a_stopped_run_goes_on_to_the_same_result(data, searched, stop_after, tmp_path):
    particles, _, reference = data
    store, done = Memory(), []

    def listen(event):
        if isinstance(event, StepDone):
            done.append(event.stage)

    with pytest.raises(Interrupted):
        refine(
            particles,
            reference,
            SMALL,
            workspace=tmp_path,
            store=store,
            listener=listen,
            should_stop=lambda: len(done) >= stop_after,
        )
    resumed = refine(particles, reference, SMALL, workspace=tmp_path, store=store)
    torch.testing.assert_close(resumed.particles.poses.rotations, searched.particles.poses.rotations)
    torch.testing.assert_close(resumed.maps.map.data, searched.maps.map.data)


def test_a_local_search_needs_poses(data):
    particles, _, reference = data
    with pytest.raises(InputError, match="--search local: these particles have no poses"):
        refine(particles, lowpass(reference, 20.0), SMALL.model_copy(update={"search": "local"}))
