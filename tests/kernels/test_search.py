import math

import pytest
import torch

from hoarfrost.kernels.library import INSTRUCTION_SETS, library, limit_instructions
from hoarfrost.kernels.search import PackedSlices, best_poses

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")

IMAGES, SLICES, SHIFTS = 40, 70, 21


@pytest.fixture(params=INSTRUCTION_SETS)
def instructions(request):
    best = limit_instructions(INSTRUCTION_SETS[-1])
    if limit_instructions(request.param) != request.param:
        limit_instructions(best)
        pytest.skip("this processor has them not")
    yield request.param
    limit_instructions(best)


@pytest.fixture(params=[56, 150])
def problem(request, generator):
    """Noisy, shifted images of slices that fall off with frequency as those of a particle do."""
    count = request.param
    fall = torch.exp(-3 * torch.arange(count) / count)
    slices = 3 * fall * torch.randn(SLICES, count, dtype=torch.complex64, generator=generator)
    phases = torch.polar(torch.ones(SHIFTS, count), 2 * math.pi * torch.rand(SHIFTS, count, generator=generator))
    seen = slices[torch.arange(IMAGES) % SLICES] * phases[torch.arange(IMAGES) % SHIFTS].conj()
    transfer = torch.rand(IMAGES, count, generator=generator)
    noise = torch.randn(IMAGES, count, dtype=torch.complex64, generator=generator)
    return transfer * (transfer * seen + noise), transfer.square(), phases, slices


def twin(data, power, phases, slices):
    """S of every image, shift and orientation in float64."""
    data, power, phases, slices = (
        data.to(torch.complex128),
        power.double(),
        phases.to(torch.complex128),
        slices.to(torch.complex128),
    )
    both = torch.cat([slices, slices.conj()])
    cross = 2 * torch.einsum("btm,qm->btq", data[:, None] * phases, both.conj()).real
    return cross - (power @ both.abs().square().T)[:, None]


def found(problem, keep):
    data, power, phases, slices = problem
    packed = PackedSlices.of(slices)
    return packed, *best_poses(data, power, phases, power @ slices.abs().square().T, packed, keep)


def rounding_bound(problem, packed):
    """The most by which a coarse score can be off, its numbers being rounded to half a unit."""
    data, _, _, slices = problem
    rows = (data * packed.factor).abs()
    row_unit = rows.amax(1, keepdim=True) / 127
    columns = torch.view_as_real(slices / packed.factor).abs()
    column_unit = packed.units[: len(slices), None]
    column_sum = columns.sum(-1)
    terms = (
        row_unit[:, None] * column_sum + math.sqrt(2) * rows[:, None] * column_unit + row_unit[:, None] * column_unit
    )
    return terms.sum(-1).repeat(1, 2).double()


def test_maxima_of_integers_are_the_same_on_every_instruction_set(instructions):
    checksum = library().hoarfrost_search_checksum()
    limit_instructions("portable")
    assert checksum == library().hoarfrost_search_checksum()


def test_scores_are_those_of_the_float64_twin(instructions, problem):
    exact = twin(*problem)
    packed, orientation, shift, score = found(problem, 2 * SLICES)
    image = torch.arange(IMAGES)[:, None]
    torch.testing.assert_close(score.double(), exact[image, shift, orientation], rtol=1e-5, atol=1e-3)
    assert (orientation.sort(1).values == torch.arange(2 * SLICES)).all()
    assert (score.diff(dim=1) <= 0).all()
    short = exact.amax(1).gather(1, orientation) - score
    assert (short <= 2 * rounding_bound(problem, packed).gather(1, orientation)).all()
    assert short.square().mean().sqrt() < 0.01 * exact.amax(1).std()


def test_the_best_orientations_are_kept(instructions, problem):
    keep = 16
    exact = twin(*problem).amax(1)
    packed, orientation, shift, score = found(problem, keep)
    bound = rounding_bound(problem, packed).amax(1)
    kept = torch.zeros(IMAGES, 2 * SLICES, dtype=torch.bool).scatter(1, orientation, True)
    least = exact.sort(dim=1, descending=True).values[:, keep - 1]
    assert kept[exact > (least + 2 * bound)[:, None]].all()
    assert (orientation[:, 0] == exact.argmax(1)).float().mean() > 0.95
    assert (exact.amax(1) - score[:, 0]).max() < 0.02 * exact.std()
    truth = torch.arange(IMAGES)
    assert (orientation[:, 0] == truth % SLICES).float().mean() > 0.9
    assert (shift[:, 0] == truth % SHIFTS).float().mean() > 0.9


def test_what_comes_out_does_not_depend_on_threads_or_company(instructions, problem):
    whole = found(problem, 5)[1:]
    data, power, phases, slices = problem
    alone = found((data[17:18], power[17:18], phases, slices), 5)[1:]
    for one, all_ in zip(alone, whole, strict=True):
        torch.testing.assert_close(one, all_[17:18], rtol=0, atol=0)


def test_an_empty_image_and_a_single_shift(instructions, problem):
    data, power, phases, slices = problem
    _, orientation, shift, score = found((data * 0, power, phases[:1], slices), 3)
    assert (shift == 0).all()
    torch.testing.assert_close(score, -(power @ slices.abs().square().T).gather(1, orientation % SLICES))
