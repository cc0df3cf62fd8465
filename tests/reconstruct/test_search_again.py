"""The second search: confidences hold on a phantom whose poses are partly lost, and images made for their calibration."""

import math

import pytest
import torch

from hoarfrost.analysis.alignment import rotation_errors
from hoarfrost.analysis.confidence import RIGHT_WITHIN, reliability
from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.kernels.library import VARIABLE, library
from hoarfrost.optimise.loop import run_stages
from hoarfrost.reconstruct.ab_initio_plan import make_plan
from hoarfrost.reconstruct.assignment import split_halves
from hoarfrost.reconstruct.calibration import simulated_images, strength
from hoarfrost.reconstruct.search_again import SearchAgain
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom
from stacks import phantom_stack

COUNT, BOX, PIXEL = 700, 36, 4.0

CONFIG = AbInitioConfig(start_limit=9, shift_extent=0.06, shift_count=5, levels=(12,), rivals=2, diameter=120.0)


def searched(folder):
    """A stack so noisy that many poses are wrong, after the last round of the second search in maps of as many others.

    Their poses are unknown and searched twice, so that what the first search finds competes in the second.
    """
    generator = torch.Generator().manual_seed(11)
    phantom = GaussianPhantom.random(14, 50.0, generator, sigma=5.0)
    settings = {"box": BOX, "pixel_size": PIXEL, "snr": 0.025, "shift_px": 2.0}
    particles, truth = phantom_stack(phantom, 2 * COUNT, generator=generator, **settings)
    plan = make_plan(particles, CONFIG, folder)
    halves, others = split_halves(2 * COUNT, None, 0), torch.arange(2 * COUNT) < COUNT
    state = {
        "half": torch.where(others, halves, 0),
        "radius": torch.tensor(60.0),
        "rotations": truth.rotations,
        "shifts": truth.shifts / PIXEL,
        "score": torch.zeros(2 * COUNT),
    }
    stage = [stage for stage in plan.refinement if isinstance(stage, SearchAgain)][-1]
    state, _ = stage.run(run_stages([plan.prepare], state), 0)
    state |= {
        "half": torch.where(others, 0, halves),
        "rotations": random_rotations(2 * COUNT, generator),
        "shifts": torch.zeros(2 * COUNT, 2, dtype=torch.float64),
    }
    assert stage.steps == 3
    for step in (1, 1, 2):
        state, _ = stage.run(state, step)
    right = rotation_errors(state["rotations"], truth.rotations) < RIGHT_WITHIN
    return state["confidence"][~others], right[~others], state


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("bands"))


def test_confidences_are_shares_of_right_poses(found):
    confidence, right, _ = found
    assert 0.3 < right.double().mean() < 0.9, "some are right and some are not, or nothing is tested"
    assert abs(confidence.mean() - right.double().mean()) < 0.07
    # Fifths of 140 particles: a share of one half has a deviation of 0.04.
    assert reliability(confidence, right, 5, by="rank").largest_difference() < 0.15
    order = confidence.argsort()
    doubtful, sure = right[order].double().chunk(2)
    assert sure.mean() > doubtful.mean() + 0.2


def test_nothing_is_left_of_the_search_but_poses_confidences_and_how_many_moved_or_are_in_doubt(found):
    state = found[2]
    left = {name.removeprefix("search-again-12.") for name in state if name.startswith("search-again")}
    assert left == {"doubtful", "fsc", "limit", "moved", "own_share"}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """The rounds of the search of a stack of 1,000 particles."""
    generator = torch.Generator().manual_seed(1)
    settings = {"box": BOX, "pixel_size": PIXEL, "snr": 1.0, "shift_px": 0.0, "generator": generator}
    particles, _ = phantom_stack(GaussianPhantom.random(3, 40.0, generator, sigma=5.0), 1000, **settings)
    plan = make_plan(particles, CONFIG, tmp_path_factory.mktemp("bands"))
    return [stage for stage in plan.refinement if isinstance(stage, SearchAgain)]


@pytest.mark.parametrize(
    ("after", "moved", "doubtful", "needed"),
    [
        (1, 0, 0.5, False),
        (1, 0.02, 0.01, True),
        (1, 0.02, 0, False),
        (1, 0.1, 0, True),
        (4, 0.7, 1, True),
        (5, 0.7, 1, False),
        (5, 0.2, 0.9, True),
    ],
)
def test_another_round_is_for_poses_that_are_not_settled(rounds, after, moved, doubtful, needed):
    before = {"moved": torch.tensor(moved), "doubtful": torch.tensor(doubtful)}
    assert rounds[after].needed({f"search-again-{after}.{name}": share for name, share in before.items()}) is needed


@pytest.mark.slow
def test_without_kernels_confidences_are_the_same(found, tmp_path, monkeypatch):
    if library() is None:
        pytest.skip("the kernels were not compiled here")
    monkeypatch.setenv(VARIABLE, "off")
    library.cache_clear()
    try:
        confidence, right, _ = searched(tmp_path)
    finally:
        monkeypatch.undo()
        library.cache_clear()
        library()
    # Where two optima are equally good, rounding decides between them.
    difference = (confidence - found[0]).abs()
    assert difference.median() < 0.01
    assert (right == found[1]).double().mean() > 0.97


@pytest.fixture
def images(generator):
    """Images of a phantom without noise, the phantom and the poses."""
    phantom = GaussianPhantom.random(8, 30.0, generator, sigma=5.0)
    density, band = FourierVolume.from_volume(phantom.volume(24, PIXEL), 10), Band(24, 10)
    rotations, shifts = random_rotations(500, generator), torch.rand(500, 2, generator=generator, dtype=torch.float64)
    transfer = 0.5 + torch.rand(500, len(band), generator=generator)
    model = transfer * density.project(rotations.float(), band) * band.shift_phases(shifts.float())
    return BandImages(band, model, transfer), density, rotations, shifts


def test_simulated_images_are_the_model_and_noise_of_the_power_asked_for(images, generator):
    clean, density, rotations, shifts = images
    band = clean.band
    amplitude, noise = torch.linspace(1, 2, 11), band.at_shells(torch.linspace(0.5, 3, 11))
    noisy = simulated_images(clean, density, rotations, shifts, amplitude, noise, generator)
    rest = noisy.vectors - band.at_shells(amplitude) * clean.vectors
    torch.testing.assert_close(
        band.shell_mean(rest.abs().square().mean(0))[1:], torch.linspace(0.5, 3, 11)[1:], rtol=0.1, atol=0
    )
    assert abs(float((rest.real * rest.imag).mean())) < 0.02
    silent = simulated_images(clean, density, rotations, shifts, torch.ones(11), torch.zeros(len(band)), generator)
    torch.testing.assert_close(silent.vectors, clean.vectors)


def test_strength_tells_how_much_stronger_images_are_than_the_map(images, generator):
    clean, density, rotations, shifts = images
    amplitude = torch.linspace(0.8, 1.6, 11)
    noise = clean.band.at_shells(clean.band.shell_mean(clean.vectors.abs().square().mean(0)))
    strong, plain = (
        simulated_images(clean, density, rotations, shifts, scale, noise, generator)
        for scale in (amplitude, torch.ones(11))
    )
    gap = torch.full((500,), 3.0)
    found = strength(strong, density, rotations, shifts, gap) / strength(plain, density, rotations, shifts, gap)
    torch.testing.assert_close(found[1:], amplitude[1:], rtol=0.1, atol=0)
    # Images whose poses are anyone's guess have no say.
    half = torch.arange(500) < 250
    mixed = torch.where(half[:, None], strong.vectors, 0 * strong.vectors)
    doubtful = torch.where(half, 3.0, -math.inf)
    only = strength(BandImages(strong.band, mixed, strong.transfer), density, rotations, shifts, doubtful)
    torch.testing.assert_close(only, strength(strong[:250], density, rotations[:250], shifts[:250], gap[:250]))
