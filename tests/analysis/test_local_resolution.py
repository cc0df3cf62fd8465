"""Local resolution of half-maps whose noise differs between two sides."""

import torch

from hoarfrost.analysis.local_resolution import local_resolution
from hoarfrost.physics.masks import lowpass
from hoarfrost.types import HalfMaps, Volume

BOX, VOXEL = 48, 2.0


def halves(generator: torch.Generator) -> HalfMaps:
    """White signal, low-passed to 16 Å on one side; both halves with the same little noise."""
    signal = Volume(torch.randn(BOX, BOX, BOX, generator=generator), VOXEL)
    fine = signal.data.clone()
    fine[:, :, : BOX // 2] = lowpass(signal, 16.0).data[:, :, : BOX // 2]
    noisy = [fine + 0.3 * torch.randn(BOX, BOX, BOX, generator=generator) for _ in range(2)]
    return HalfMaps(*(Volume(one, VOXEL) for one in noisy))


def test_the_two_sides_have_the_resolutions_they_were_given(generator: torch.Generator) -> None:
    found = local_resolution(halves(generator), window=16, step=4)
    blurred, sharp = found.data[:, :, 8:14].median(), found.data[:, :, 34:40].median()
    assert sharp < 1.1 * 2 * VOXEL
    assert 9.0 < blurred < 18.0


def test_noise_has_the_coarsest(generator: torch.Generator) -> None:
    noise = HalfMaps(*(Volume(torch.randn(BOX, BOX, BOX, generator=generator), VOXEL) for _ in range(2)))
    found = local_resolution(noise, window=16, step=4)
    assert found.data[8:-8, 8:-8, 8:-8].median() > 0.8 * 16 * VOXEL
    assert found.data.max() <= 16 * VOXEL * 1.0001
