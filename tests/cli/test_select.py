"""``hoarfrost select`` as a user calls it."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from hoarfrost.cli.select import command
from hoarfrost.data.simulate import simulate
from hoarfrost.errors import InputError
from hoarfrost.io.particles import read_particles, write_particles
from phantoms import GaussianPhantom

APP = typer.Typer()
APP.command()(command)
COUNT = 12


@pytest.fixture
def table(tmp_path: Path, generator: torch.Generator) -> Path:
    """Twelve particles of two classes with rising confidence, every fourth of them junk, and a column of their own."""
    density = GaussianPhantom.random(5, 20.0, generator, sigma=5.0).volume(16, 5.0)
    stack = simulate(density, count=COUNT, box=16, pixel_size=5.0, shift_px=1.0, generator=generator)
    stack.write(tmp_path)
    truth = read_particles(tmp_path / "truth.star")
    assert truth.poses is not None
    number = torch.arange(COUNT)
    marked = truth.replace(
        poses=truth.poses.replace(confidence=number / 20),
        classes=1 + number % 2,
        junk=(number % 4 == 3).double(),
    )
    write_particles(marked, tmp_path / "particles.star")
    return tmp_path / "particles.star"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(path: Path) -> list[int]:
    """Which images a table names, in its order."""
    return read_particles(path).source.image_names().index.tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--confidence", "0.3"], [6, 7, 8, 9, 10, 11]),
        (["--class", "2"], [1, 3, 5, 7, 9, 11]),
        (["--class", "1", "--class", "2", "--junk", "drop"], [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        (["--class", "1", "--best", "0.5"], [6, 8, 10]),
        ([], list(range(COUNT))),
    ],
)
def test_what_is_asked_for_is_kept_in_order(table: Path, options: list[str], expected: list[int]) -> None:
    said = run(table.parent, "-o", table.parent / "subset.star", *options)
    assert f"{len(expected)} of {COUNT} particles" in said
    assert rows_of(table.parent / "subset.star") == expected


def test_all_columns_stay(table: Path) -> None:
    run(table, "-o", table.parent / "subset.star", "--class", "2")
    before, after = (
        read_particles(table).source.particles,
        read_particles(table.parent / "subset.star").source.particles,
    )
    assert set(after.columns) == set(before.columns)
    for label, column in before.columns.items():
        assert after.columns[label].tolist() == column[1::2].tolist()


def test_a_cs_file_gives_one(table: Path) -> None:
    write_particles(read_particles(table), table.parent / "all.cs")
    run(table.parent / "all.cs", "-o", table.parent / "subset.cs", "--junk", "drop", "--class", "2")
    subset, whole = read_particles(table.parent / "subset.cs"), read_particles(table.parent / "all.cs")
    assert subset.source.data["uid"].tolist() == whole.source.data["uid"][[1, 5, 9]].tolist()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--class", "3"], "holds no class 3; there are 1, 2"),
        (["--best", "1.5"], "a share above 0 and up to 1"),
        (["--confidence", "1"], "none of 12 particles is left"),
    ],
)
def test_impossible_wishes_are_refused(table: Path, options: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        run(table, "-o", table.parent / "subset.star", *options)
    assert not (table.parent / "subset.star").exists()


def test_columns_that_are_missing_are_named(table: Path) -> None:
    blind = table.parent / "blind.star"
    write_particles(read_particles(table).replace(poses=None, classes=None, junk=None), blind)
    for options in (["--class", "1"], ["--junk", "drop"], ["--confidence", "0.5"], ["--best", "0.5"]):
        with pytest.raises(InputError, match=r"rlnClassNumber|hoarfrostJunkProbability|rlnMaxValueProbDistribution"):
            run(blind, "-o", table.parent / "subset.star", *options)


def test_nothing_is_overwritten_unasked(table: Path) -> None:
    with pytest.raises(InputError, match="give --force"):
        run(table, "-o", table)
    run(table, "-o", table, "--class", "1", "--force")
    assert rows_of(table) == [0, 2, 4, 6, 8, 10]
