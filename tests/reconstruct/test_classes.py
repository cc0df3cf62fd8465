"""Division into classes at known poses, and images without a particle."""

import math
from dataclasses import replace

import pytest
import torch

from hoarfrost.analysis.junk import junk_probability, shows_no_part
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations, rotation_vector_to_matrix
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.optimise.loop import run_stages
from hoarfrost.physics.ctf import contrast_transfer_function
from hoarfrost.poses.gauss_newton import log_likelihood
from hoarfrost.poses.search import coarse_orientations
from hoarfrost.reconstruct.ab_initio_plan import make_plan
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.astray import SearchAstray
from hoarfrost.reconstruct.class_maps import ClassMaps, folds_of
from hoarfrost.reconstruct.classes import AssignClasses, ChooseDivision, DivideMap, class_weights, label_agreement
from hoarfrost.reconstruct.half_map_stage import HalfMapStage
from hoarfrost.reconstruct.junk import FindJunk
from hoarfrost.reconstruct.one_class import OneClass
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.types import ImageArray, Optics, Particles
from phantoms import GaussianPhantom

BOX, PIXEL, COUNT = 36, 4.0, 400


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Two compositions 2:1, then junk: a stack on disk, its state at the true poses, and what each image shows."""
    generator = torch.Generator().manual_seed(8)
    whole = GaussianPhantom.random(14, 50.0, generator, sigma=6.0)
    part = replace(whole, masses=whole.masses * (torch.arange(14) < 10))
    content = torch.cat([torch.zeros(240), torch.ones(120), torch.full((40,), 2.0)]).long()
    rotations = random_rotations(COUNT, generator)
    shifts = PIXEL * (4 * torch.rand(COUNT, 2, generator=generator, dtype=torch.float64) - 2)
    defocus = 8000 + 10000 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    optics = Optics.uniform(COUNT, pixel_size=PIXEL).replace(defocus_u=defocus, defocus_v=defocus)
    band = Band.to_nyquist(BOX)
    clean = torch.stack([one.project(rotations, shifts, BOX, PIXEL) for one in (whole, part)])
    images = torch.where((content == 0)[:, None, None], clean[0], clean[1]) * (content < 2)[:, None, None]
    images = band.to_images(band.from_images(images) * contrast_transfer_function(optics, band.frequency)).float()
    images = images / images[content == 0].std() + torch.randn(images.shape, generator=generator) / math.sqrt(0.5)
    particles = Particles(ImageArray(images), optics)
    config = AbInitioConfig(levels=(12,), diameter=120.0)
    plan = make_plan(particles, config, tmp_path_factory.mktemp("stack"))
    state = {
        "half": 1 + torch.randperm(COUNT, generator=generator) % 2,
        "rotations": rotations,
        "shifts": shifts / PIXEL,
        "radius": torch.tensor(66.0),
        "score": torch.zeros(COUNT),
    }
    return plan.stack, run_stages([plan.prepare], state), content


def test_images_of_noise_are_junk_and_particles_are_not(mixture):
    stack, state, content = mixture
    found = run_stages([FindJunk(HalfMapStage(stack, 12, "C1"))], state)["junk"]
    assert (found[content == 2] > 0.5).double().mean() > 0.9
    assert (found[content < 2] > 0.5).double().mean() < 0.05


def test_particles_in_wrong_poses_are_searched_before_they_are_judged(mixture):
    stack, state, content = mixture
    state = state | {"half": torch.where(content < 2, state["half"], 0)}
    model = CoarseModel(BOX, PIXEL, 66.0, "C1", coarse_orientations("C1"), shift_grid(2.0, 5))
    astray, truth = (content == 0).nonzero()[:3, 0], state["rotations"]
    turned = state["rotations"].clone()
    # The first into an optimum that may be next to its own, the others far off.
    turned[astray] = turned[astray] @ rotation_vector_to_matrix(
        torch.tensor([[0.4, 0, 0], [0, 2.5, 0], [0, 0, 3.1]]).double()
    )
    state = state | {"rotations": turned}
    maps = HalfMapStage(stack, 12, "C1")
    judged = run_stages([FindJunk(maps)], state)
    assert (judged["junk"][astray] > 0.5).all(), "or nothing is tested"
    found = run_stages([FindJunk(maps, search=SearchAstray(model, 3, 0))], state)
    assert (found["junk"][astray] < 0.5).all()
    assert geodesic_distance(found["rotations"][astray], truth[astray]).max() < math.radians(10)
    others = torch.ones(COUNT, dtype=torch.bool).index_fill(0, astray, False)
    assert torch.equal(found["junk"][others] > 0.5, judged["junk"][others] > 0.5)


def test_images_of_noise_stay_junk_when_they_are_searched(mixture):
    stack, state, content = mixture
    model = CoarseModel(BOX, PIXEL, 66.0, "C1", coarse_orientations("C1"), shift_grid(2.0, 5))
    found = run_stages([FindJunk(HalfMapStage(stack, 12, "C1"), search=SearchAstray(model, 3, 0))], state)["junk"]
    assert (found[content == 2] > 0.5).double().mean() > 0.9


def test_in_classes_junk_is_what_no_map_explains(mixture):
    stack, state, content = mixture
    state = state | {"class": 1 + content % 2}
    judge = FindJunk(HalfMapStage(stack, 12, "C1"))
    found = run_stages([OneClass(judge, number, 2) for number in (1, 2)], state)["junk"]
    assert (found[content == 2] > 0.5).double().mean() > 0.9
    assert (found[content == 0] > 0.5).double().mean() < 0.05
    assert (found[content == 1] > 0.5).double().mean() < 0.05


def test_compositions_part_and_divisions_agree(mixture):
    stack, state, content = mixture
    state = state | {"half": torch.where(content < 2, state["half"], 0)}
    divisions = [DivideMap(stack, 8, "C1", 2, number, 0) for number in (1, 2)]
    assign = AssignClasses(HalfMapStage(stack, 12, "C1"), 8, 2, 0)
    state = run_stages([*divisions, ChooseDivision(2, 2), assign], state)
    assert state["division.agreement"].min() > 0.8
    labels = state["class"]
    assert ((labels[content < 2] - 1) == content[content < 2]).double().mean() > 0.9
    assert torch.bincount(labels)[1] >= torch.bincount(labels)[2]


def test_maps_of_other_folds_do_not_flatter_noise(mixture):
    """Noise scores below zero on average in a map that does not hold it, and above it in one that does."""
    stack, state, content = mixture
    rows = (content == 2).nonzero()[:, 0]
    band = Band(BOX, 10)
    maps = ClassMaps(stack, band, 66.0, "C1")
    ones, weight = torch.ones(len(rows), 1), torch.ones(len(band))
    others = maps.scores(state, rows, ones, folds_of(len(rows), 0), weight)
    density = maps.densities(maps.sums(state, rows, ones))[0]
    own = log_likelihood(stack.images(rows, band), density, state["rotations"][rows], state["shifts"][rows], weight)
    assert others.mean() < 0 < own.mean()


def test_a_stage_for_one_class_sees_its_particles_only():
    class Look:
        name, title, steps = "look", "Looking", 1

        def run(self, state, step):
            mine = state["half"] > 0
            return state | {"seen": mine, "score": torch.where(mine, 1.0, state["score"])}, {}

    half = torch.tensor([1, 2, 1, 2, 1])
    state = {"half": half, "class": torch.tensor([1, 1, 2, 2, 1]), "score": torch.zeros(5)}
    state["junk"] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.9])
    after, _ = OneClass(Look(), 1, 2).run(state, 0)
    assert after["class-1.seen"].tolist() == [True, True, False, False, False]
    assert after["score"].tolist() == [1, 1, 0, 0, 0]
    assert after["half"] is half
    assert OneClass(Look(), 2, 2).name == "class-2.look"
    assert OneClass(Look()).name == "look"


def test_labels_agree_up_to_their_names(generator):
    labels = torch.randint(3, (3000,), generator=generator)
    assert label_agreement(labels, (labels + 1) % 3, 3) == pytest.approx(1)
    assert abs(label_agreement(labels, torch.randint(3, (3000,), generator=generator), 3)) < 0.06


def test_weights_end_as_the_posterior_and_begin_soft(generator):
    scores = 20 * torch.randn(100, 2, generator=generator) + torch.tensor([500.0, 0.0])
    torch.testing.assert_close(class_weights(scores, 1.0), torch.softmax(scores, dim=1))
    first = class_weights(scores, 0.0)
    assert first.mean(0).min() > 0.4, "a class that fits worse everywhere does not starve at first"


def test_junk_needs_images_far_from_the_bulk(generator):
    contrast, rest = 1 + 0.1 * torch.randn(500, generator=generator), torch.randn(500, generator=generator)
    assert (junk_probability(contrast, rest) > 0.5).double().mean() < 0.01
    contrast[:100], rest[100:150] = 0.2, 12.0
    junk = junk_probability(contrast, rest) > 0.5
    assert junk[:150].all()
    assert junk[150:].double().mean() < 0.02


def test_a_rare_composition_is_no_junk_before_the_division(generator):
    """The figures of three ACE2 with and without another domain (7 : 3), and noise, by the map of all."""

    def figures(count, contrast, rest):
        return torch.stack([contrast[0] + contrast[1] * noise(count), rest[0] + rest[1] * noise(count)])

    def noise(count):
        return torch.randn(count, generator=generator)

    parts = (
        figures(700, (1.09, 0.045), (-0.8, 1.0)),
        figures(300, (0.91, 0.065), (2.1, 1.7)),
        figures(100, (0.3, 0.05), (0, 1)),
    )
    contrast, rest = torch.cat(parts, dim=1)
    assert (junk_probability(contrast, rest)[700:1000] > 0.5).double().mean() > 0.5, "a mixture cannot tell"
    assert shows_no_part(contrast, rest).tolist() == [0.0] * 1000 + [1.0] * 100
