"""All ways of projecting Gaussians against the twin and against one another."""

import math

import pytest
import torch

from gaussian_twin import mixture_at, pixel_centres
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.kernels.library import INSTRUCTION_SETS, library, limit_instructions
from hoarfrost.representations.gaussians import GaussianDensity
from hoarfrost.representations.splatting import separable
from hoarfrost.representations.splatting.direct import direct_projections
from hoarfrost.representations.splatting.separable import Harmonics, fourier_projections, pixel_projections
from hoarfrost.representations.splatting.windowed import splat, splatted_projections

needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels were not compiled here")


@pytest.fixture(params=INSTRUCTION_SETS[:3])
def instructions(request):
    best = limit_instructions(INSTRUCTION_SETS[-1])
    yield limit_instructions(request.param)
    limit_instructions(best)


def gaussians(images, count, spread, generator, *, least=0.8, most=2.0):
    """Positions (b, 2, n), masses, variances (n,) and covariances (b, 3, n) in pixels; float64."""
    positions = spread * (2 * torch.rand(images, 2, count, generator=generator, dtype=torch.float64) - 1)
    masses = 0.5 + torch.rand(count, generator=generator, dtype=torch.float64)
    deviations = least + (most - least) * torch.rand(images, 2, count, generator=generator, dtype=torch.float64)
    angle = 2 * math.pi * torch.rand(images, count, generator=generator, dtype=torch.float64)
    (major, minor), cosine, sine = deviations.square().unbind(1), angle.cos(), angle.sin()
    xx, yy = cosine**2 * major + sine**2 * minor, sine**2 * major + cosine**2 * minor
    return positions, masses, deviations[0, 0].square(), torch.stack([xx, yy, cosine * sine * (major - minor)], dim=1)


def round_covariances(variances, images):
    return torch.stack([variances, variances, torch.zeros_like(variances)]).expand(images, -1, -1)


def matrices(covariances):
    xx, yy, xy = covariances.unbind(-2)
    return torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], dim=-2)


def twin(positions, masses, covariances, box, window=math.inf):
    images = [
        mixture_at(pixel_centres(box), place.T, masses, matrix, window).reshape(box, box)
        for place, matrix in zip(positions, matrices(covariances), strict=True)
    ]
    return torch.stack(images)


def transform(positions, masses, covariances, band):
    """Each Gaussian's transform at each coefficient."""
    k = band.frequency
    exponent = torch.einsum("mi,bnij,mj->bmn", k, matrices(covariances), k) * (-2 * math.pi**2)
    phase = -2j * math.pi * (k @ positions)
    return ((exponent + phase).exp() * masses).sum(-1) / band.box


def distance(actual, expected):
    actual, expected = actual.detach(), expected.detach()
    return float(((actual - expected).abs().square().sum() / expected.abs().square().sum()).sqrt())


@pytest.mark.parametrize(("box", "limit"), [(24, 11), (25, 12), (30, 4), (40, 16)])
def test_matrix_products_are_the_transform(box, limit, generator, monkeypatch):
    """However the Gaussians and the images are divided."""
    positions, masses, variances, _ = gaussians(5, 70, 8.0, generator)
    band = Band(box, limit)
    expected = transform(positions, masses, round_covariances(variances, 5), band)
    assert distance(fourier_projections(positions, masses, variances, band), expected) < 1e-12
    monkeypatch.setattr(separable, "NUMBERS_AT_ONCE", 2000)
    assert distance(fourier_projections(positions, masses, variances, band), expected) < 1e-12
    single = fourier_projections(positions.float(), masses.float(), variances.float(), band)
    assert distance(single.to(expected.dtype), expected) < 2e-6


@pytest.mark.parametrize("limit", range(1, 40))
def test_hardly_more_harmonics_are_made_than_asked_for(limit):
    harmonics = Harmonics(128, limit)
    assert limit < harmonics.harmonics <= max(12, 1.06 * (limit + 1) + 1)


def test_pixels_hold_integrals_and_all_of_the_mass(generator):
    """By Simpson's rule within each pixel; the mass also of Gaussians far narrower than a pixel."""
    positions, masses, variances, _ = gaussians(2, 6, 4.0, generator, least=0.5)
    found = pixel_projections(positions, masses, variances, 21)
    inner = (torch.arange(9, dtype=torch.float64) - 4) / 8
    weight = torch.tensor([1, 4, 2, 4, 2, 4, 2, 4, 1], dtype=torch.float64) / 24
    y, x = torch.meshgrid(inner, inner, indexing="ij")
    points = pixel_centres(21)[:, None] + torch.stack([x, y], dim=-1).reshape(-1, 2)
    for image, place in zip(found, positions, strict=True):
        values = mixture_at(points.flatten(0, 1), place.T, masses, matrices(round_covariances(variances, 1))[0])
        expected = (values.reshape(-1, 81) * (weight[:, None] * weight).flatten()).sum(-1)
        assert distance(image.flatten(), expected) < 1e-4
    narrow = pixel_projections(positions, masses, torch.full_like(variances, 0.01), 21)
    torch.testing.assert_close(narrow.sum((1, 2)), masses.sum().expand(2))


@pytest.mark.parametrize("box", [24, 25])
def test_direct_evaluation_is_the_transform(box, generator):
    positions, masses, _, covariances = gaussians(3, 40, 8.0, generator)
    band = Band(box, 10)
    expected = transform(positions, masses, covariances, band)
    assert distance(direct_projections(positions, masses, covariances, band), expected) < 1e-12


def test_a_projection_is_the_quadrature_of_the_density(generator):
    """One Gaussian with axes: sums along z, finely, of the density turned into the image's frame."""
    quaternion = torch.nn.functional.normalize(torch.randn(1, 4, generator=generator, dtype=torch.float64), dim=-1)
    centre = torch.tensor([[1.3, -0.7, 0.4]], dtype=torch.float64)
    scales = torch.tensor([[1.2, 2.0, 3.1]], dtype=torch.float64)
    mass = torch.tensor([2.5], dtype=torch.float64)
    density = GaussianDensity(centre, mass, scales, quaternion, 32, 1.0)
    rotation = random_rotations(1, generator)
    positions, covariances = density.in_image(rotation)
    box, z = 12, torch.arange(-150, 151, dtype=torch.float64) * 0.2
    pixels = pixel_centres(box)
    points = torch.cat([pixels[:, None].expand(-1, len(z), -1), z[None, :, None].expand(len(pixels), -1, 1)], dim=-1)
    xx, yy, zz, xy, xz, yz = density.covariances[0]
    matrix = torch.stack([torch.stack([xx, xy, xz]), torch.stack([xy, yy, yz]), torch.stack([xz, yz, zz])])
    values = mixture_at(points.flatten(0, 1) @ rotation[0], centre, mass, matrix[None])
    expected = values.reshape(box, box, len(z)).sum(-1) * 0.2
    assert distance(twin(positions, mass, covariances, box)[0], expected) < 1e-9
    assert distance(splat(positions, mass, covariances, box, window=6.0)[0], expected) < 1e-5
    band = Band(64, 20)
    padded = band.from_images(twin(positions, mass, covariances, 64))
    assert distance(direct_projections(positions, mass, covariances, band), padded) < 1e-5


@pytest.mark.parametrize("box", [20, 21])
def test_splatted_images_hold_the_mixture_and_its_mass(box, generator):
    positions, masses, _, covariances = gaussians(3, 12, 3.0, generator, least=0.75, most=1.4)
    found = splat(positions, masses, covariances, box)
    torch.testing.assert_close(found, twin(positions, masses, covariances, box, 4.5), rtol=1e-6, atol=1e-9)
    assert distance(found, twin(positions, masses, covariances, box)) < 2e-4
    torch.testing.assert_close(found.sum((1, 2)), masses.sum().expand(3), rtol=1e-4, atol=0)


@pytest.mark.parametrize("least", [0.3, 0.5, 1.0])
def test_splatted_transforms_hold_narrow_gaussians(least, generator):
    positions, masses, _, covariances = gaussians(3, 30, 6.0, generator, least=least, most=1.5)
    band = Band(28, 13)
    assert (
        distance(
            splatted_projections(positions, masses, covariances, band), transform(positions, masses, covariances, band)
        )
        < 3e-4
    )
    # The mass is what the transform comes to at zero frequency, here a small one of a large box.
    wide = Band(2000, 1)
    exact = direct_projections(positions, masses, covariances, wide)
    assert float((exact.abs() * 2000 - masses.sum()).abs().max()) < 1e-3 * float(masses.sum())


@pytest.mark.parametrize("box", [16, 17])
def test_a_gaussian_at_the_origin_peaks_at_the_middle_pixel(box, generator):
    """In all views, by all ways; and symmetrically about that pixel."""
    quaternion = torch.nn.functional.normalize(torch.randn(1, 4, generator=generator, dtype=torch.float64), dim=-1)
    scales, zero = torch.tensor([[0.8, 1.1, 1.5]], dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)
    density = GaussianDensity(zero, torch.ones(1, dtype=torch.float64), scales, quaternion, box, 1.0)
    positions, covariances = density.in_image(random_rotations(20, generator))
    band, variances = Band.to_nyquist(box), density.variances
    images = {
        "pixels": pixel_projections(positions, density.masses, variances, box),
        "splat": splat(positions, density.masses, covariances, box),
        "products": band.to_images(fourier_projections(positions, density.masses, variances, band)),
        "direct": band.to_images(direct_projections(positions, density.masses, covariances, band)),
        "splatted band": band.to_images(splatted_projections(positions, density.masses, covariances, band)),
    }
    middle = (box // 2) * (box + 1)
    for found in images.values():
        assert (found.flatten(1).argmax(1) == middle).all()
        whole = found[:, 1 - box % 2 :, 1 - box % 2 :]
        torch.testing.assert_close(whole, whole.flip(1, 2), rtol=1e-6, atol=1e-9)


def test_gradients_are_those_of_finite_differences(generator):
    positions, masses, variances, covariances = gaussians(2, 3, 3.0, generator)
    band = Band(12, 5)
    weight = torch.randn(2, len(band), 2, generator=generator, dtype=torch.float64)
    field = torch.randn(2, 9, 9, generator=generator, dtype=torch.float64)
    round_ones = [one.requires_grad_() for one in (positions, masses, variances)]
    with_axes = [*round_ones[:2], covariances.requires_grad_()]
    tests = [
        (lambda *p: (torch.view_as_real(fourier_projections(*p, band)) * weight).sum(), round_ones),
        (lambda *p: (pixel_projections(*p, 9) * field).sum(), round_ones),
        (lambda *p: (torch.view_as_real(direct_projections(*p, band)) * weight).sum(), with_axes),
        (lambda *p: (splat(*p, 9) * field).sum(), with_axes),
        (lambda *p: (torch.view_as_real(splatted_projections(*p, band)) * weight).sum(), with_axes),
    ]
    for function, inputs in tests:
        assert torch.autograd.gradcheck(function, inputs, eps=1e-5, rtol=1e-4, atol=1e-7)


@needs_kernels
def test_kernels_splat_as_the_twin_does(instructions, generator):
    """Windows over the edge of the image, and Gaussians that lie wholly outside, among them."""
    positions, masses, _, covariances = gaussians(4, 50, 16.0, generator, least=0.4, most=3.0)
    field = torch.randn(4, 23, 23, generator=generator, dtype=torch.float64)
    exact = [one.requires_grad_() for one in (positions, masses, covariances)]
    fast = [one.detach().float().requires_grad_() for one in exact]
    expected, found = twin(*exact, 23, 4.5), splat(*fast, 23)
    assert distance(found.double(), expected) < 1e-5
    wanted = torch.autograd.grad((expected * field).sum(), exact)
    gradients = torch.autograd.grad((found * field.float()).sum(), fast)
    for one, other in zip(gradients, wanted, strict=True):
        assert distance(one.double(), other) < 1e-4


def test_results_do_not_depend_on_the_number_of_threads(generator, monkeypatch):
    monkeypatch.setattr(separable, "NUMBERS_AT_ONCE", 2000)
    positions, masses, variances, covariances = (one.float() for one in gaussians(6, 200, 10.0, generator))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            inputs = [one.clone().requires_grad_() for one in (positions, masses, variances, covariances)]
            images = splat(*inputs[:2], inputs[3], 32)
            slices = fourier_projections(*inputs[:3], Band(32, 12))
            loss = images.square().sum() + slices.abs().square().sum()
            results.append([images, slices, *torch.autograd.grad(loss, inputs)])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@needs_kernels
@pytest.mark.parametrize("limit", [1, 7, 20])
def test_kernels_multiply_as_the_twin_does(instructions, limit, generator):
    """Numbers of Gaussians that are no multiple of anything; images one and several at a time."""
    positions, masses, variances, _ = gaussians(3, 131, 16.0, generator, least=0.4, most=3.0)
    band = Band(48, limit)
    weight = torch.randn(3, len(band), 2, generator=generator, dtype=torch.float64)
    exact = [one.requires_grad_() for one in (positions, masses, variances)]
    fast = [one.detach().float().requires_grad_() for one in exact]
    expected = transform(positions, masses, round_covariances(variances, 3), band)
    found = fourier_projections(*fast, band)
    assert distance(found.to(expected.dtype), expected) < 3e-6
    wanted = torch.autograd.grad((torch.view_as_real(expected) * weight).sum(), exact)
    gradients = torch.autograd.grad((torch.view_as_real(found) * weight.float()).sum(), fast)
    for one, other in zip(gradients, wanted, strict=True):
        assert distance(one.double(), other) < 1e-5
