"""A refinement from the command line, whole or killed; what it makes of the map and mask that it is given."""

import json
from pathlib import Path

import pytest
import torch

from hoarfrost.errors import InputError
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.io.particles import read_particles
from hoarfrost.runs.given import fitted, fitted_mask, read_sized, require_sound_poses
from hoarfrost.types import ImageArray, Optics, Particles, Poses, Volume
from phantoms import GaussianPhantom
from small_runs import PIXEL_SIZE, assert_alike, killed_and_whole, run

BOX, PIXEL = 24, 4.0

WORK = """
from hoarfrost.reconstruct.settings import RefineConfig
from hoarfrost.runs.refine import run_refine

config = RefineConfig(
    spacings=(7.5, 3.75), rounds=2, iterations=1, rivals=1, max_resolution=20.0, shift_count=3, defocus="particle",
    contrast=True,
)

def run(table, folder, console):
    run_refine(table, table.parent / "truth.mrc", folder, config, console=console)
"""


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
        require_sound_poses(off, Path("t.star"), "or use --search global")


@pytest.mark.slow
def test_what_a_refinement_leaves(stack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    asked = ("refine", stack / "particles.star", "--map", stack / "truth.mrc", "-o", folder)
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "sharpened.mrc", "local_resolution.mrc", "particles.star",
        "fsc.csv", "view.cxc", "report.html", "figures", "run.json", "events.jsonl", "log.txt",
    }  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["search"] == "global"
    assert set(record["files"]) >= names - {"figures", "run.json"}
    posed = read_particles(folder / "particles.star", root=stack)
    assert posed.poses is not None
    assert posed.half is not None
    blind = read_particles(stack / "particles.star")
    assert torch.equal(posed.optics.defocus_u, blind.optics.defocus_u)
    local = read_map(folder / "local_resolution.mrc")
    assert local.voxel_size == pytest.approx(PIXEL_SIZE)
    results = record["results"]
    assert results["local_resolution"]["best"] <= results["local_resolution"]["worst"]
    for said in ("Å at FSC 0.143", "B factor", "(median)", f"global search, then {results['rounds']} rounds"):
        assert said in done.stdout
    before = (folder / "report.html").read_bytes()
    assert "is finished" in run(*asked).stdout
    other = run(*asked, "--low-pass", "50")
    assert other.returncode == 2
    assert "holds another run (low_pass was 40.0, is now 50.0)" in other.stderr
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.slow
def test_a_refinement_killed_at_random_moments_leaves_what_an_uninterrupted_one_leaves(
    stack: Path, tmp_path: Path
) -> None:
    killed, whole, kills = killed_and_whole(stack / "particles.star", tmp_path, WORK, seed=2)
    assert kills >= 2
    assert_alike(killed, whole, stack)
    found, expected = (read_particles(folder / "particles.star", root=stack).optics for folder in (killed, whole))
    assert torch.allclose(found.defocus_u, expected.defocus_u, atol=0.1)
    assert torch.allclose(found.scale, expected.scale, atol=1e-4)
    assert not torch.equal(found.scale, torch.ones_like(found.scale))
    record = json.loads((killed / "run.json").read_text())
    assert record["status"] == "finished"
    assert not (killed / "cache").exists()
