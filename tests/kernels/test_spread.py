import pytest
import torch

from hoarfrost.kernels.library import INSTRUCTION_SETS, library, limit_instructions
from hoarfrost.kernels.spread import spread_images

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_sums_are_those_of_the_float64_twin(name, generator):
    best = limit_instructions(INSTRUCTION_SETS[-1])
    images, candidates, coefficients, shifts, slices = 9, 4, 130, 5, 7
    data, phases = (
        torch.randn(count, coefficients, dtype=torch.complex64, generator=generator) for count in (images, shifts)
    )
    power, share = (
        torch.rand(images, coefficients, generator=generator),
        torch.rand(images, candidates, generator=generator),
    )
    orientation = torch.randint(0, 2 * slices, (images, candidates), generator=generator)
    shift = torch.randint(0, shifts, (images, candidates), generator=generator)
    limit_instructions(name)
    values, weights = spread_images(data, power, phases, orientation, shift, share, slices)
    limit_instructions(best)
    expected = torch.zeros(slices, coefficients, dtype=torch.complex128)
    expected_weights = torch.zeros(slices, coefficients, dtype=torch.float64)
    for i in range(images):
        for j in range(candidates):
            moved = share[i, j].double() * data[i].to(torch.complex128) * phases[shift[i, j]]
            half_turn = orientation[i, j] >= slices
            expected[orientation[i, j] % slices] += moved.conj() if half_turn else moved
            expected_weights[orientation[i, j] % slices] += share[i, j].double() * power[i]
    torch.testing.assert_close(values, expected.to(torch.complex64), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights.float(), rtol=1e-5, atol=1e-5)
