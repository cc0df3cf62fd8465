"""Turning and resampling a map against the same phantom turned analytically."""

import pytest
import torch

from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.analysis.interpolation import SplineVolume, move_volume
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.types import Volume
from phantoms import GaussianPhantom


def sharp_phantom(radius: float, generator: torch.Generator) -> GaussianPhantom:
    """Detail out to Nyquist of 1 Å voxels."""
    return GaussianPhantom.random(100, radius, generator, sigma=0.9)


def moved(phantom: GaussianPhantom, rotation: torch.Tensor, shift: torch.Tensor) -> GaussianPhantom:
    return GaussianPhantom(phantom.centres @ rotation.T + shift, phantom.sigmas, phantom.masses)


@pytest.mark.parametrize("box", [48, 49])
def test_a_turned_map_agrees_with_the_turned_phantom_to_high_frequency(box: int, generator: torch.Generator) -> None:
    phantom = sharp_phantom(0.28 * box, generator)
    rotation = random_rotations(1, generator)[0]
    shift = torch.tensor([1.3, -2.2, 0.6], dtype=torch.float64)
    turned = move_volume(phantom.volume(box, 1.0), rotation, shift)
    expected = moved(phantom, rotation, shift).volume(box, 1.0)
    correlation = fourier_shell_correlation(turned, expected)
    assert correlation[1 : int(0.8 * box / 2) + 1].min() > 0.99
    assert float((turned.data * expected.data).sum() / expected.data.square().sum()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("box", [40, 41])
def test_there_and_back_keeps_white_noise(box: int, generator: torch.Generator) -> None:
    axis = torch.arange(box) - box // 2
    inside = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < (0.35 * box) ** 2
    volume = Volume(torch.randn(box, box, box, generator=generator) * inside, 1.7)
    rotation = random_rotations(1, generator)[0]
    shift = torch.tensor([0.4, 1.9, -3.1], dtype=torch.float64)
    there = move_volume(volume, rotation, shift)
    back = move_volume(there, rotation.T, -(rotation.T @ shift))
    assert fourier_shell_correlation(back, volume)[1 : int(0.8 * box / 2) + 1].min() > 0.995


def test_the_identity_keeps_a_band_limited_map(generator: torch.Generator) -> None:
    volume = GaussianPhantom.random(20, 10.0, generator, sigma=2.0).volume(36, 1.0)
    same = move_volume(volume, torch.eye(3), torch.zeros(3))
    assert torch.allclose(same.data, volume.data, atol=1e-3 * float(volume.data.max()))


@pytest.mark.parametrize(("box", "voxel_size"), [(32, 2.0), (31, 1.9), (90, 0.8), (64, 1.0)])
def test_another_grid_samples_the_same_density(box: int, voxel_size: float, generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(30, 16.0, generator, sigma=3.0)
    resampled = move_volume(phantom.volume(64, 1.0), torch.eye(3), torch.zeros(3), box=box, voxel_size=voxel_size)
    expected = phantom.volume(box, voxel_size)
    assert resampled.voxel_size == voxel_size
    assert torch.allclose(resampled.data, expected.data, atol=2e-3 * float(expected.data.max()))


def test_splines_pass_through_the_voxels_and_end_at_the_box(generator: torch.Generator) -> None:
    volume = GaussianPhantom.random(20, 10.0, generator, sigma=2.0).volume(36, 1.5)
    spline = SplineVolume.from_volume(volume)
    index = torch.tensor([[18, 18, 18], [20, 14, 17], [9, 25, 20]])
    points = (index - 18) * 1.5
    expected = volume.data[index[:, 2], index[:, 1], index[:, 0]]
    assert torch.allclose(spline.sample(points), expected, atol=1e-3 * float(volume.data.max()))
    assert torch.equal(spline.sample(torch.tensor([[100.0, 0.0, 0.0]])), torch.zeros(1))
