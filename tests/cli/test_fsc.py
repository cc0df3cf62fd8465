"""The verbs fsc, flip and evaluate on files, as a user calls them."""

import json
import math
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from hoarfrost.analysis.fsc import HalfMapFSC, fourier_shell_correlation
from hoarfrost.analysis.postprocess import flip
from hoarfrost.cli import evaluate as evaluate_verb
from hoarfrost.cli import flip as flip_verb
from hoarfrost.cli import fsc as fsc_verb
from hoarfrost.errors import InputError
from hoarfrost.geometry.rotations import mirror, random_rotations
from hoarfrost.io.mrc import read_map, write_map, write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.types import Poses, Volume
from phantoms import GaussianPhantom

BOX, VOXEL = 40, 3.0


def call(verb, *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(verb.command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if isinstance(result.exception, InputError):
        raise result.exception
    return result


@pytest.fixture
def run(tmp_path: Path, generator: torch.Generator) -> Path:
    """A finished run in the true frame but of the other hand, with its truth beside it."""
    folder, truth = tmp_path / "run", tmp_path / "truth"
    folder.mkdir()
    truth.mkdir()
    phantom = GaussianPhantom.random(50, 30.0, generator, sigma=5.0)
    clean = phantom.volume(BOX, VOXEL)
    write_map(truth / "truth.mrc", clean)
    other_hand = flip(clean)
    halves = [
        Volume(other_hand.data + 0.3 * clean.data.std() * torch.randn(BOX, BOX, BOX, generator=generator), VOXEL)
        for _ in range(2)
    ]
    write_map(folder / "half1.mrc", halves[0])
    write_map(folder / "half2.mrc", halves[1])
    write_map(folder / "map.mrc", Volume((halves[0].data + halves[1].data) / 2, VOXEL))
    write_map(folder / "mask.mrc", Volume(soft_sphere(BOX, 14.0, 4.0), VOXEL))
    count = 80
    write_stack(truth / "stack.mrcs", [torch.zeros(count, 8, 8)], count=count, box=8, pixel_size=VOXEL)
    poses = Poses(random_rotations(count, generator), torch.zeros(count, 2, dtype=torch.float64))
    particles = read_particles(truth / "stack.mrcs").replace(poses=poses)
    write_particles(particles, truth / "truth.star")
    write_particles(
        particles.replace(poses=poses.replace(rotations=mirror(poses.rotations))), folder / "particles.star"
    )
    return folder


def test_fsc_writes_its_table_and_its_picture(run: Path, tmp_path: Path) -> None:
    table, picture = tmp_path / "fsc.csv", tmp_path / "fsc.png"
    maps = (run / "half1.mrc", run / "half2.mrc")
    result = call(fsc_verb, *maps, "--mask", run / "mask.mrc", "-o", table, "--plot", picture)
    assert result.exit_code == 0, result.output
    fsc = HalfMapFSC.read_csv(table)
    assert f"{fsc.resolution():.2f} Å" in result.output
    assert "unmasked" in result.output
    assert torch.allclose(fsc.unmasked, fourier_shell_correlation(*(read_map(path) for path in maps)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"fsc.csv: exists; give --force"):
        call(fsc_verb, *maps, "-o", table)
    assert call(fsc_verb, *maps, "-o", table, "--force").exit_code == 0


def test_fsc_without_correction_keeps_the_masked_curve(run: Path, tmp_path: Path) -> None:
    table = tmp_path / "fsc.csv"
    call(fsc_verb, run / "half1.mrc", run / "half2.mrc", "--mask", run / "mask.mrc", "--no-randomise", "-o", table)
    fsc = HalfMapFSC.read_csv(table)
    assert torch.equal(fsc.corrected, fsc.masked)
    assert torch.equal(fsc.randomised, torch.zeros_like(fsc.randomised))


def test_fsc_refuses_maps_of_different_boxes(run: Path, tmp_path: Path) -> None:
    write_map(tmp_path / "small.mrc", Volume(torch.zeros(16, 16, 16), VOXEL))
    with pytest.raises(InputError, match="boxes 40 and 16"):
        call(fsc_verb, run / "half1.mrc", tmp_path / "small.mrc")


def test_flip_turns_a_map_and_back(run: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.mrc", tmp_path / "twice.mrc"
    call(flip_verb, run / "map.mrc", "-o", once)
    assert torch.equal(read_map(once).data, flip(read_map(run / "map.mrc")).data)
    call(flip_verb, once, "-o", twice)
    assert torch.equal(read_map(twice).data, read_map(run / "map.mrc").data)
    with pytest.raises(InputError, match="exists; give --force"):
        call(flip_verb, run / "map.mrc", "-o", once)


def test_evaluate_finds_the_other_hand_and_flip_mends_it(run: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    result = call(evaluate_verb, run, "--truth", truth)
    assert result.exit_code == 0, result.output
    scores = json.loads((run / "scores.json").read_text())
    assert scores["hand"] == scores["map_hand"] == "mirrored"
    assert scores["rotation_deg"]["median"] < 1e-3
    assert scores["fsc_0.5_angstrom"] < 20
    assert scores["half_maps_0.143_angstrom"] < 20
    assert "mirrored" in result.output

    flipped = tmp_path / "flipped"
    call(flip_verb, run, "-o", flipped)
    assert {path.name for path in flipped.iterdir()} == {
        "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "particles.star",
    }  # fmt: skip
    call(evaluate_verb, flipped, "--truth", truth / "truth.star")
    mended = json.loads((flipped / "scores.json").read_text())
    assert mended["hand"] == mended["map_hand"] == "same"
    assert mended["fsc_0.5_angstrom"] == pytest.approx(scores["fsc_0.5_angstrom"], rel=0.02)
    assert all(math.isfinite(mended["rotation_deg"][key]) for key in ("median", "mean", "below_10"))


def test_a_map_with_a_table_goes_to_a_folder(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "pair"
    call(flip_verb, run / "map.mrc", "--particles", run / "particles.star", "-o", output)
    flipped, before = (
        read_particles(output / "particles.star", root=tmp_path / "truth"),
        read_particles(run / "particles.star", root=tmp_path / "truth"),
    )
    assert flipped.poses is not None
    assert before.poses is not None
    assert torch.allclose(flipped.poses.rotations, mirror(before.poses.rotations), atol=1e-6)
    assert (output / "map.mrc").exists()


def test_folders_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"empty: holds no map"):
        call(flip_verb, empty, "-o", tmp_path / "out")
    with pytest.raises(InputError, match=r"holds neither particles.star nor particles.cs"):
        call(evaluate_verb, empty, "--truth", empty)
    with pytest.raises(InputError, match="no such file or folder"):
        call(flip_verb, tmp_path / "nothing.mrc", "-o", tmp_path / "out")
