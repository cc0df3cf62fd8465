"""Fourier cropping: physics kept, tables in step."""

import math
from pathlib import Path

import pytest
import torch

from hoarfrost.data.downsample import downsample_file, downsample_map, downsample_particles
from hoarfrost.errors import InputError
from hoarfrost.io.mrc import read_header, read_map, write_map, write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.types import Volume


def _blob(box: int, pixel_size: float, centre: tuple[float, ...], width: float = 9.0) -> torch.Tensor:
    """A Gaussian at ``centre`` (x, y[, z]) in Å."""
    axis = (torch.arange(box) - box // 2) * pixel_size
    grids = torch.meshgrid(*[axis] * len(centre), indexing="ij")
    squares = sum((grid - c) ** 2 for grid, c in zip(grids, reversed(centre), strict=True))
    return torch.exp(-squares / (2 * width**2))


@pytest.mark.parametrize(("old", "new"), [(48, 32), (48, 31), (47, 32), (47, 31)])
def test_a_map_keeps_values_place_and_scale(old: int, new: int) -> None:
    centre = (6.0, -10.0, 3.0)
    volume = downsample_map(Volume(_blob(old, 2.0, centre), 2.0), new)
    assert volume.voxel_size == pytest.approx(2.0 * old / new)
    assert volume.data.shape == (new,) * 3
    expected = _blob(new, volume.voxel_size, centre)
    assert float((volume.data - expected).abs().max()) < 2e-3
    constant = downsample_map(Volume(torch.full((old,) * 3, 3.5), 2.0), new)
    assert torch.allclose(constant.data, torch.full((new,) * 3, 3.5), atol=1e-5)


def _project(folder: Path, columns: str, rows: list[str], box: int = 24) -> Path:
    images = torch.stack([_blob(box, 1.5, (2.0 * i, -3.0), width=4.0) for i in range(len(rows))])
    write_stack(folder / "s.mrcs", [images], count=len(rows), box=box, pixel_size=1.5)
    (folder / "t.star").write_text(f"data_\nloop_\n_rlnImageName\n{columns}" + "\n".join(rows) + "\n")
    return folder / "t.star"


@pytest.mark.parametrize("box", [16, 15])
def test_images_and_table_keep_step(tmp_path: Path, box: int) -> None:
    columns = "_rlnDetectorPixelSize\n_rlnMagnification\n_rlnImageSize\n"
    columns += "_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginX\n_rlnOriginY\n_rlnMine\n"
    rows = [f"{3 - i}@s.mrcs 6 40000 24 10 20 30 {1.5 * i} -2 note{i}" for i in range(3)]
    path = _project(tmp_path, columns, rows)
    old = read_particles(path)
    written = downsample_file(path, tmp_path / "small.star", box)
    assert written == (tmp_path / "small.mrcs", tmp_path / "small.star")
    new = read_particles(tmp_path / "small.star")
    assert new.box == box
    assert new.pixel_size == pytest.approx(1.5 * 24 / box)
    assert read_header(tmp_path / "small.mrcs").voxel_size[0] == pytest.approx(1.5 * 24 / box)
    assert old.poses is not None
    assert new.poses is not None
    assert torch.allclose(new.poses.shifts, old.poses.shifts)  # Å
    assert torch.equal(new.poses.rotations, old.poses.rotations)
    for i, image in enumerate(new.images.read(torch.arange(3))):
        assert float((image - _blob(box, new.pixel_size, (2.0 * (2 - i), -3.0), width=4.0)).abs().max()) < 5e-3
    assert "note2" in (tmp_path / "small.star").read_text()
    again = read_particles(tmp_path / "small.star")
    write_particles(again, tmp_path / "again.star")
    assert (tmp_path / "again.star").read_text() == (tmp_path / "small.star").read_text()


def test_mixed_pixel_sizes_stay_apart(tmp_path: Path) -> None:
    path = _project(tmp_path, "_rlnImagePixelSize\n", ["1@s.mrcs 1.24", "2@s.mrcs 1.25"])
    particles = downsample_particles(read_particles(path), 12, tmp_path / "small.mrcs")
    assert particles.optics.pixel_size.tolist() == pytest.approx([2.48, 2.5])
    write_particles(particles, tmp_path / "small.star")
    assert read_particles(tmp_path / "small.star").optics.pixel_size.tolist() == pytest.approx([2.48, 2.5])


def test_a_cryosparc_table_keeps_step(tmp_path: Path) -> None:
    columns = "_rlnImagePixelSize\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginXAngst\n_rlnOriginYAngst\n"
    path = _project(tmp_path, columns, ["1@s.mrcs 1.5 10 20 30 3 -6", "2@s.mrcs 1.5 1 2 3 0 0"])
    write_particles(read_particles(path), tmp_path / "t.cs")
    downsample_file(tmp_path / "t.cs", tmp_path / "small.cs", 12)
    new = read_particles(tmp_path / "small.cs")
    assert new.box == 12
    assert new.pixel_size == 3.0
    assert new.poses is not None
    assert torch.allclose(new.poses.shifts, torch.tensor([[-3.0, 6.0], [0.0, 0.0]]).double(), atol=1e-6)


def test_a_bare_stack_gets_a_table(tmp_path: Path) -> None:
    _project(tmp_path, "_rlnImagePixelSize\n", ["1@s.mrcs 1.5"] * 2)
    downsample_file(tmp_path / "s.mrcs", tmp_path / "small.mrcs", 12)
    assert read_particles(tmp_path / "small.star").pixel_size == pytest.approx(3.0)


def test_a_map_file(tmp_path: Path) -> None:
    write_map(tmp_path / "m.mrc", Volume(_blob(24, 2.0, (0, 0, 0)), 2.0))
    assert downsample_file(tmp_path / "m.mrc", tmp_path / "n.mrc", 16) == (tmp_path / "n.mrc",)
    small = read_map(tmp_path / "n.mrc")
    assert small.voxel_size == pytest.approx(3.0)
    assert math.isclose(float(small.data[8, 8, 8]), 1.0, abs_tol=2e-3)


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    path = _project(tmp_path, "_rlnImagePixelSize\n", ["1@s.mrcs 1.5"])
    write_map(tmp_path / "m.mrc", Volume(torch.zeros(8, 8, 8), 1.0))
    with pytest.raises(InputError, match="box 24 is not smaller than 24"):
        downsample_file(path, tmp_path / "a.star", 24)
    with pytest.raises(InputError, match="box 2 is too small"):
        downsample_file(path, tmp_path / "a.star", 2)
    with pytest.raises(InputError, match=r"is a map, so the output should end in \.mrc"):
        downsample_file(tmp_path / "m.mrc", tmp_path / "a.star", 4)
    with pytest.raises(InputError, match=r"holds particles, so the output should end in"):
        downsample_file(path, tmp_path / "a.mrc", 8)
    with pytest.raises(InputError, match=r"t\.star: exists; give --force"):
        downsample_file(path, path, 8)
    with pytest.raises(InputError, match=r"s\.mrcs: is one of the stacks being read"):
        downsample_file(path, tmp_path / "s.star", 8, replace=True)
    with pytest.raises(InputError, match="a cubic map is needed"):
        downsample_map(Volume(torch.zeros(8, 8, 9), 1.0), 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.mrc", "s.mrcs", "t.star"]
