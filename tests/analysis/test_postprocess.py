"""Hand, sharpening and filters against phantoms whose transforms are known."""

import pytest
import torch

from hoarfrost.analysis.fsc import HalfMapFSC, fourier_shell_correlation, shell_frequency
from hoarfrost.analysis.postprocess import (
    ending_at,
    filter_by_fsc,
    flip,
    flip_poses,
    guinier_b_factor,
    low_pass,
    sharpen,
)
from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.types import ImageArray, Optics, Particles, Poses, Volume
from phantoms import GaussianPhantom


def mirrored(phantom: GaussianPhantom) -> GaussianPhantom:
    return GaussianPhantom(phantom.centres * torch.tensor([1.0, 1.0, -1.0]), phantom.sigmas, phantom.masses)


@pytest.mark.parametrize("box", [32, 33])
def test_flip_is_the_phantom_mirrored_about_the_origin(box: int, generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(10, 12.0, generator, sigma=2.0)
    flipped = flip(phantom.volume(box, 1.5))
    assert torch.allclose(flipped.data, mirrored(phantom).volume(box, 1.5).data, atol=1e-7)
    assert torch.equal(flip(flipped).data, phantom.volume(box, 1.5).data)


def test_flipped_poses_give_the_same_images(generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(10, 12.0, generator, sigma=2.0)
    rotations, shifts = random_rotations(6, generator), torch.randn(6, 2, generator=generator).double()
    images = phantom.project(rotations, shifts, 32, 1.5)
    particles = Particles(ImageArray(images.float()), Optics.uniform(6, pixel_size=1.5), Poses(rotations, shifts))
    poses = flip_poses(particles).poses
    assert poses is not None
    again = mirrored(phantom).project(poses.rotations, poses.shifts, 32, 1.5)
    assert torch.allclose(again, images, atol=1e-12)
    with pytest.raises(InputError, match="no poses to flip"):
        flip_poses(particles.replace(poses=None))


def test_sharpening_by_the_guinier_b_factor_undoes_a_decay(generator: torch.Generator) -> None:
    white = Volume(torch.randn(64, 64, 64, generator=generator), 1.2)
    decayed = sharpen(white, 80.0)
    assert guinier_b_factor(decayed) == pytest.approx(-80.0, abs=2.0)
    assert guinier_b_factor(white) == pytest.approx(0.0, abs=2.0)
    restored = sharpen(decayed, guinier_b_factor(decayed))
    assert torch.allclose(restored.data, white.data, atol=0.15)
    with pytest.raises(InputError, match="a Guinier plot needs three shells"):
        guinier_b_factor(white, coarsest=2.5)


def test_a_b_factor_widens_a_gaussian() -> None:
    """exp(-B s^2 / 4) turns a Gaussian of variance v into one of variance v + B / (8 pi^2)."""
    origin = torch.zeros(1, 3, dtype=torch.float64)
    mass = torch.ones(1, dtype=torch.float64)
    narrow = GaussianPhantom(origin, 2.0 * mass, mass)
    b_factor = 8 * torch.pi**2 * (3.0**2 - 2.0**2)
    wide = GaussianPhantom(origin, 3.0 * mass, mass)
    widened = sharpen(narrow.volume(40, 1.0), b_factor)
    assert torch.allclose(widened.data, wide.volume(40, 1.0).data, atol=1e-6)


@pytest.mark.parametrize("box", [24, 25])
def test_a_map_that_ends_keeps_its_shells_and_no_other(box: int, generator: torch.Generator) -> None:
    volume = Volume(torch.randn(box, box, box, generator=generator), 1.7)
    ended = ending_at(volume, 7)
    curve = fourier_shell_correlation(volume, ended)
    assert torch.allclose(curve[:8], torch.ones(8).double(), atol=1e-6)
    assert float(curve[8:].abs().max()) == 0.0
    assert torch.allclose(ending_at(ended, 7).data, ended.data, atol=1e-6)


def test_low_pass_keeps_what_is_coarser_and_drops_what_is_finer(generator: torch.Generator) -> None:
    box = 48
    volume = Volume(torch.randn(box, box, box, generator=generator), 2.0)
    before, after = (torch.fft.fftn(v.data) for v in (volume, low_pass(volume, 8.0)))
    k = torch.fft.fftfreq(box) * box
    radius = (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).sqrt()
    cut = box * 2.0 / 8.0
    assert torch.allclose(after[radius <= cut - 1], before[radius <= cut - 1], atol=1e-2)
    assert after[radius >= cut + 1].abs().max() < 1e-2
    at_cut = (radius - cut).abs() < 1e-3
    assert torch.allclose(after[at_cut], before[at_cut] / 2, atol=1e-2)


def test_fsc_weights_and_cuts(generator: torch.Generator) -> None:
    box, voxel = 32, 2.0
    curve = torch.linspace(1.0, -0.2, box // 2 + 1, dtype=torch.float64)
    fsc = HalfMapFSC(shell_frequency(box, voxel), curve, curve, torch.zeros_like(curve), curve, 3)
    volume = Volume(torch.randn(box, box, box, generator=generator), voxel)
    before, after = (torch.fft.fftn(v.data) for v in (volume, filter_by_fsc(volume, fsc)))
    for shell in (2, 6, 10):
        weight = (2 * curve[shell] / (1 + curve[shell])).sqrt()
        assert abs(after[0, 0, shell] / before[0, 0, shell] - weight) < 1e-3
    assert after[0, 0, 13].abs() < 1e-3  # the curve crosses 0.143 between shells 11 and 12
    with pytest.raises(InputError, match="the FSC has 17 shells, a map of box 40"):
        filter_by_fsc(Volume(torch.zeros(40, 40, 40), voxel), fsc)
