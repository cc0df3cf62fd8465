"""Densities as poses and contrast are measured against them."""

import pytest
import torch

from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import random_rotations
from hoarfrost.reconstruct.fits import FitSetting
from hoarfrost.reconstruct.updates import FittedMaps
from hoarfrost.reconstruct.wiener import WienerFit
from hoarfrost.representations.voxel import FourierVolume
from phantoms import GaussianPhantom

BOX, PIXEL = 48, 4.0


@pytest.mark.parametrize("trusted", [8, 21])
def test_a_density_projects_alike_in_the_box_of_its_band(generator, trusted):
    """Poses are refined on fewer voxels than the images have; slices must be as strong as before."""
    phantoms = [GaussianPhantom.random(12, 50.0, generator, sigma=9.0) for _ in range(2)]
    maps = [phantom.volume(BOX, PIXEL) for phantom in phantoms]
    fsc = (torch.arange(23) <= trusted).float()
    setting = FitSetting(BOX, PIXEL, 80.0, 0, torch.ones(23))
    state = {"fsc": fsc} | {f"fit.{half}.volume": one.data for half, one in enumerate(maps, 1)}
    pair, limit = FittedMaps(WienerFit(), setting)(state)
    assert limit <= trusted
    assert len(pair.first) < BOX or trusted == 21
    band, rotations = Band(BOX, limit), random_rotations(5, generator).float()
    for half, whole in enumerate(maps, 1):
        expected = FourierVolume.from_volume(whole, limit).project(rotations, band)
        found = pair.density(half, limit, torch.device("cpu")).project(rotations, band)
        assert (found - expected).norm() < 0.02 * expected.norm()
