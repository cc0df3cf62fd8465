"""Half-maps of a stage: their tables are made once, and no image decides on its own pose."""

import torch

from hoarfrost.data.dataset import BandStack
from hoarfrost.fourier.band import Band
from hoarfrost.optimise.loop import run_stages
from hoarfrost.reconstruct.ab_initio_plan import make_plan
from hoarfrost.reconstruct.half_map_stage import HalfMapStage
from hoarfrost.reconstruct.half_maps import HalfMapPair, half_sums, outlined, regularised_pair
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.types import Optics
from phantoms import GaussianPhantom
from stacks import phantom_stack


def test_a_density_is_kept_as_long_as_its_map(tmp_path, generator):
    optics = Optics.uniform(4, pixel_size=2.0)
    stack = BandStack(tmp_path / "bands", Band(24, 8), optics, 2.0, torch.ones(1, 9))
    stage = HalfMapStage(stack, 8, "C1")

    def state():
        maps = {f"a.{name}": torch.randn(20, 20, 20, generator=generator) for name in ("first", "second")}
        return maps | {"a.fsc": torch.ones(9)}

    before, after = state(), state()
    kept = stage.pair(before, "a").density(2, 8, stack.device)
    assert stage.pair(dict(before), "a").density(2, 8, stack.device) is kept
    other = stage.pair(after, "a").density(2, 8, stack.device)
    assert torch.equal(other.volume, after["a.second"])
    assert stage.pair(before, "a").density(1, 6, stack.device).grid.limit == 6


def test_maps_that_decide_on_an_image_do_not_hold_it(tmp_path, generator):
    count, box, pixel_size = 48, 24, 4.0
    particles, truth = phantom_stack(
        GaussianPhantom.random(8, 30.0, generator, sigma=5.0),
        count, box=box, pixel_size=pixel_size, snr=1.0, shift_px=1.0, generator=generator,
    )  # fmt: skip
    config = AbInitioConfig(start_limit=8, shift_extent=0.06, shift_count=3, diameter=70.0)
    plan = make_plan(particles, config, tmp_path)
    state = {
        "half": torch.arange(count) % 2 + 1,
        "radius": torch.tensor(40.0),
        "rotations": truth.rotations,
        "shifts": truth.shifts / pixel_size,
    }
    state = run_stages([plan.prepare], state)
    # A source that gives the same pair for all poses: the halves are not laid over each other, which would move poses.
    sums = half_sums(plan.stack, state["rotations"], state["shifts"], state["half"], 8, "C1")
    whole = regularised_pair(*sums, extent=box * pixel_size, radius=40.0)
    stage = HalfMapStage(plan.stack, 8, "C1", source=lambda state: (whole, 8))

    def groups(state):
        prepared = stage.prepare(state, "a", decisive=True)
        found = list(stage.decisive(prepared, "a", torch.arange(count)))
        return [(half, rows, (pair.first if half == 1 else pair.second)) for half, rows, pair in found]

    before = groups(state)
    assert sorted(torch.cat([rows for _, rows, _ in before]).tolist()) == list(range(count))
    _, rows, own = before[0]
    # Other poses of just these images change the whole half's map, but not the one that decides on them.
    turned = state | {"rotations": state["rotations"].index_copy(0, rows, state["rotations"][rows.roll(1)])}
    after = groups(turned)
    assert torch.equal(after[0][1], rows)
    assert torch.allclose(after[0][2], own, atol=1e-4 * float(own.abs().max()))
    assert not torch.allclose(after[1][2], before[1][2], atol=1e-2 * float(own.abs().max()))


def test_outlines_leave_the_particle_and_take_the_noise_around_it(generator):
    phantom = GaussianPhantom.random(12, 30.0, generator, sigma=5.0)
    clean = phantom.volume(40, 4.0).data.float()
    noise = 0.03 * clean.max() * torch.randn(2, 40, 40, 40, generator=generator)
    pair = HalfMapPair(clean + noise[0], clean + noise[1], torch.ones(17), 4.0)
    cut = outlined(pair, 10.0)
    axis = 4.0 * (torch.arange(40) - 20)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    distance = torch.cdist(points, phantom.centres.float()).amin(1).reshape(40, 40, 40)
    for before, after in ((pair.first, cut.first), (pair.second, cut.second)):
        torch.testing.assert_close(after[distance < 10], before[distance < 10])
        assert after[distance > 45].abs().max() == 0
    # A half has no part in the outline of the other.
    alone = outlined(HalfMapPair(pair.first, clean.flip(0), pair.fsc, 4.0), 10.0)
    assert torch.equal(alone.first, cut.first)
