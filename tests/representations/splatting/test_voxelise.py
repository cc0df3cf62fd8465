import math

import pytest
import torch

from gaussian_twin import covariance_matrix, mixture_at, voxel_centres
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.kernels.library import INSTRUCTION_SETS, library, limit_instructions
from hoarfrost.representations.splatting.voxelise import voxelise

needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")


@pytest.fixture(params=INSTRUCTION_SETS[:3])
def instructions(request):
    best = limit_instructions(INSTRUCTION_SETS[-1])
    yield limit_instructions(request.param)
    limit_instructions(best)


def mixture(count, spread, generator, isotropic, least=0.8, most=2.4):
    """Centres, masses and covariances in voxels; float64."""
    centres = spread * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    masses = 0.5 + torch.rand(count, generator=generator, dtype=torch.float64)
    deviations = least + (most - least) * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    if isotropic:
        return centres, masses, deviations[:, 0].square()
    axes = random_rotations(count, generator)
    matrices = (axes * deviations.square()[:, None]) @ axes.mT
    return centres, masses, matrices[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def twin(centres, masses, covariances, box, window=math.inf):
    values = mixture_at(voxel_centres(box), centres, masses, covariance_matrix(covariances), window)
    return values.reshape(box, box, box)


def distance(actual, expected):
    return float(((actual.double() - expected).norm() / expected.norm()).detach())


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("box", [20, 21])
def test_voxels_hold_the_mixture(isotropic, box, generator):
    """Without a window to rounding; the usual one costs little of the density and nothing of the mass."""
    parts = mixture(6, 1.0, generator, isotropic, most=1.2)
    torch.testing.assert_close(voxelise(*parts, box, 5.0), twin(*parts, box, 5.0), rtol=1e-9, atol=1e-12)
    usual = voxelise(*parts, box)
    assert distance(usual, twin(*parts, box)) < 6e-4
    assert usual.sum() == pytest.approx(float(parts[1].sum()), rel=1e-4)


@pytest.mark.parametrize("box", [16, 17])
def test_a_gaussian_at_the_origin_peaks_at_the_middle_voxel(box):
    found = voxelise(torch.zeros(1, 3), torch.ones(1), torch.tensor([1.5]), box)
    assert int(found.argmax()) == (box // 2) * (box * box + box + 1)
    symmetric = found[1:, 1:, 1:] if box % 2 == 0 else found
    torch.testing.assert_close(symmetric, symmetric.flip(0, 1, 2))


@pytest.mark.parametrize("isotropic", [True, False])
def test_gradients_are_those_of_finite_differences(isotropic, generator):
    """Also where windows end, and at the edge of the cube."""
    parts = mixture(4, 3.0, generator, isotropic)
    field = torch.randn(9, 9, 9, generator=generator, dtype=torch.float64)
    inputs = [part.requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(lambda *p: (voxelise(*p, 9) * field).sum(), inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("box", [7, 13, 30])
def test_kernels_agree_with_the_twin(instructions, isotropic, box, generator):
    """Some Gaussians lie partly or wholly outside; some are wider than a register, some narrower than a voxel."""
    parts = mixture(40, 0.35 * box, generator, isotropic, least=0.3, most=3.0)
    field = torch.randn(box, box, box, generator=generator, dtype=torch.float64)
    exact = [part.requires_grad_() for part in parts]
    fast = [part.detach().float().requires_grad_() for part in parts]
    expected, found = twin(*exact, box, 4.5), voxelise(*fast, box)
    assert distance(found, expected) < 1e-5
    wanted = torch.autograd.grad((expected * field).sum(), exact)
    gradients = torch.autograd.grad((found * field.float()).sum(), fast)
    for one, other in zip(gradients, wanted, strict=True):
        assert distance(one, other) < 1e-4


@needs_kernels
@pytest.mark.parametrize("isotropic", [True, False])
def test_results_do_not_depend_on_the_number_of_threads(isotropic, generator):
    parts = [part.float().requires_grad_() for part in mixture(3000, 9.0, generator, isotropic)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            volume = voxelise(*parts, 40)
            results.append([volume, *torch.autograd.grad(volume.square().sum(), parts)])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
