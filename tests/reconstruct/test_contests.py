"""What speaks for the pose an image has: its own noise in the map of its half, and the many grids it was sought on."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from hoarfrost.data.dataset import BandImages
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.optimise.loop import run_stages
from hoarfrost.poses.search import coarse_orientations
from hoarfrost.reconstruct.ab_initio_plan import make_plan
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.contests import Contests
from hoarfrost.reconstruct.half_map_stage import HalfMapStage
from hoarfrost.reconstruct.half_maps import HalfMapPair
from hoarfrost.reconstruct.own_share import own_share
from hoarfrost.reconstruct.rivals import Contest, Rivals
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.representations.voxel import FourierVolume
from hoarfrost.types import Volume
from phantoms import GaussianPhantom
from stacks import phantom_stack

BOX, PIXEL = 32, 4.0


def test_the_own_share_is_that_of_images_in_the_map_only(tmp_path, generator):
    """Of a stack large enough for no image to be left out, one half of the images makes the maps."""
    count, limit = 4000, 8
    particles, truth = phantom_stack(
        GaussianPhantom.random(8, 30.0, generator, sigma=5.0),
        count, box=BOX, pixel_size=PIXEL, snr=0.3, shift_px=0.5, generator=generator,
    )  # fmt: skip
    plan = make_plan(particles, AbInitioConfig(start_limit=limit, shift_extent=0.06, diameter=80.0), tmp_path)
    halves, makers = torch.arange(count) % 2 + 1, torch.arange(count) < count // 2
    state = {
        "half": torch.where(makers, halves, 0),
        "radius": torch.tensor(40.0),
        "rotations": truth.rotations,
        "shifts": truth.shifts / PIXEL,
    }
    maps = HalfMapStage(plan.stack, limit, "C1")
    state = maps.prepare(run_stages([plan.prepare], state), "a", decisive=True)
    inside = own_share(maps, state, "a", 2)
    outside = own_share(maps, state | {"half": torch.where(makers, 0, halves)}, "a", 2)
    # Each of the pi r coefficients of a shell of a slice is one of N / (2 r) that meet there, and its noise has power one.
    # The sphere that the map is cut to leaves less of it.
    free = 2 * math.pi / (count // 4) * sum(shell**2 for shell in range(limit + 1))
    assert 0.2 * free < inside < free
    assert outside < 0.1 * inside + 0.05


@dataclass(frozen=True)
class Faint:
    """Images too faint for one search, and the contests in which they are searched."""

    contests: Contests
    images: BandImages

    def searched(self, rounds: int) -> Contest:
        """Nothing being known of the images."""
        ((contest, _),) = self.contests.between_unknown([(1, self.contests.pair, self.images)], rounds)
        return contest


@pytest.fixture
def faint(generator):
    band, count = Band(BOX, 14), 400
    volume = GaussianPhantom.random(20, 45.0, generator, sigma=4.0).volume(BOX, PIXEL)
    views = random_rotations(count, generator)
    power = FourierVolume.from_volume(volume, 14).project(views.float(), band).abs().square().sum(1).mean()
    data = (volume.data * (15.0 / power).sqrt()).float()
    slices = FourierVolume.from_volume(Volume(data, PIXEL), 14).project(views.float(), band)
    noise = torch.view_as_complex(torch.randn(count, len(band), 2, generator=generator) * 0.5**0.5)
    model = CoarseModel(BOX, PIXEL, 70.0, "C1", coarse_orientations("C1"), shift_grid(2.0, 3))
    pair = HalfMapPair(data, data.clone(), torch.ones(15), PIXEL)
    contests = Contests(
        pair, band, torch.ones(len(band)), Rivals(model, 3, 3), True, own_share=0.0, frame=5, device=torch.device("cpu")
    )
    return Faint(contests, BandImages(band, slices + noise, torch.ones(count, len(band))))


def test_further_rounds_find_likelier_poses_and_lose_none(faint):
    once, thrice = (faint.searched(rounds).log_likelihood.amax(1) for rounds in (1, 3))
    assert (thrice > once - 0.05).all()
    assert (thrice > once + 0.5).double().mean() > 0.05, "or the rounds are for nothing"


def test_what_a_map_owes_to_images_does_not_keep_them_where_they_are(faint):
    """Present poses that lead by less than the share are left, those that lead by more are not."""
    contest = faint.searched(3)
    lead = contest.log_likelihood.topk(2, dim=1).values
    lead = lead[:, 0] - lead[:, 1]
    share = float(lead[lead.isfinite()].median())

    def stay(own_share):
        contests = replace(faint.contests, own_share=own_share)
        return contests.between(1, contests.pair, faint.images, contest.best)[0].winner == 0

    # Other grids may bring other rivals, but hardly ever a likelier one.
    assert stay(0.0).double().mean() > 0.95
    leaving = ~stay(share)
    assert leaving[lead < share - 1.0].double().mean() > 0.8
    assert leaving[lead > share + 2.0].double().mean() < 0.1
