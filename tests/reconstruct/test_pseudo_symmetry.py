"""Rounds of the second search settle particles whose pseudo-symmetric orientations were mixed up, half by half."""

import pytest
import torch

from hoarfrost.analysis.metrics import evaluate
from hoarfrost.geometry.rotations import geodesic_distance
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.optimise.loop import run_stages
from hoarfrost.reconstruct.ab_initio_plan import make_plan
from hoarfrost.reconstruct.assignment import split_halves
from hoarfrost.reconstruct.one_class import OneClass
from hoarfrost.reconstruct.refine import refine
from hoarfrost.reconstruct.search_again import MOST_SEARCHES, SearchAgain
from hoarfrost.reconstruct.settings import AbInitioConfig, RefineConfig
from phantoms import GaussianPhantom
from stacks import phantom_stack

COUNT, BOX, PIXEL = 400, 36, 4.0

CONFIG = AbInitioConfig(start_limit=9, shift_extent=0.06, shift_count=5, levels=(12,), rivals=2, diameter=120.0)

REFINE = RefineConfig(diameter=120.0, low_pass=20.0, rounds=3, rivals=2, soft_below=0, shift_extent=0.06, shift_count=5)


def pseudo_threefold(generator):
    """Three equal parts about z, and one blob that only one of them has."""
    part = GaussianPhantom.random(6, 40.0, generator, sigma=5.0)
    group = point_group("C3")
    centres = torch.einsum("gij,aj->gai", group, part.centres).flatten(0, 1)
    blob = torch.tensor([[34.0, 0.0, 12.0]], dtype=centres.dtype)
    return GaussianPhantom(
        torch.cat([centres, blob]),
        torch.cat([part.sigmas.repeat(3), part.sigmas[:1]]),
        torch.cat([part.masses.repeat(3), 2 * part.masses[:1]]),
    )


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Shares of particles that lie alike before and after each round.

    To begin with half of the particles of each half of the data lie alike, in another orientation than those of the other.
    """
    generator = torch.Generator().manual_seed(3)
    settings = {"box": BOX, "pixel_size": PIXEL, "snr": 0.4, "shift_px": 1.0}
    particles, truth = phantom_stack(pseudo_threefold(generator), COUNT, generator=generator, **settings)
    plan = make_plan(particles, CONFIG, tmp_path_factory.mktemp("bands"))
    half = split_halves(COUNT, None, 0)
    turns = torch.multinomial(torch.tensor([0.5, 0.25, 0.25]), COUNT, replacement=True, generator=generator)
    turns = (turns + half) % 3
    state = {
        "half": half,
        "radius": torch.tensor(60.0),
        "rotations": truth.rotations @ point_group("C3")[turns],
        "shifts": truth.shifts / PIXEL,
        "score": torch.zeros(COUNT),
    }

    def right(state):
        # The map may settle on any of the three.
        apart = [geodesic_distance(state["rotations"], truth.rotations @ g) for g in point_group("C3")]
        return max(float((one < 0.2).double().mean()) for one in apart)

    state, shares, run = run_stages([plan.prepare], state), [], []
    shares.append(right(state))
    for stage in (stage for stage in plan.refinement if isinstance(stage, SearchAgain)):
        if stage.needed(state):
            state = run_stages([stage], state)
            shares.append(right(state))
            run.append(stage.round)
    return shares, run


def test_rounds_bring_all_particles_into_one_orientation(rounds):
    shares, _ = rounds
    assert shares[0] < 0.6
    assert shares[-1] > 0.95


def test_rounds_end_when_nothing_moves(rounds):
    _, run = rounds
    assert 1 < len(run) < MOST_SEARCHES


def test_the_few_in_another_orientation_are_told_from_the_rest(tmp_path, generator):
    settings = {"box": BOX, "pixel_size": PIXEL, "snr": 0.4, "shift_px": 1.0}
    particles, truth = phantom_stack(pseudo_threefold(generator), COUNT, generator=generator, **settings)
    plan = make_plan(particles, CONFIG, tmp_path)
    turns = torch.where(torch.arange(COUNT) % 10 == 0, 1 + torch.arange(COUNT) // 10 % 2, 0)
    state = {
        "half": split_halves(COUNT, None, 0),
        "radius": torch.tensor(60.0),
        "rotations": truth.rotations @ point_group("C3")[turns],
        "shifts": truth.shifts / PIXEL,
        "score": torch.zeros(COUNT),
    }
    stages = [stage for stage in plan.refinement if isinstance(stage, OneClass) and "look-alikes" in stage.name]
    assert len(stages) == 1
    assert not stages[0].needed(state)
    state |= {"look_alikes.turns": point_group("C3")[1:], "look_alikes.shifts": torch.zeros(2, 3, dtype=torch.float64)}
    assert stages[0].needed(state)
    state = run_stages([plan.prepare, stages[0]], state)
    right = geodesic_distance(state["rotations"], truth.rotations) < 0.2
    assert float(right.double().mean()) > 0.98


def test_a_map_that_cannot_tell_the_orientations_apart_is_enough(generator):
    # The map given has the threefold axis; each particle, and each half, is free to take any of three orientations.
    phantom = pseudo_threefold(generator)
    settings = {"box": BOX, "pixel_size": PIXEL, "snr": 0.4, "shift_px": 1.0}
    particles, truth = phantom_stack(phantom, COUNT, generator=generator, **settings)
    turned = [phantom.centres @ g.T for g in point_group("C3")]
    symmetric = GaussianPhantom(torch.cat(turned), phantom.sigmas.repeat(3), phantom.masses.repeat(3) / 3)
    found = refine(particles, symmetric.volume(BOX, PIXEL), REFINE)
    scores = evaluate(found.particles, particles.replace(poses=truth)).poses
    assert scores.below_10 > 0.95
