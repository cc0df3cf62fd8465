import torch
from phantoms import GaussianPhantom

from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations, rotation_vector_to_matrix
from hoarfrost.representations.base import Density
from hoarfrost.representations.voxel import FourierVolume


def make(generator, box=32):
    phantom = GaussianPhantom.random(12, 20.0, generator, sigma=6.0)
    volume = phantom.volume(box, 3.0)
    return FourierVolume(volume.data.double(), volume.voxel_size, FourierVolume.from_volume(volume, 10).grid)


def test_it_is_a_density(generator):
    assert isinstance(make(generator), Density)


def test_gradient_is_that_of_the_transform(generator):
    density, band = make(generator), Band(32, 9)
    rotations = random_rotations(6, generator)
    value, gradient = density.project_with_gradient(rotations, band)
    torch.testing.assert_close(value, density.project(rotations, band))
    # Turning the pose by a small angle about z moves every slice point along a known direction.
    step = 1e-3
    for axis in range(3):
        vector = torch.zeros(6, 3, dtype=torch.float64)
        vector[:, axis] = step
        ahead = density.project(rotation_vector_to_matrix(vector) @ rotations, band)
        behind = density.project(rotation_vector_to_matrix(-vector) @ rotations, band)
        k = torch.nn.functional.pad(band.k.double(), (0, 1))
        moved = -torch.linalg.cross(vector[0].expand_as(k), k) / step
        in_image = torch.einsum("nij,nmj->nmi", rotations.to(gradient.dtype), gradient)
        predicted = (in_image * moved).sum(-1)
        measured = (ahead - behind) / (2 * step)
        error = (predicted - measured).abs().square().sum() / measured.abs().square().sum()
        assert error.sqrt() < 0.05  # the measured one is the derivative of a trilinear interpolation


def test_resampling_keeps_slices(generator):
    density, band = make(generator), Band(32, 8)
    rotations = random_rotations(3, generator)
    small = density.to_volume(24)
    assert small.voxel_size == 4.0
    again = FourierVolume.from_volume(small, 8).project(rotations, Band(24, 8))
    # A smaller box holds the same frequencies; orthonormal slices scale as the voxel volume does.
    expected = density.project(rotations, band) * (24 / 32) ** 2
    error = (again - expected).abs().square().sum() / expected.abs().square().sum()
    assert error.sqrt() < 0.02
