"""The verbs info, convert and downsample, as typed."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from hoarfrost.cli import convert, downsample, info
from hoarfrost.errors import InputError
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles import read_particles


def _run(module: object, *words: object) -> str:
    app = typer.Typer()
    app.command()(module.command)  # type: ignore[attr-defined]
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def table(tmp_path: Path, generator: torch.Generator) -> Path:
    images = torch.randn(4, 8, 8, generator=generator)
    write_stack(tmp_path / "s.mrcs", [images], count=4, box=8, pixel_size=1.5)
    columns = "_rlnImageName\n_rlnImagePixelSize\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
    columns += "_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n"
    rows = [f"{i}@s.mrcs 1.5 300 2.7 0.1 {10000 + i} 9000 {10 * i} {i} 20 30\n" for i in range(1, 5)]
    (tmp_path / "[t].star").write_text("data_\nloop_\n" + columns + "".join(rows))
    return tmp_path / "[t].star"


def test_info_says_what_is_there(table: Path) -> None:
    output = _run(info, table)
    for words in ("[t].star", "particles", "9000 to 10004 Å", "optics groups", "nothing looks wrong"):
        assert words in output
    assert "no CTF" in _run(info, table.with_name("s.mrcs"))


def test_convert_there_and_back(table: Path, tmp_path: Path) -> None:
    assert "4 particles with poses" in _run(convert, table, tmp_path / "p.cs")
    _run(convert, tmp_path / "p.cs", tmp_path / "q.star")
    first, last = read_particles(table), read_particles(tmp_path / "q.star")
    assert first.poses is not None
    assert last.poses is not None
    assert float((first.poses.rotations - last.poses.rotations).abs().max()) < 1e-6
    assert torch.equal(first.optics.defocus_u, last.optics.defocus_u)
    before = (tmp_path / "q.star").read_bytes()
    with pytest.raises(InputError, match=r"q\.star: exists; give --force"):
        _run(convert, table, tmp_path / "q.star")
    assert (tmp_path / "q.star").read_bytes() == before
    _run(convert, table, tmp_path / "q.star", "--force")


def test_downsample_writes_stack_and_table(table: Path, tmp_path: Path) -> None:
    output = _run(downsample, table, "-o", tmp_path / "small.star", "--box", 5)
    assert "small.mrcs" in output
    assert "small.star" in output
    small = read_particles(tmp_path / "small.star")
    assert (small.box, small.pixel_size) == (5, pytest.approx(2.4))
