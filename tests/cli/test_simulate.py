"""``hoarfrost simulate``, as typed."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from hoarfrost.cli.simulate import command
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.density import density_from_atoms
from hoarfrost.errors import InputError
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.io.particles import read_particles


def _run(*words: object) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def molecule(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "molecule.mrc"
    write_map(path, density_from_atoms(builtin_complex(), 32, 7.0, b_factor=500.0))
    return path


def test_the_builtin_molecule_becomes_a_stack(tmp_path: Path) -> None:
    output = _run("builtin", "-o", tmp_path / "sim", "--n", 12, "--box", 32, "--seed", 3)
    assert "12 images of 32 pixels" in output
    blind, truth = read_particles(tmp_path / "sim/particles.star"), read_particles(tmp_path / "sim/truth.star")
    assert (len(blind), blind.box, blind.poses) == (12, 32, None)
    assert truth.poses is not None
    assert read_map(tmp_path / "sim/truth.mrc").voxel_size == pytest.approx(blind.pixel_size)
    # The sphere that holds the molecule, some 185 Å wide, fills two thirds of the box.
    assert blind.pixel_size == pytest.approx(185 / (2 / 3 * 32), rel=0.03)


def test_options_reach_the_stack(tmp_path: Path, molecule: Path) -> None:
    options = ["--defocus", 9000, 9500, "--astigmatism", 0, "--b-factor", 60, "--voltage", 200, "--cs", 2.0]
    options += ["--amplitude-contrast", 0.07, "--shift", 2, "--tilt", 90, 90, "--junk", 0.25, "--apix", 7]
    _run(molecule, "-o", tmp_path, "--n", 40, "--box", 32, *options)
    truth = read_particles(tmp_path / "truth.star")
    optics = truth.optics
    assert 9000 <= optics.defocus_u.min() <= optics.defocus_u.max() <= 9500
    torch.testing.assert_close(optics.defocus_u, optics.defocus_v)
    assert (optics.b_factor == 60).all()
    assert (optics.voltage == 200).all()
    assert (optics.spherical_aberration == 2.0).all()
    assert (optics.amplitude_contrast == 0.07).all()
    assert truth.poses is not None
    assert truth.poses.shifts.abs().max() <= 14
    assert truth.poses.rotations[:, 2, 2].abs().max() < 1e-9
    assert int((truth.classes == 0).sum()) == 10


def test_several_maps_and_weights_make_classes(tmp_path: Path, molecule: Path) -> None:
    output = _run(molecule, molecule, "-o", tmp_path, "--n", 30, "--box", 32, "--weights", "1,9")
    assert "2 classes" in output
    classes = read_particles(tmp_path / "truth.star").classes
    assert classes is not None
    assert int((classes == 2).sum()) > 20


def test_the_same_command_gives_the_same_files(tmp_path: Path, molecule: Path) -> None:
    for name in ("a", "b"):
        _run(molecule, "-o", tmp_path / name, "--n", 8, "--box", 32, "--noise", "coloured", "--seed", 5)
    first, second = (read_particles(tmp_path / name / "particles.star") for name in ("a", "b"))
    rows = torch.arange(8)
    assert torch.equal(first.images.read(rows), second.images.read(rows))
    assert (tmp_path / "a/truth.star").read_text() == (tmp_path / "b/truth.star").read_text()


def test_like_takes_the_poses_of_a_table(tmp_path: Path, molecule: Path) -> None:
    _run(molecule, "-o", tmp_path / "a", "--n", 6, "--box", 32, "--seed", 1)
    _run(molecule, "-o", tmp_path / "b", "--n", 6, "--box", 32, "--seed", 2, "--like", tmp_path / "a/truth.star")
    first, second = (read_particles(tmp_path / name / "truth.star") for name in ("a", "b"))
    assert first.poses is not None
    assert second.poses is not None
    torch.testing.assert_close(first.poses.rotations, second.poses.rotations)
    torch.testing.assert_close(first.optics.defocus_u, second.optics.defocus_u)


def test_nothing_is_overwritten_without_force(tmp_path: Path, molecule: Path) -> None:
    (tmp_path / "truth.mrc").write_bytes(b"dear to me")
    with pytest.raises(InputError) as caught:
        _run(molecule, "-o", tmp_path, "--n", 4, "--box", 32)
    assert str(caught.value) == f"{tmp_path / 'truth.mrc'}: exists; give --force to replace it, or another name"
    assert (tmp_path / "truth.mrc").read_bytes() == b"dear to me"
    _run(molecule, "-o", tmp_path, "--n", 4, "--box", 32, "--force")
    assert read_map(tmp_path / "truth.mrc").box == 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "1,x"], "--weights 1,x: numbers separated by commas are expected, e.g. 2,1,1"),
        (["--snr", "-1"], "a signal-to-noise ratio of -1 is impossible; it is above 0, or inf for no noise"),
        (["--weights", "1,2"], "2 weights for 1 models; one each is needed, none negative"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, molecule: Path, words: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _run(molecule, "-o", tmp_path / "none", "--n", 4, "--box", 32, *words)
    assert str(caught.value) == message
    assert not (tmp_path / "none").exists()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.cif: no such file"):
        _run(tmp_path / "absent.cif", "-o", tmp_path)


@pytest.mark.data
def test_every_state_of_an_ensemble(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "ensembles" / "adk"
    _run(folder / "adk_open.pdb", folder / "adk_closed.pdb", "-o", tmp_path, "--n", 6, "--box", 32, "--all-models")
    assert (tmp_path / "truth_2.mrc").exists()
