import math

import pytest
import torch

from gaussian_twin import covariance_matrix, mixture_at, pixel_centres, voxel_centres
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.representations.base import Density
from hoarfrost.representations.gaussian_parameters import GaussianParameters, inverse_softplus
from hoarfrost.representations.gaussians import GaussianDensity, merged
from hoarfrost.representations.splatting.windowed_sum import symmetric
from hoarfrost.representations.voxel import FourierVolume

PIXEL = 2.0


def mixture(count, generator, isotropic, *, box=24, spread=5.0, least=2.6, most=3.4, dtype=torch.float64):
    """Gaussians of ``least`` to ``most`` Å, well inside the box."""
    axes = 1 if isotropic else 3
    quaternions = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator, dtype=torch.float64), dim=-1)
    return GaussianDensity(
        centres=(spread * (2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1)).to(dtype),
        masses=(0.5 + torch.rand(count, generator=generator, dtype=torch.float64)).to(dtype),
        scales=(least + (most - least) * torch.rand(count, axes, generator=generator, dtype=torch.float64)).to(dtype),
        quaternions=None if isotropic else quaternions.to(dtype),
        box=box,
        voxel_size=PIXEL,
    )


def images(density, rotations, box):
    """Sums along z of the density in units of its voxels, by the twin."""
    matrices = rotations[:, None] @ covariance_matrix(density.covariances) @ rotations.mT[:, None] / PIXEL**2
    centres = (rotations[:, None] @ density.centres[..., None])[..., 0] / PIXEL
    points = pixel_centres(box)
    return torch.stack(
        [
            mixture_at(points, centre[:, :2], density.masses, matrix[:, :2, :2]).reshape(box, box)
            for centre, matrix in zip(centres, matrices, strict=True)
        ]
    )


def distance(actual, expected):
    return float(((actual - expected).abs().square().sum() / expected.abs().square().sum()).sqrt().detach())


def test_covariances_are_those_of_the_turned_axes(generator):
    density = mixture(5, generator, False)
    values, vectors = torch.linalg.eigh(symmetric(density.covariances))
    torch.testing.assert_close(values, density.scales.sort(-1).values.square())
    assert (torch.linalg.det(vectors).abs() - 1).abs().max() < 1e-9
    torch.testing.assert_close(density.variances, values.mean(-1))


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("box", [24, 25])
def test_slices_are_transforms_of_line_integrals(isotropic, box, generator):
    density, rotations, band = mixture(7, generator, isotropic, box=box), random_rotations(4, generator), Band(box, 9)
    assert isinstance(density, Density)
    # Pixels show Gaussians that are as wide as these without folding.
    expected = band.from_images(images(density, rotations, box))
    assert distance(density.project(rotations, band), expected) < (1e-5 if isotropic else 1e-3)


@pytest.mark.parametrize("isotropic", [True, False])
def test_slices_agree_with_those_of_the_map(isotropic, generator):
    """To 0.9 of Nyquist, in scale as well, for Gaussians as narrow as half a voxel."""
    density = mixture(20, generator, isotropic, box=40, spread=8.0, least=1.0, most=3.0)
    band, rotations = Band(40, 18), random_rotations(5, generator)
    found = density.project(rotations, band)
    voxels = FourierVolume.from_volume(density.to_volume(40), 18, padding=4).project(rotations, band)
    correlation = (found.conj() * voxels).real.sum() / (found.abs().square().sum() * voxels.abs().square().sum()).sqrt()
    assert correlation > 0.9999
    assert distance(found, voxels) < 0.01


@pytest.mark.parametrize("isotropic", [True, False])
def test_a_frequency_matrix_stretches_the_slice(isotropic, generator):
    density, band = mixture(6, generator, isotropic), Band(24, 8)
    rotations = random_rotations(3, generator)
    matrix = torch.eye(2, dtype=torch.float64) + 0.04 * torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    k = torch.nn.functional.pad((band.k.double() @ matrix.mT), (0, 1)) @ rotations  # M k in the frame of the object
    k = k / (density.box * PIXEL)
    exponent = torch.einsum("bmi,nij,bmj->bmn", k, covariance_matrix(density.covariances), k) * (-2 * math.pi**2)
    phase = -2j * math.pi * (k @ density.centres.T)
    expected = ((exponent + phase).exp() * density.masses).sum(-1) / density.box
    assert distance(density.project(rotations, band, matrix), expected) < 1e-3


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize(("box", "new"), [(16, 16), (16, 20), (17, 17), (17, 14)])
def test_maps_are_band_limited_and_keep_their_values(isotropic, box, new, generator):
    """Of Gaussians wide enough for the grid, a map is what stands at its voxels."""
    density = mixture(5, generator, isotropic, box=box, spread=3.0, least=2.8, most=3.2)
    volume = density.to_volume(new)
    assert volume.voxel_size == pytest.approx(PIXEL * box / new)
    ratio = volume.voxel_size / PIXEL
    points = voxel_centres(new) * ratio
    covariances = covariance_matrix(density.covariances) / PIXEL**2
    expected = mixture_at(points, density.centres / PIXEL, density.masses, covariances).reshape(new, new, new)
    assert distance(volume.data, expected) < 1e-3


def test_maps_of_narrow_gaussians_hold_their_transform(generator):
    """Half a voxel wide: at voxels they would fold back into the map; here every coefficient is right."""
    density = mixture(4, generator, False, box=20, spread=3.0, least=1.0, most=1.2)
    spectrum = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(density.to_volume(20).data)))
    k = voxel_centres(20) / (20 * PIXEL)
    kept = (k * 20 * PIXEL).abs().max(-1).values < 10  # the frequency -10 has no partner
    exponent = torch.einsum("mi,nij,mj->mn", k, covariance_matrix(density.covariances), k) * (-2 * math.pi**2)
    expected = ((exponent - 2j * math.pi * (k @ density.centres.T)).exp() * density.masses).sum(-1)
    assert distance(spectrum.flatten()[kept], expected[kept]) < 1e-3


@pytest.mark.parametrize("isotropic", [True, False])
def test_all_numbers_have_the_gradients_of_finite_differences(isotropic, generator):
    density = mixture(2, generator, isotropic, box=16, spread=4.0)
    parameters, band = GaussianParameters.of(density, 0.5), Band(16, 4)
    rotations = random_rotations(2, generator).requires_grad_()
    names = list(parameters.tensors())
    inputs = [tensor.clone().requires_grad_() for tensor in parameters.tensors().values()]
    weight = torch.randn(2, len(band), 2, generator=generator, dtype=torch.float64)
    voxels = torch.randn(10, 10, 10, generator=generator, dtype=torch.float64)

    def slices(turns, *numbers):
        changed = parameters.with_tensors(dict(zip(names, numbers, strict=True))).density()
        return (torch.view_as_real(changed.project(turns, band)) * weight).sum()

    def volume(*numbers):
        changed = parameters.with_tensors(dict(zip(names, numbers, strict=True))).density()
        return (changed.to_volume(10).data * voxels).sum()

    assert torch.autograd.gradcheck(slices, [rotations, *inputs], eps=1e-5, rtol=1e-4, atol=1e-7)
    assert torch.autograd.gradcheck(volume, inputs, eps=1e-5, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("isotropic", [True, False])
def test_parameters_give_the_density_back(isotropic, generator):
    density = mixture(50, generator, isotropic, least=0.6, most=9.0, dtype=torch.float32)
    again = GaussianParameters.of(density, 0.5).density()
    torch.testing.assert_close(again.masses, density.masses, rtol=1e-5, atol=0)
    torch.testing.assert_close(again.scales, density.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(again.covariances, density.covariances, rtol=1e-4, atol=1e-4)
    for least, most in ((2.0, 20.0), (0.5, 8.0)):
        with pytest.raises(ValueError, match=f"between {least:g} and {most:g} Å"):
            GaussianParameters.of(density, least, most)


def test_no_step_makes_a_gaussian_wider_than_its_ceiling(generator):
    density = mixture(20, generator, False, least=1.0, most=6.0)
    ceiling, parameters = 2 * density.scales.max(), GaussianParameters.of(density, 0.2)
    tensors = parameters.tensors()
    far = parameters.with_tensors(tensors | {"raw_scales": tensors["raw_scales"] + 1e3}).density()
    torch.testing.assert_close(far.scales, ceiling.expand(far.scales.shape))


def test_a_step_of_raw_numbers_is_a_relative_change(generator):
    parameters = GaussianParameters.of(mixture(20, generator, False, least=1.0, most=6.0), 0.2, 1000.0)
    moved = parameters.with_tensors(
        {
            name: raw + (1e-3 if "masses" in name or "scales" in name else 0)
            for name, raw in parameters.tensors().items()
        }
    )
    before, after = parameters.density(), moved.density()
    for one, other in ((after.masses, before.masses), (after.scales - 0.2, before.scales - 0.2)):
        torch.testing.assert_close(one / other, torch.full_like(one, 1.001), rtol=0, atol=5e-5)
    wide = torch.tensor([1e-6, 0.3, 5.0, 70.0], dtype=torch.float64)
    torch.testing.assert_close(torch.nn.functional.softplus(inverse_softplus(wide), threshold=80.0), wide)


def test_gaussians_are_chosen_and_put_together(generator):
    density = mixture(6, generator, False)
    parts = density.select(torch.tensor([4, 0])), density.select(torch.arange(6) > 3)
    both, rotations, band = merged(*parts), random_rotations(2, generator), Band(24, 6)
    assert len(both) == 4
    total = sum(part.project(rotations, band) for part in parts)
    torch.testing.assert_close(both.project(rotations, band), total, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="one kind"):
        merged(density, mixture(3, generator, True))
