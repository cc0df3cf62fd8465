"""``hoarfrost mask`` as a user calls it."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from hoarfrost.cli.mask import command
from hoarfrost.errors import InputError
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.physics.masks import mask_from_map, soft_sphere
from phantoms import GaussianPhantom

APP = typer.Typer()
APP.command()(command)


@pytest.fixture
def map_path(tmp_path: Path, generator: torch.Generator) -> Path:
    path = tmp_path / "map.mrc"
    write_map(path, GaussianPhantom.random(50, 25.0, generator).volume(32, 3.0))
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_mask_is_that_of_the_library(map_path: Path, tmp_path: Path) -> None:
    output = run(map_path, "-o", tmp_path / "mask.mrc", "--extend", 2, "--edge", 4, "--lowpass", 12)
    written = read_map(tmp_path / "mask.mrc")
    expected = mask_from_map(read_map(map_path), extend_px=2.0, edge_px=4.0, lowpass_angstrom=12.0)
    assert torch.allclose(written.data, expected.data, atol=1e-6)
    assert written.voxel_size == pytest.approx(3.0)
    share = 100 * float(written.data.mean())
    assert "mask.mrc: contour at" in output
    assert f"{share:.1f} % of the box of 32 voxels" in output


def test_threshold_is_taken_as_given(map_path: Path, tmp_path: Path) -> None:
    level = 0.5 * float(read_map(map_path).data.max())
    run(map_path, "-o", tmp_path / "mask.mrc", "--threshold", level, "--lowpass", 0, "--extend", 0, "--edge", 0)
    expected = read_map(map_path).data > level
    assert torch.equal(read_map(tmp_path / "mask.mrc").data > 0.5, expected)


def test_sphere(map_path: Path, tmp_path: Path) -> None:
    output = run(map_path, "-o", tmp_path / "mask.mrc", "--radius", 30, "--edge", 5)
    assert torch.allclose(read_map(tmp_path / "mask.mrc").data, soft_sphere(32, 10.0, 5.0))
    assert "sphere of 30 Å" in output


def test_nothing_is_overwritten_unasked(map_path: Path, tmp_path: Path) -> None:
    (tmp_path / "mask.mrc").write_text("mine")
    with pytest.raises(InputError, match="exists; give --force"):
        run(map_path, "-o", tmp_path / "mask.mrc")
    assert (tmp_path / "mask.mrc").read_text() == "mine"
    run(map_path, "-o", tmp_path / "mask.mrc", "--force")
    assert read_map(tmp_path / "mask.mrc").data.max() == 1


def test_a_threshold_too_high_says_so(map_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no voxel lies above the threshold 1e\\+06"):
        run(map_path, "-o", tmp_path / "mask.mrc", "--threshold", 1e6)
    assert not (tmp_path / "mask.mrc").exists()
