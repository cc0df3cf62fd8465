import torch

from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.geometry.rotations import random_rotations, rotation_vector_to_matrix
from hoarfrost.representations.base import Density
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom


def make(generator, box=32):
    phantom = GaussianPhantom.random(12, 20.0, generator, sigma=6.0)
    volume = phantom.volume(box, 3.0)
    return phantom, FourierVolume(volume.data.double() * 3.0, 3.0, SliceGrid(box, 10))


def relative_error(actual, expected):
    return ((actual - expected).abs().square().sum() / expected.abs().square().sum()).sqrt()


def test_it_is_a_density(generator):
    assert isinstance(make(generator)[1], Density)


def test_gradient_turns_a_slice_as_turning_the_object_does(generator):
    (phantom, density), band = make(generator), Band(32, 9)
    rotations = random_rotations(6, generator)
    value, gradient = density.project_with_gradient(rotations, band)
    torch.testing.assert_close(value, density.project(rotations, band))
    in_image = torch.einsum("nij,nmj->nmi", rotations.to(gradient.dtype), gradient)
    k = torch.nn.functional.pad(band.k.double(), (0, 1))
    step = 1e-4
    for axis in torch.eye(3, dtype=torch.float64):
        turned = [
            band.from_images(
                phantom.project(rotation_vector_to_matrix(sign * step * axis) @ rotations, torch.zeros(6, 2), 32, 3.0)
            )
            for sign in (1, -1)
        ]
        measured = (turned[0] - turned[1]) / (2 * step)
        predicted = (in_image * -torch.linalg.cross(axis.expand_as(k), k)).sum(-1)
        assert relative_error(predicted, measured) < 0.03


def test_resampling_keeps_slices(generator):
    (_, density), band = make(generator), Band(32, 8)
    rotations = random_rotations(3, generator)
    small = density.to_volume(24)
    assert small.voxel_size == 4.0
    again = FourierVolume.from_volume(small, 8).project(rotations, Band(24, 8))
    # A smaller box holds the same frequencies; orthonormal slices scale as the voxel volume does.
    expected = density.project(rotations, band) * (24 / 32) ** 2
    assert relative_error(again, expected) < 0.02
