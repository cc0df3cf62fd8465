import math

import pytest
import torch

from hoarfrost.analysis.alignment import align_rotations, rotation_errors
from hoarfrost.analysis.metrics import evaluate
from hoarfrost.errors import Interrupted
from hoarfrost.kernels.library import VARIABLE, library
from hoarfrost.optimise.events import Message, StepDone
from hoarfrost.reconstruct.ab_initio import ab_initio
from hoarfrost.reconstruct.ab_initio_plan import make_plan
from hoarfrost.reconstruct.annealing import assignment
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.types import ImageArray, Optics, Particles
from memory import Memory
from phantoms import GaussianPhantom
from stacks import phantom_stack

BOX, PIXEL = 36, 4.0

SMALL = AbInitioConfig(
    starts=2,
    further_starts=1,
    start_steps=24,
    half_steps=6,
    start_batch=120,
    start_limit=9,
    shift_extent=0.06,
    shift_count=5,
    levels=(8, 12),
    rivals=2,
    diameter=120.0,
    seed=3,
)


def stack(count, snr, generator):
    """A blind stack of an asymmetric phantom with CTF, shifts and white noise, its poses, and the phantom."""
    phantom = GaussianPhantom.random(14, 50.0, generator, sigma=5.0)
    settings = {"box": BOX, "pixel_size": PIXEL, "snr": snr, "shift_px": 2.0}
    return *phantom_stack(phantom, count, generator=generator, **settings), phantom


@pytest.mark.parametrize(("setting", "lines"), [("off", 1), ("portable", 0)])
def test_a_run_without_kernels_says_so_in_one_line(setting, lines, generator, monkeypatch):
    if library() is None:
        pytest.skip("the kernels were not compiled here")
    monkeypatch.setenv(VARIABLE, setting)
    library.cache_clear()
    said = []
    try:
        with pytest.raises(Interrupted):
            ab_initio(stack(40, 1.0, generator)[0], SMALL, listener=said.append, should_stop=lambda: True)
    finally:
        monkeypatch.undo()
        library.cache_clear()
        library()
    about = [event.text for event in said if isinstance(event, Message) and "compiled kernels" in event.text]
    assert len(about) == lines
    assert all("slower" in text and "\n" not in text for text in about)


@pytest.mark.parametrize(
    ("settled", "agreement", "made"),
    [
        (0.95, 0.97, {"start-1", "start-2", "choose"}),
        (0.95, 0.9, {"start-1", "start-2", "choose", "start-3", "choose-of-3"}),
        (1.0, 0.97, {"start-1", "start-2", "choose", "start-3", "choose-of-3"}),
        (0.95, 0.5, {"start-1", "start-2", "choose", "start-3", "choose-of-3", "start-4", "choose-of-4"}),
    ],
)
def test_further_starts_are_made_for_want_of_agreement(settled, agreement, made, generator, tmp_path):
    config = AbInitioConfig.model_validate(SMALL.model_dump() | {"starts": 3, "settled": settled})
    plan = make_plan(stack(40, 1.0, generator)[0], config, tmp_path)
    state = {"start.agreement": torch.tensor([agreement, 1.0, 0.1])}
    stages = [stage for stage in plan.before_refinement if stage.name.startswith(("start", "choose"))]
    assert {stage.name for stage in stages if stage.needed(state)} == made


@pytest.fixture(scope="module")
def solved():
    particles, truth, phantom = stack(500, 1.0, torch.Generator().manual_seed(5))
    return particles, truth, phantom, ab_initio(particles, SMALL)


def test_poses_and_map_are_those_of_the_phantom(solved):
    particles, truth, phantom, result = solved
    scores = evaluate(
        result.particles, particles.replace(poses=truth), map=result.map, truth_map=phantom.volume(BOX, PIXEL)
    ).to_dict()
    assert scores["rotation_deg"]["median"] < 4
    assert scores["rotation_deg"]["below_10"] > 0.9
    assert scores["shift_px"]["after_origin"] < 0.5
    assert scores["fsc_0.5_angstrom"] < 16
    assert result.fsc.resolution(0.143) < 14


def test_a_result_says_how_it_was_found(solved):
    particles, _, _, result = solved
    assert sorted(result.particles.half.unique().tolist()) == [1, 2]
    assert abs((result.particles.half == 1).sum() - len(particles) / 2) <= 1
    assert sum(start.chosen for start in result.starts) == 1
    steps = [SMALL.start_steps] * SMALL.starts + [SMALL.further_slower * SMALL.start_steps] * SMALL.further_starts
    assert [len(start.scores) for start in result.starts] == steps[: len(result.starts)]
    confidence = result.particles.poses.confidence
    assert ((confidence > 0) & (confidence <= 1)).all()
    assert {"prepare", "start-1", "choose", "full-pass", "refine-8", "search-again-1", "maps"} <= set(result.timings)
    assert 0 < result.throughput["search_fraction_of_peak"] < 1
    assert result.verdict.level != "bad"


def test_the_halves_share_no_image_and_no_map(solved):
    _, _, _, result = solved
    first, second = result.half_maps.first.data, result.half_maps.second.data
    assert not torch.equal(first, second)
    # Unfiltered half-maps disagree by noise somewhere, or the comparison of halves would be one of a map with itself.
    assert float(result.fsc.unmasked.min()) < 0.9


@pytest.mark.parametrize("stop_after", [9, 35])
def test_a_stopped_run_goes_on_to_the_same_result(solved, stop_after, tmp_path):
    particles, _, _, result = solved
    store, done = Memory(), []

    def listen(event):
        if isinstance(event, StepDone):
            done.append(event.stage)

    with pytest.raises(Interrupted):
        ab_initio(
            particles,
            SMALL,
            workspace=tmp_path,
            store=store,
            listener=listen,
            should_stop=lambda: len(done) >= stop_after,
        )
    resumed = ab_initio(particles, SMALL, workspace=tmp_path, store=store)
    torch.testing.assert_close(resumed.particles.poses.rotations, result.particles.poses.rotations)
    torch.testing.assert_close(resumed.map.data, result.map.data)


def test_another_seed_finds_the_same_poses_another_way(solved):
    particles, truth, _, result = solved
    other = ab_initio(particles, SMALL.model_copy(update={"seed": 11}))
    assert not torch.equal(other.particles.half, result.particles.half)
    aligned = align_rotations(other.particles.poses.rotations, truth.rotations).apply(other.particles.poses.rotations)
    assert rotation_errors(aligned, truth.rotations).median() < math.radians(4)


def test_noise_alone_is_called_noise(generator):
    images = torch.randn(300, BOX, BOX, generator=generator)
    defocus = 8000 + 10000 * torch.rand(300, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(300, pixel_size=PIXEL).replace(defocus_u=defocus, defocus_v=defocus)
    result = ab_initio(Particles(ImageArray(images), optics), SMALL)
    assert result.fsc.resolution(0.143) > BOX * PIXEL / 8
    assert any("no common structure" in warning for warning in result.verdict.warnings)


def test_spreading_reaches_the_number_asked_for(generator):
    scores = 300 * torch.rand(50, 64, generator=generator)
    for wanted in (2.0, 10.0, 40.0):
        weights = assignment(scores, wanted)
        perplexity = (-(weights * weights.clamp(min=1e-30).log()).sum(1)).mean().exp()
        assert perplexity == pytest.approx(wanted, rel=0.02)
    # Below a temperature of one the likelihood itself decides.
    torch.testing.assert_close(assignment(0.01 * scores, 1.0), torch.softmax(0.01 * scores, dim=1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same(solved):
    particles, truth, _, result = solved
    there = ab_initio(particles, SMALL, device=torch.device("cuda"))
    poses = there.particles.poses
    aligned = align_rotations(poses.rotations, truth.rotations).apply(poses.rotations)
    own = result.particles.poses.rotations
    expected = align_rotations(own, truth.rotations).apply(own)
    ours, theirs = (rotation_errors(r, truth.rotations).median() for r in (expected, aligned))
    assert theirs < 1.1 * ours
