"""Soft masks and the diameter of a particle."""

import math
from pathlib import Path

import pytest
import torch
from scipy import ndimage

from hoarfrost.errors import InputError
from hoarfrost.fourier.shells import radius_3d
from hoarfrost.io.mrc import read_map
from hoarfrost.physics.masks import (
    automatic_threshold,
    estimate_diameter,
    lowpass,
    mask_from_map,
    soft_disc,
    soft_sphere,
)
from hoarfrost.types import Volume
from phantoms import GaussianPhantom


def ball(box: int, radius: float, centre: tuple[int, int, int], voxel_size: float = 2.0) -> Volume:
    """A ball of density one, its surface blurred over a voxel."""
    distance = radius_3d((box,) * 3, centre)
    return Volume(torch.sigmoid(2 * (radius - distance)), voxel_size)


@pytest.mark.parametrize("box", [32, 33])
def test_soft_sphere_and_disc(box: int) -> None:
    sphere, disc = soft_sphere(box, 8.0, 4.0), soft_disc(box, 8.0, 4.0)
    middle = box // 2
    profile = sphere[middle, middle, middle:]
    torch.testing.assert_close(sphere[middle], disc, rtol=0, atol=1e-6)
    assert torch.equal(disc, disc.mT)
    assert (profile[:9] == 1).all()
    assert profile[10] == pytest.approx(0.5, abs=1e-6)
    assert (profile[12:] < 1e-6).all()
    assert (profile[8:13].diff() < 0).all()
    hard = soft_sphere(box, 8.0, 0.0)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert hard.sum() == pytest.approx(4 / 3 * math.pi * 8**3, rel=0.05)


def test_extension_is_the_euclidean_distance(generator: torch.Generator) -> None:
    """Against scipy's exact distance transform, for a ragged region that touches the border."""
    data = lowpass(Volume(torch.randn(40, 40, 40, generator=generator), 1.0), 9.0).data
    inside = data > 2 * data.std()
    assert inside[0].any()
    mask = mask_from_map(Volume(inside.float(), 1.0), threshold=0.5, extend_px=3.0, edge_px=5.0, lowpass_angstrom=None)
    distance = torch.from_numpy(ndimage.distance_transform_edt(~inside.numpy()))
    expected = 0.5 + 0.5 * torch.cos(math.pi * ((distance - 3) / 5).clamp(0, 1))
    assert torch.allclose(mask.data.double(), expected, atol=1e-6)


def test_mask_holds_the_particle_and_leaves_out_the_solvent(generator: torch.Generator) -> None:
    phantom = GaussianPhantom.random(300, 40.0, generator, sigma=4.0)
    clean = phantom.volume(64, 3.0)
    noisy = clean.data + 0.5 * clean.data.std() * torch.randn(64, 64, 64, generator=generator)
    mask = mask_from_map(Volume(noisy, 3.0))
    assert mask.voxel_size == 3.0
    assert float((mask.data * clean.data).sum() / clean.data.sum()) > 0.999
    distance = radius_3d((64,) * 3, (32,) * 3) * 3.0
    assert (mask.data[distance > 40 + 8 + 9 * 3.0 + 9] == 0).all()
    # Extended by 3 voxels and the blur, and by as much again in the soft edge.
    assert mask.data.mean() < 1.2 * 4 / 3 * math.pi * (40 + 8 + 6 * 3.0) ** 3 / (64 * 3.0) ** 3


def test_threshold_of_a_ball_does_not_depend_on_noise_scale_or_offset(generator: torch.Generator) -> None:
    data = ball(48, 12.0, (24, 24, 24)).data
    noisy = data + 0.02 * torch.randn(48, 48, 48, generator=generator)
    level = automatic_threshold(noisy)
    assert 0.2 < level < 0.5
    assert automatic_threshold(100 * noisy - 30) == pytest.approx(100 * level - 30, rel=0.02)
    masked = noisy * soft_sphere(48, 20.0, 0.0)
    assert automatic_threshold(masked) == pytest.approx(level, abs=0.1)


def test_noise_raises_the_threshold(generator: torch.Generator) -> None:
    """Nothing but specks of solvent would come through otherwise."""
    data = ball(48, 12.0, (24, 24, 24)).data + 0.11 * torch.randn(48, 48, 48, generator=generator)
    outside = radius_3d((48,) * 3, (24,) * 3) > 16
    assert (data > automatic_threshold(data))[outside].float().mean() < 1e-3


def test_only_the_largest_piece_is_kept() -> None:
    data = ball(96, 18.0, (40, 48, 48)).data + ball(96, 4.0, (84, 48, 48)).data
    every = mask_from_map(Volume(data, 2.0), extend_px=2.0, edge_px=2.0)
    largest = mask_from_map(Volume(data, 2.0), extend_px=2.0, edge_px=2.0, largest_piece=True)
    assert every.data[84, 48, 48] == 1
    assert largest.data[84, 48, 48] == 0
    assert torch.equal(largest.data[:70], every.data[:70])


@pytest.mark.parametrize(("threshold", "lowpass_angstrom"), [(5.0, None), (0.99, 60.0)])
def test_a_threshold_above_everything(threshold: float, lowpass_angstrom: float | None) -> None:
    with pytest.raises(InputError, match=rf"no voxel lies above the threshold {threshold:g}; the highest .* is 0\.\d+"):
        mask_from_map(ball(32, 6.0, (16, 16, 16)), threshold=threshold, lowpass_angstrom=lowpass_angstrom)


def test_a_constant_map_has_no_threshold() -> None:
    for value in (0.0, 3.0):
        with pytest.raises(InputError, match="the map is constant"):
            mask_from_map(Volume(torch.full((16, 16, 16), value), 1.0), lowpass_angstrom=None)


def test_negative_extension_is_refused() -> None:
    with pytest.raises(InputError, match="0 voxels or more, not -2"):
        mask_from_map(ball(32, 6.0, (16, 16, 16)), extend_px=-2.0)


@pytest.mark.parametrize("radius", [10.0, 16.0])
@pytest.mark.parametrize("centre", [(24, 24, 24), (20, 26, 27)])
def test_diameter_of_a_ball(radius: float, centre: tuple[int, int, int], generator: torch.Generator) -> None:
    volume = ball(48, radius, centre)
    noisy = Volume(volume.data + 0.05 * torch.randn(48, 48, 48, generator=generator), 2.0)
    voxels = 1.5 * volume.voxel_size
    for one in (volume, noisy, Volume(noisy.data * soft_sphere(48, 22.0, 2.0), 2.0)):
        assert estimate_diameter(one) == pytest.approx(2 * radius * volume.voxel_size, abs=voxels)


def test_diameter_of_a_long_particle_in_noise(generator: torch.Generator) -> None:
    """A rod is held by a sphere of its length; a speck far away does not count."""
    line = torch.stack([torch.linspace(-70, 70, 60), torch.zeros(60), torch.zeros(60)], dim=-1).double()
    rod = GaussianPhantom(line, torch.full((60,), 8.0).double(), torch.ones(60).double()).volume(64, 3.5)
    data = rod.data / rod.data.max() + 0.03 * torch.randn(64, 64, 64, generator=generator)
    data[2:4, 2:4, 2:4] = 1.0
    assert estimate_diameter(Volume(data, 3.5)) == pytest.approx(2 * (70 + 8), rel=0.08)


def test_lowpass_halves_amplitudes_at_its_resolution() -> None:
    box, voxel = 40, 2.0
    x = torch.arange(box) * voxel
    wave = torch.cos(2 * math.pi * x / 16.0).expand(box, box, box)
    filtered = lowpass(Volume(1 + wave, voxel), 16.0).data
    assert torch.allclose(filtered, 1 + 0.5 * wave, atol=1e-5)


@pytest.mark.data
def test_diameter_of_beta_galactosidase(shared_data: Path) -> None:
    """The tetramer is about 180 Å long."""
    assert estimate_diameter(read_map(shared_data / "maps" / "betaGal.mrc")) == pytest.approx(180.0, rel=0.05)
