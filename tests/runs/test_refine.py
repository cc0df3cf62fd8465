"""What a refinement makes of the map and mask that it is given, and what it refuses."""

from pathlib import Path

import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.mrc import write_map
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.runs.refine import fitted, fitted_mask, read_sized, require_sound_poses
from hoarfrost.types import ImageArray, Optics, Particles, Poses, Volume
from phantoms import GaussianPhantom

BOX, PIXEL = 24, 4.0


@pytest.fixture
def particles() -> Particles:
    poses = Poses(torch.eye(3).double().repeat(5, 1, 1), torch.zeros(5, 2).double())
    return Particles(ImageArray(torch.zeros(5, BOX, BOX)), Optics.uniform(5, pixel_size=PIXEL), poses)


@pytest.mark.parametrize(("box", "voxel"), [(48, 2.0), (32, 4.0), (40, 3.0), (24, 4.0)])
def test_a_map_of_another_grid_is_brought_onto_that_of_the_images(
    particles: Particles, generator: torch.Generator, box: int, voxel: float
) -> None:
    phantom = GaussianPhantom.random(8, 20.0, generator, sigma=9.0)
    found, note = fitted(phantom.volume(box, voxel), particles, Path("map.mrc"))
    expected = phantom.volume(BOX, PIXEL).data
    assert (note == "") == (box == BOX)
    assert found.voxel_size == PIXEL
    torch.testing.assert_close(found.data, expected, atol=0.02 * float(expected.max()), rtol=0)


def test_a_map_of_another_size_is_refused(particles: Particles) -> None:
    with pytest.raises(InputError, match=r"map.mrc: the map is 24 Å wide .* the images 96 Å"):
        fitted(Volume(torch.randn(BOX, BOX, BOX), 1.0), particles, Path("map.mrc"))


def test_a_constant_map_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "flat.mrc", Volume(torch.ones(8, 8, 8), 1.0))
    with pytest.raises(InputError, match="the map is constant"):
        read_sized(tmp_path / "flat.mrc")


@pytest.mark.parametrize(
    ("box", "scale", "message"), [(20, 1.0, "the mask has 20 x 20 x 20"), (BOX, 7.0, "values from 0 to 1")]
)
def test_a_mask_that_does_not_fit_is_refused(
    particles: Particles, tmp_path: Path, box: int, scale: float, message: str
) -> None:
    write_map(tmp_path / "mask.mrc", Volume(scale * torch.ones(box, box, box), PIXEL))
    with pytest.raises(InputError, match=message):
        fitted_mask(tmp_path / "mask.mrc", particles)


def test_poses_outside_the_image_are_refused(particles: Particles) -> None:
    shifts = torch.zeros(5, 2).double()
    shifts[3, 0] = 60.0
    off = particles.replace(poses=Poses(particles.poses.rotations, shifts))
    with pytest.raises(InputError, match="row 4: a shift of 60 Å leaves the image of 96 Å"):
        require_sound_poses(off, Path("t.star"), RefineConfig.from_preset())
    require_sound_poses(off, Path("t.star"), RefineConfig.from_preset(search="global"))
