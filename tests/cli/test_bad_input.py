"""Malformed tables, stacks, maps and options through the real command line.

Whatever is wrong: exit code 2, one line that says what and where, no traceback, and not a file made or touched.
"""

import gzip
import json
import os
import pickle
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from hoarfrost.cli import main
from hoarfrost.data.simulate import Noise, simulate
from hoarfrost.io.mrc import write_map, write_stack
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.io.star import StarBlock, read_star, text_tokens, write_star
from hoarfrost.runs.folder import RunFolder
from hoarfrost.types import Volume
from phantoms import GaussianPhantom

COUNT, BOX, PIXEL_SIZE = 60, 16, 8.0

Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which nothing is wrong: a blind stack, its truth, maps, a run, and a stranger's folder."""
    folder = tmp_path_factory.mktemp("good")
    generator = torch.Generator().manual_seed(7)
    density = GaussianPhantom.random(18, 30.0, generator, sigma=9.0).volume(BOX, PIXEL_SIZE)
    simulate(
        density, count=COUNT, box=BOX, pixel_size=PIXEL_SIZE, noise=Noise(2.0), shift_px=0.5, generator=generator
    ).write(folder)
    write_particles(read_particles(folder / "truth.star"), folder / "truth.cs")
    write_particles(read_particles(folder / "particles.star"), folder / "particles.cs")
    write_map(folder / "map.mrc", density)
    write_map(folder / "large.mrc", Volume(torch.zeros(20, 20, 20), PIXEL_SIZE))
    write_map(folder / "coarse.mrc", Volume(density.data, 2 * PIXEL_SIZE))
    write_map(folder / "flat.mrc", Volume(torch.ones(BOX, BOX, BOX), PIXEL_SIZE))
    write_map(folder / "slab.mrc", Volume(torch.randn(8, BOX, BOX, generator=generator), PIXEL_SIZE))
    write_map(folder / "nan.mrc", density)
    pixels(5, np.nan, "nan.mrc")(folder)
    (folder / "stranger").mkdir()
    (folder / "stranger" / "thesis.txt").write_text("years of work")
    with RunFolder.open(folder / "run", verb="abinit", config={"seed": 12}, inputs=()) as run:
        run.finish({})
    return folder


@pytest.fixture
def project(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the good folder, and the place where the user stands."""
    folder = tmp_path / "project"
    shutil.copytree(good, folder)
    monkeypatch.chdir(folder)
    return folder


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size if path.is_file() else 0, path.lstat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def refused(arguments: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command is refused."""
    before = tree(folder)
    code = main.run(shlex.split(arguments))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("error: "), err
    assert "Traceback" not in err
    assert tree(folder) == before
    return err


# Ways to spoil a good folder ------------------------------------------------------------------------------------------


def nothing(folder: Path) -> None:
    """The input is good; the command is not."""


def without(label: str, table: str = "particles.star") -> Spoil:
    return lambda folder: _edit(folder / table, lambda block: block.without([label]))


def holding(label: str, row: int, text: str, table: str = "particles.star") -> Spoil:
    """One value of a STAR file replaced: the particle's, or that of the optics group where only this has one."""

    def changed(block: StarBlock) -> StarBlock:
        if label not in block or (block.name == "optics" and label == "rlnOpticsGroup"):
            return block
        tokens = [bytes(token).decode() for token in block.columns[label]]
        tokens[row] = text
        return block.with_columns(**{label: text_tokens(tokens)})

    return lambda folder: _edit(folder / table, changed)


def added(label: str, text: str) -> Spoil:
    """A column of one value added to the particles."""

    def changed(block: StarBlock) -> StarBlock:
        return block if block.name == "optics" else block.with_columns(**{label: text_tokens([text] * len(block))})

    return lambda folder: _edit(folder / "particles.star", changed)


def first(rows: int, table: str = "particles.star") -> Spoil:
    def changed(block: StarBlock) -> StarBlock:
        return block if block.name == "optics" else block[np.arange(rows)]

    return lambda folder: _edit(folder / table, changed)


def _edit(path: Path, change: Callable[[StarBlock], StarBlock]) -> None:
    write_star(path, [change(block) for block in read_star(path)])


def text(name: str, old: str, new: str, count: int = 1) -> Spoil:
    """A piece of a text file replaced."""

    def spoil(folder: Path) -> None:
        content = (folder / name).read_text()
        assert old in content
        (folder / name).write_text(content.replace(old, new, count))

    return spoil


def written(name: str, content: bytes | str) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str, length: int) -> Spoil:
    """A file that ends early."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def header(name: str, offset: int, value: int) -> Spoil:
    """One word of an MRC header replaced."""

    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[offset : offset + 4] = value.to_bytes(4, "little", signed=True)
        (folder / name).write_bytes(content)

    return spoil


def pixels(section: int, value: float, name: str = "particles.mrcs") -> Spoil:
    """An image of the stack, or a section of a map, filled with one value."""

    def spoil(folder: Path) -> None:
        np.memmap(folder / name, np.float32, "r+", 1024).reshape(-1, BOX, BOX)[section] = value

    return spoil


def records(change: Callable[[np.ndarray], np.ndarray], name: str = "particles.cs") -> Spoil:
    """The records of a .cs file changed."""

    def spoil(folder: Path) -> None:
        data = change(np.load(folder / name))
        with (folder / name).open("wb") as stream:
            np.save(stream, data, allow_pickle=False)

    return spoil


def field(name: str, value: float, table: str = "particles.cs") -> Spoil:
    def change(data: np.ndarray) -> np.ndarray:
        data[name][4] = value
        return data

    return records(change, table)


def typed(name: str, kind: object, table: str = "particles.cs") -> Spoil:
    """A field of the .cs file that holds another kind of value."""

    def change(data: np.ndarray) -> np.ndarray:
        result = np.zeros(
            len(data), [(known, kind if known == name else data.dtype[known]) for known in data.dtype.names]
        )
        for known in set(data.dtype.names) - {name}:
            result[known] = data[known]
        return result

    return records(change, table)


def less(*names: str) -> Spoil:
    def change(data: np.ndarray) -> np.ndarray:
        kept = [(name, data.dtype[name]) for name in data.dtype.names if name not in names]
        result = np.empty(len(data), kept)
        for name, _ in kept:
            result[name] = data[name]
        return result

    return records(change)


def two_boxes(folder: Path) -> None:
    write_stack(folder / "small.mrcs", [torch.randn(4, 8, 8)], count=4, box=8, pixel_size=PIXEL_SIZE)
    holding("rlnImageName", 9, "2@small.mrcs")(folder)


def oblong(folder: Path) -> None:
    header("particles.mrcs", 4, BOX // 2)(folder)


def folder_at(name: str) -> Spoil:
    return lambda folder: (folder / name).mkdir()


def loop_to_itself(folder: Path) -> None:
    (folder / "loop.star").symlink_to("loop.star")


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch exploded",)


def pickled(folder: Path) -> None:
    (folder / "bomb.cs").write_bytes(pickle.dumps(Bomb()))


def objects(folder: Path) -> None:
    table = np.empty(3, dtype=[("uid", "u8"), ("blob/path", object)])
    table["blob/path"] = [Bomb()] * 3
    with (folder / "bomb.cs").open("wb") as stream:
        np.save(stream, table, allow_pickle=True)


def gzipped(name: str, new: str) -> Spoil:
    return lambda folder: (folder / new).write_bytes(gzip.compress((folder / name).read_bytes()))


def unposed_run(folder: Path) -> None:
    shutil.copy(folder / "particles.star", folder / "run")


def others_truth(folder: Path) -> None:
    text("truth.star", "particles.mrcs", "elsewhere.mrcs", -1)(folder)
    shutil.copy(folder / "truth.cs", folder / "posed.cs")


class Case(NamedTuple):
    """What is done to a good folder, the command, and what its refusal must say (a regular expression)."""

    spoil: Spoil
    command: str
    said: str


CTF = ("rlnVoltage", "rlnSphericalAberration", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
ABINIT = "abinit particles.star -o out"
REFINE = "refine truth.star --map map.mrc -o out"
MAKE = "simulate builtin -o out --n 2 --box 32"

TABLES = {
    "no such file": Case(nothing, "abinit absent.star -o out", r"absent\.star: no such file"),
    "a folder": Case(folder_at("x.star"), "abinit x.star -o out", r"x\.star: is a folder; a file is needed"),
    "a link to itself": Case(loop_to_itself, "abinit loop.star -o out", r"loop\.star: "),
    "unknown ending": Case(written("p.xlsx", b"PK"), "abinit p.xlsx -o out", r"p\.xlsx: unknown kind of particle file"),
    "empty file": Case(written("particles.star", ""), ABINIT, r"particles\.star: no data_ block"),
    "prose": Case(written("particles.star", "Dear diary,\n"), ABINIT, r"line 1: 'Dear diary,' stands outside a data_"),
    "a stack named star": Case(
        lambda f: shutil.copy(f / "particles.mrcs", f / "particles.star"), ABINIT, r"not a STAR file: it holds binary"
    ),
    "utf-16": Case(written("particles.star", "data_\n".encode("utf-16")), ABINIT, r"particles\.star: not a STAR file"),
    "gzipped": Case(gzipped("particles.star", "p.star.gz"), "info p.star.gz", r"p\.star\.gz: "),
    "gzipped, named star": Case(gzipped("particles.star", "p.star"), "info p.star", r"p\.star: not a STAR file"),
    "no rows": Case(first(0), ABINIT, r"data_particles holds no particles"),
    "cut in a row": Case(cut("particles.star", 3000), ABINIT, r"row \d+ \(line \d+\) has \d+ fields, the table has 8"),
    "a field too many": Case(
        text("particles.star", "\n000005@", "\nstray 000005@"), ABINIT, r"row 5 \(line \d+\) has 9 fields"
    ),
    "optics only": Case(
        lambda f: write_star(f / "particles.star", read_star(f / "particles.star")[:1]),
        ABINIT,
        r"no particle table \(a loop_ with column rlnImageName\); it holds data_optics",
    ),
    "no image names": Case(without("rlnImageName"), ABINIT, r"no particle table .*rlnImageName"),
    "no voltage": Case(without("rlnVoltage"), ABINIT, r"column rlnVoltage is missing"),
    "no Cs": Case(without("rlnSphericalAberration"), ABINIT, r"column rlnSphericalAberration is missing"),
    "no defocus": Case(without("rlnDefocusU"), ABINIT, r"column rlnDefocusU is missing"),
    "no astigmatism angle": Case(without("rlnDefocusAngle"), ABINIT, r"column rlnDefocusAngle is missing"),
    "a column twice": Case(
        text("particles.star", "_rlnDefocusV", "_rlnDefocusU"), ABINIT, r"column rlnDefocusU occurs twice"
    ),
    "a block twice": Case(
        text("particles.star", "data_optics", "data_particles"), ABINIT, r"block data_particles occurs twice"
    ),
    "no such optics group": Case(
        holding("rlnOpticsGroup", -1, "3"), ABINIT, r"row 60: optics group 3 is not in data_optics, which has 1"
    ),
    "image 0": Case(
        holding("rlnImageName", 3, "0@particles.mrcs"),
        ABINIT,
        r"row 4: image 0 of particles\.mrcs: images count from 1",
    ),
    "image beyond the stack": Case(
        holding("rlnImageName", 3, "61@particles.mrcs"),
        ABINIT,
        r"row 4 asks for image 61 of particles\.mrcs, which holds 60",
    ),
    "an image number in words": Case(
        holding("rlnImageName", 3, "x@particles.mrcs"), ABINIT, r"row 4, column rlnImageName: 'x@.*' is not 'number@"
    ),
    "no image number": Case(
        holding("rlnImageName", 3, "particles.mrcs"), ABINIT, r"row 4: particles\.mrcs holds 60 sections"
    ),
    "no such stack": Case(
        holding("rlnImageName", 3, "1@lost.mrcs"),
        ABINIT,
        r"row 4: image file lost\.mrcs not found \(1 of 2 files are missing\); tried .*--root",
    ),
    "a word for a number": Case(
        holding("rlnDefocusU", 6, "deep"), ABINIT, r"row 7, column rlnDefocusU: 'deep' is not a number"
    ),
    "NaN defocus": Case(holding("rlnDefocusV", 6, "nan"), ABINIT, r"row 7, column rlnDefocusV: .*nan"),
    "infinite angle": Case(
        holding("rlnAngleTilt", 6, "inf", "truth.star"), "convert truth.star t.cs", r"row 7, column rlnAngleTilt: .*inf"
    ),
    "NaN origin": Case(
        holding("rlnOriginXAngst", 6, "nan", "truth.star"), "convert truth.star t.cs", r"row 7, column rlnOriginXAngst"
    ),
    "half 3": Case(added("rlnRandomSubset", "3"), ABINIT, r"row 1: rlnRandomSubset is 3; 1 or 2 is expected"),
    "class 1.5": Case(added("rlnClassNumber", "1.5"), ABINIT, r"row 1: rlnClassNumber is 1\.5; a whole number"),
    "an endless class": Case(
        added("rlnClassNumber", "1e20"), ABINIT, r"row 1: rlnClassNumber is 1e\+20; a whole number"
    ),
    "an endless image number": Case(
        holding("rlnImageName", 3, f"{10**20}@particles.mrcs"),
        ABINIT,
        r"row 4, column rlnImageName: .* is not 'number@",
    ),
    "phase-flipped": Case(added("rlnCtfDataArePhaseFlipped", "1"), ABINIT, r"images are phase-flipped"),
    "subtomograms": Case(holding("rlnImageDimensionality", 0, "3"), ABINIT, r"holds subtomograms"),
    "pixel size 0": Case(
        holding("rlnImagePixelSize", 0, "0"), ABINIT, r"row 1: pixel size 0 is impossible; expected Å"
    ),
    "pixel size 0 without a CTF": Case(
        lambda f: [*(without(label)(f) for label in CTF), holding("rlnImagePixelSize", 0, "0")(f)],
        "info particles.star",
        r"row 1: pixel size 0 is impossible",
    ),
    "pixel size below 0": Case(holding("rlnImagePixelSize", 0, "-8"), ABINIT, r"pixel size -8 is impossible"),
    "pixel size in m": Case(holding("rlnImagePixelSize", 0, "8e-10"), ABINIT, r"pixel size 8e-10 is impossible"),
    "voltage 0": Case(holding("rlnVoltage", 0, "0"), ABINIT, r"row 1: voltage 0 is impossible; expected kV"),
    "voltage in V": Case(holding("rlnVoltage", 0, "300000"), ABINIT, r"voltage 300000 is impossible; expected kV"),
    "defocus in µm": Case(
        lambda f: [added("rlnDefocusU", "1.5")(f), added("rlnDefocusV", "1.4")(f)],
        ABINIT,
        r"defocus is expected in Å and looks like µm: multiply it by 10000",
    ),
    "amplitude contrast in %": Case(
        holding("rlnAmplitudeContrast", 0, "10"), ABINIT, r"row 1: amplitude contrast 10 is impossible"
    ),
    "another box than the stack": Case(
        holding("rlnImageSize", 0, "32"), ABINIT, r"states images of 32 pixels, but particles\.mrcs has 16"
    ),
    "too few particles": Case(first(3), ABINIT, r"3 particles are too few for a reconstruction"),
    "no pixel size": Case(
        lambda f: [without("rlnImagePixelSize")(f), header("particles.mrcs", 40, 0)(f)],
        ABINIT,
        r"no pixel size, neither in a table nor in the stack's header",
    ),
    "an empty list": Case(written("s.txt", "\n# none\n"), "abinit s.txt -o out", r"s\.txt: lists no stacks"),
    "a list with a missing stack": Case(
        written("s.txt", "particles.mrcs\nlost.mrcs\n"), "abinit s.txt -o out", r"s\.txt: row 2: image file lost\.mrcs"
    ),
    "a stack named txt": Case(
        lambda f: shutil.copy(f / "particles.mrcs", f / "s.txt"), "abinit s.txt -o out", r"s\.txt: "
    ),
    "a pickle": Case(pickled, "abinit bomb.cs -o out", r"bomb\.cs: not a cryoSPARC \.cs file"),
    "pickled objects": Case(objects, "abinit bomb.cs -o out", r"bomb\.cs: a damaged or truncated \.cs file: Object"),
    "a cut .cs": Case(
        cut("particles.cs", 1500), "abinit particles.cs -o out", r"particles\.cs: a damaged or truncated"
    ),
    "an array named cs": Case(
        records(lambda data: np.zeros((4, 3))), "abinit particles.cs -o out", r"without named fields"
    ),
    "no rows in .cs": Case(records(lambda data: data[:0]), "info particles.cs", r"holds no particles \(0 rows\)"),
    "no image fields in .cs": Case(less("blob/path"), "abinit particles.cs -o out", r"field blob/path is missing"),
    "no voltage in .cs": Case(less("ctf/accel_kv"), "abinit particles.cs -o out", r"field ctf/accel_kv is missing"),
    "NaN in .cs": Case(
        field("ctf/df1_A", np.nan), "abinit particles.cs -o out", r"row 5: field ctf/df1_A is not a fin"
    ),
    "words for numbers in .cs": Case(
        typed("ctf/df1_A", "S8"), "info particles.cs", r"field ctf/df1_A is of type \|S8 and shape \(\); one number a"
    ),
    "a pose of two numbers in .cs": Case(
        typed("alignments3D/pose", ("<f4", (2,)), "truth.cs"),
        "convert truth.cs t.star",
        r"truth\.cs: field alignments3D/pose is of type float32 and shape \(2,\); 3 numbers a particle expected",
    ),
    "half 5 in .cs": Case(
        field("alignments3D/split", 5, "truth.cs"),
        "info truth.cs",
        r"row 5: alignments3D/split is 5; 0 or 1 is expected",
    ),
    "pixel size 0 in .cs": Case(
        field("blob/psize_A", 0), "abinit particles.cs -o out", r"row 5: pixel size 0 is impossible"
    ),
    "no such passthrough": Case(
        nothing, "convert particles.cs p.star --passthrough lost.cs", r"lost\.cs: no such file"
    ),
    "a passthrough of others": Case(
        lambda f: records(lambda data: data[:9], "truth.cs")(f),
        "convert particles.cs p.star --passthrough truth.cs",
        r"truth\.cs: lacks some particles \(uid\) of particles\.cs",
    ),
}

STACKS = {
    "truncated": Case(cut("particles.mrcs", 20000), ABINIT, r"particles\.mrcs: truncated: 60 sections of 16 x 16 need"),
    "no header": Case(cut("particles.mrcs", 500), ABINIT, r"particles\.mrcs: not an MRC file: 500 bytes"),
    "zero bytes": Case(cut("particles.mrcs", 0), ABINIT, r"particles\.mrcs: not an MRC file: 0 bytes"),
    "noise": Case(written("particles.mrcs", os.urandom(4096)), ABINIT, r"particles\.mrcs: not a"),
    "a header of fewer": Case(header("particles.mrcs", 8, 12), ABINIT, r"row 13 asks for image 13 of .* holds 12"),
    "a header of more": Case(header("particles.mrcs", 8, 99), ABINIT, r"truncated: 99 sections"),
    "size 0": Case(header("particles.mrcs", 0, 0), ABINIT, r"particles\.mrcs: .*impossible size"),
    "mode 4": Case(header("particles.mrcs", 12, 4), ABINIT, r"particles\.mrcs: MRC mode 4 holds no plain images"),
    "mode 77": Case(header("particles.mrcs", 12, 77), ABINIT, r"particles\.mrcs: not a readable MRC file: .*77"),
    "a long extension": Case(
        header("particles.mrcs", 92, 2**30 - 1), ABINIT, r"announces 1073741823 more bytes of header"
    ),
    "not square": Case(oblong, ABINIT, r"particles\.mrcs: images of 16 x 8 pixels; square ones are needed"),
    "two boxes": Case(two_boxes, ABINIT, r"small\.mrcs: box 8, but particles\.mrcs has box 16; bring all"),
    "gzipped": Case(
        lambda f: [
            gzipped("particles.mrcs", "p.mrcs.gz")(f),
            text("particles.star", "particles.mrcs", "p.mrcs.gz", -1)(f),
        ],
        ABINIT,
        r"p\.mrcs\.gz: .*(compressed|gunzip)",
    ),
    "gzipped by mistake": Case(
        lambda f: (f / "particles.mrcs").write_bytes(gzip.compress((f / "particles.mrcs").read_bytes())),
        ABINIT,
        r"particles\.mrcs: .*(gzip|not an? )",
    ),
    "a NaN image": Case(
        pixels(7, np.nan), ABINIT, r"row 8: image 8 of particles\.mrcs has pixels that are not numbers \(NaN or inf"
    ),
    "an infinite image": Case(
        pixels(7, np.inf), ABINIT, r"row 8: image 8 of particles\.mrcs has pixels that are not num"
    ),
    "constant images": Case(
        lambda f: [pixels(7, 1.5)(f), pixels(9, 0)(f)],
        ABINIT,
        r"row 8: image 8 of particles\.mrcs is blank, as do 1 more|row 8: image 8 .* is blank",
    ),
    "only constant images": Case(
        lambda f: [pixels(i, 0)(f) for i in range(COUNT)], ABINIT, r"row 1: image 1 of particles\.mrcs is blank"
    ),
    "a map as a stack": Case(nothing, "abinit map.mrc -o out", r"16 particles are too few"),
}

MAPS = {
    "fsc of two boxes": Case(nothing, "fsc map.mrc large.mrc -o f.csv", r"boxes 16 and 20; resample one"),
    "fsc of two voxel sizes": Case(nothing, "fsc map.mrc coarse.mrc -o f.csv", r"voxel sizes 8 and 16"),
    "fsc under a mask of another box": Case(
        nothing, "fsc map.mrc map.mrc --mask large.mrc -o f.csv", r"boxes 16 and 20"
    ),
    "fsc of a slab": Case(nothing, "fsc slab.mrc slab.mrc", r"a cubic map is needed, this one is \(8, 16, 16\)"),
    "fsc of NaN": Case(nothing, "fsc nan.mrc map.mrc -o f.csv", r"nan\.mrc: .*(NaN|not finite)"),
    "fsc of a table": Case(nothing, "fsc particles.star map.mrc", r"particles\.star: not a"),
    "fsc of a cut map": Case(cut("map.mrc", 9000), "fsc map.mrc large.mrc", r"map\.mrc: truncated"),
    "fsc over another file": Case(
        written("f.csv", "mine"), "fsc map.mrc map.mrc -o f.csv", r"f\.csv: exists; give --for"
    ),
    "mask of a flat map": Case(nothing, "mask flat.mrc -o m.mrc", r"map is constant"),
    "mask of a slab": Case(nothing, "mask slab.mrc -o m.mrc", r"a cubic map is needed"),
    "mask of NaN": Case(nothing, "mask nan.mrc -o m.mrc", r"nan\.mrc: .*(NaN|not finite)"),
    "mask at an absurd threshold": Case(
        nothing, "mask map.mrc -o m.mrc --threshold 1e9", r"no voxel lies above the threshold 1e\+09"
    ),
    "mask over the map": Case(nothing, "mask map.mrc -o map.mrc", r"map\.mrc: exists"),
    "mask with a negative edge": Case(nothing, "mask map.mrc -o m.mrc --edge -1", r"'--edge'"),
    "mask with an infinite edge": Case(nothing, "mask map.mrc -o m.mrc --edge inf", r"by 0 voxels or more, not inf"),
    "mask with a NaN radius": Case(nothing, "mask map.mrc -o m.mrc --radius nan", r"--radius"),
    "mask with a NaN threshold": Case(nothing, "mask map.mrc -o m.mrc --threshold nan", r"threshold"),
    "mask into no folder": Case(
        nothing, "mask map.mrc -o no/such/m.mrc", r"no/such/m\.mrc: cannot be written: there is no folder no/such"
    ),
    "flip of nothing": Case(nothing, "flip absent.mrc -o out", r"absent\.mrc: no such file or folder"),
    "flip of a folder without maps": Case(nothing, "flip stranger -o out", r"stranger: holds no map"),
    "flip with a table of no poses": Case(
        nothing, "flip map.mrc --particles particles.star -o out", r"particles\.star: has no poses to mirror"
    ),
    "flip over a map": Case(nothing, "flip map.mrc -o flat.mrc", r"flat\.mrc: exists"),
    "downsample to a larger box": Case(
        nothing, "downsample particles.star -o s.star --box 32", r"box 32 is not smaller than 16"
    ),
    "downsample a map to the same box": Case(
        nothing, "downsample map.mrc -o s.mrc --box 16", r"is not smaller than 16"
    ),
    "downsample to box 0": Case(nothing, "downsample particles.star -o s.star --box 0", r"'--box'"),
    "downsample a slab": Case(
        lambda f: shutil.move(f / "slab.mrc", f / "slab.map"), "downsample slab.map -o s.mrc --box 4", r"a cubic map"
    ),
    "downsample a stack to a map": Case(
        nothing, "downsample particles.star -o s.map --box 8", r"s\.map: .*should end in \.mrcs, \.star or \.cs"
    ),
    "downsample onto the source": Case(
        nothing, "downsample particles.star -o particles.mrcs --box 8 --force", r"is one of the stacks being read"
    ),
}

REFINEMENTS = {
    "no such map": Case(nothing, "refine truth.star --map lost.mrc -o out", r"lost\.mrc: no such file"),
    "no map": Case(nothing, "refine truth.star -o out", r"Missing option '--map'"),
    "a table for a map": Case(nothing, "refine truth.star --map truth.star -o out", r"truth\.star: not a"),
    "a cut map": Case(cut("map.mrc", 9000), REFINE, r"map\.mrc: truncated"),
    "a NaN map": Case(nothing, "refine truth.star --map nan.mrc -o out", r"nan\.mrc: .*(NaN|not numbers)"),
    "a flat map": Case(nothing, "refine truth.star --map flat.mrc -o out", r"flat\.mrc: the map is constant"),
    "a slab for a map": Case(nothing, "refine truth.star --map slab.mrc -o out", r"slab\.mrc: a cubic map is needed"),
    "a map without a voxel size": Case(
        lambda f: [header("map.mrc", place, 0)(f) for place in (40, 44, 48)],
        REFINE,
        r"map\.mrc: its header has no voxel size",
    ),
    "a map of something smaller": Case(
        lambda f: write_map(f / "small.mrc", Volume(torch.randn(BOX, BOX, BOX), 1.0)),
        "refine truth.star --map small.mrc -o out",
        r"small\.mrc: the map is 16 Å wide .* the images 128 Å",
    ),
    "a mask of another box": Case(
        nothing, f"{REFINE} --mask large.mrc", r"large\.mrc: the mask has 20 x 20 x 20 voxels of 8 Å, the images 16"
    ),
    "a map for a mask": Case(
        lambda f: write_map(f / "mask.mrc", Volume(3 * torch.rand(BOX, BOX, BOX), PIXEL_SIZE)),
        f"{REFINE} --mask mask.mrc",
        r"mask\.mrc: a mask has values from 0 to 1",
    ),
    "no such mask": Case(nothing, f"{REFINE} --mask lost.mrc", r"lost\.mrc: no such file"),
    "a local search without poses": Case(
        nothing,
        "refine particles.star --map map.mrc -o out --search local",
        r"--search local: these particles have no poses",
    ),
    "a shift out of the image": Case(
        holding("rlnOriginXAngst", 6, "90", "truth.star"),
        REFINE,
        r"truth\.star: row 7: a shift of 90 Å leaves the image of 128 Å",
    ),
    "a NaN image": Case(pixels(7, np.nan), REFINE, r"row 8: image 8 of particles\.mrcs has pixels that are not num"),
    "too few particles": Case(first(3, "truth.star"), REFINE, r"3 particles are too few"),
    "a low-pass of 0": Case(nothing, f"{REFINE} --low-pass 0", r"--low-pass 0"),
    "an endless low-pass": Case(nothing, f"{REFINE} --low-pass inf", r"--low-pass inf"),
    "a NaN B factor": Case(nothing, f"{REFINE} --b-factor nan", r"--b-factor nan"),
    "an unknown search": Case(nothing, f"{REFINE} --search far", r"'--search': .*'far' is not one of"),
    "defocus of whom": Case(nothing, f"{REFINE} --defocus all", r"'--defocus': .*'all' is not one of"),
    "an unknown symmetry": Case(nothing, f"{REFINE} --symmetry Q7", r"symmetry 'Q7': no such point group"),
    "another run's folder": Case(
        nothing, "refine truth.star --map map.mrc -o run", r"run: holds another run \(it is of 'hoarfrost abinit'"
    ),
    "a stranger's folder": Case(
        nothing, "refine truth.star --map map.mrc -o stranger", r"stranger: is not empty and holds no hoarfrost run"
    ),
}

OPTIONS = {
    "unknown verb": Case(nothing, "abint particles.star", r"there is no verb 'abint'; did you mean 'abinit'\?"),
    "misspelt option": Case(nothing, f"{ABINIT} --symetry C3", r"[Nn]o such option: --symetry"),
    "no output": Case(nothing, "abinit particles.star", r"Missing option '--output'"),
    "a reconstruction without poses": Case(
        nothing,
        "reconstruct particles.star -o out",
        r"particles\.star: has no poses; find them with 'hoarfrost abinit'",
    ),
    "a pose that is no number": Case(
        holding("rlnAngleTilt", 4, "nan", "truth.star"),
        "reconstruct truth.star -o out",
        r"row 5, column rlnAngleTilt: nan",
    ),
    "a shift out of the image": Case(
        holding("rlnOriginXAngst", 6, "400", "truth.star"),
        "reconstruct truth.star -o out",
        r"truth\.star: row 7: a shift of 400 Å leaves the image of 128 Å",
    ),
    "a mask of another box": Case(
        nothing, "reconstruct truth.star -o out --mask large.mrc", r"large\.mrc: the mask has 20 x 20 x 20 voxels"
    ),
    "a method that there is not": Case(
        nothing, "reconstruct truth.star -o out --method magic", r"'magic' is not one of"
    ),
    "no epoch": Case(nothing, "reconstruct truth.star -o out --epochs 0", r"'--epochs': "),
    "unknown preset": Case(nothing, f"{ABINIT} --preset quick", r"'--preset': .*'quick' is not one of"),
    "unknown symmetry": Case(nothing, f"{ABINIT} --symmetry Q7", r"symmetry 'Q7': no such point group"),
    "symmetry C0": Case(nothing, f"{ABINIT} --symmetry C0", r"symmetry 'C0': no such point group"),
    "no symmetry": Case(nothing, f"{ABINIT} --symmetry ''", r"symmetry ''"),
    "negative diameter": Case(nothing, f"{ABINIT} --diameter -5", r"--diameter -5"),
    "NaN diameter": Case(nothing, f"{ABINIT} --diameter nan", r"--diameter nan"),
    "diameter beyond the box": Case(nothing, f"{ABINIT} --diameter 500", r"diameter of 500 Å is larger than the box"),
    "resolution beyond Nyquist": Case(
        nothing, f"{ABINIT} --max-resolution 3", r"highest resolution of 3 Å is out of reach: .* from 21\.3 to 16 Å"
    ),
    "resolution beyond the box": Case(
        nothing, f"{ABINIT} --max-resolution 300", r"highest resolution of 300 Å is out of reach"
    ),
    "resolution 0": Case(nothing, f"{ABINIT} --max-resolution 0", r"--max-resolution 0"),
    "NaN resolution": Case(nothing, f"{ABINIT} --max-resolution nan", r"--max-resolution nan"),
    "no threads": Case(nothing, f"{ABINIT} --threads 0", r"'--threads'"),
    "a seed in words": Case(nothing, f"{ABINIT} --seed one", r"'--seed': .*valid integer"),
    "an enormous seed": Case(nothing, f"{ABINIT} --seed 99999999999999999999999", r"--seed"),
    "a negative seed": Case(nothing, f"{ABINIT} --seed -1", r"--seed"),
    "a stranger's folder": Case(
        nothing, "abinit particles.star -o stranger", r"stranger: is not empty and holds no hoa"
    ),
    "a stranger's folder, forced": Case(
        nothing, "abinit particles.star -o stranger --force", r"stranger: is not empty and holds no hoarfrost run"
    ),
    "a file for a folder": Case(nothing, "abinit particles.star -o map.mrc", r"map\.mrc: is a file"),
    "a folder below a file": Case(
        nothing, "abinit particles.star -o map.mrc/out", r"map\.mrc: cannot be made: File exists"
    ),
    "a place that cannot be written": Case(nothing, "abinit particles.star -o /proc/out", r"/proc/out: cannot be made"),
    "a run of other settings": Case(
        nothing, "abinit particles.star -o run", r"run: holds another run \(.*; use --force to replace it, or another"
    ),
    "a run of another program": Case(
        written("run/run.json", '{"job": "Refine3D"}'),
        "abinit particles.star -o run",
        r"not the record of a hoarfrost r",
    ),
    "a cut record": Case(cut("run/run.json", 60), "abinit particles.star -o run", r"not the record of a hoarfrost run"),
    "convert to a spreadsheet": Case(
        nothing, "convert particles.star p.xlsx", r"p\.xlsx: particles are written as \.star or \.cs"
    ),
    "convert over a table": Case(nothing, "convert particles.star truth.star", r"truth\.star: exists; give --force"),
    "convert onto a folder": Case(
        nothing, "convert particles.star stranger --force", r"stranger: is a folder; give the"
    ),
    "convert into no folder": Case(
        nothing, "convert particles.star no/p.cs", r"no/p\.cs: cannot be written: there is no folder no;"
    ),
    "convert below a file": Case(
        nothing, "convert particles.star map.mrc/p.cs", r"map\.mrc/p\.cs: cannot be written: map\.mrc is a file"
    ),
    "evaluate nothing": Case(
        nothing, "evaluate stranger --truth truth.star", r"stranger: holds neither particles\.star"
    ),
    "evaluate without poses": Case(
        unposed_run, "evaluate run --truth truth.star", r"run/particles\.star: the result has no poses"
    ),
    "evaluate against no poses": Case(
        nothing, "evaluate truth.star --truth particles.star -o s.json", r"particles\.star: the truth has no poses"
    ),
    "evaluate another stack": Case(
        others_truth, "evaluate posed.cs --truth truth.star -o s.json", r"posed\.cs: no image is found in truth\.star"
    ),
    "evaluate without a truth": Case(nothing, "evaluate truth.star", r"Missing option '--truth'"),
    "evaluate over another file": Case(
        nothing, "evaluate truth.star --truth truth.star -o map.mrc", r"map\.mrc: exists; give --force"
    ),
    "evaluate in an unknown symmetry": Case(
        nothing, "evaluate truth.star --truth truth.star --symmetry X", r"symmetry 'X'"
    ),
    "evaluate into no folder": Case(
        nothing,
        "evaluate truth.star --truth truth.star -o no/s.json",
        r"no/s\.json: cannot be written: there is no folder no",
    ),
    "info of a missing file": Case(nothing, "info absent.mrc", r"absent\.mrc: no such file"),
    "info of a picture": Case(written("p.png", b"\x89PNG" * 600), "info p.png", r"p\.png: not a"),
    "cite nobody": Case(nothing, "cite nobody", r"nobody: neither the folder of a run nor one of"),
    "cite a stranger": Case(nothing, "cite stranger", r"stranger: not the folder of a hoarfrost run"),
    "simulate a missing model": Case(nothing, "simulate absent.cif -o out", r"absent\.cif: no such file"),
    "simulate prose": Case(written("x.pdb", "Dear diary\n"), "simulate x.pdb -o out", r"x\.pdb: holds no atoms"),
    "simulate a table": Case(nothing, "simulate particles.star -o out", r"particles\.star: not a"),
    "simulate from a NaN map": Case(nothing, "simulate nan.mrc -o out --n 2 --box 16", r"nan\.mrc: .*(NaN|not finite)"),
    "simulate no images": Case(nothing, "simulate builtin -o out --n 0", r"'--n'"),
    "simulate in too small a box": Case(nothing, f"{MAKE} --apix 1", r"reaches .* take a larger --box or --apix"),
    "simulate at NaN Å": Case(nothing, f"{MAKE} --apix nan", r"--apix"),
    "simulate at SNR 0": Case(nothing, f"{MAKE} --snr 0", r"ratio of 0 is impossible"),
    "simulate at SNR NaN": Case(nothing, f"{MAKE} --snr nan", r"ratio of nan is impossible"),
    "simulate at 0 kV": Case(nothing, f"{MAKE} --voltage 0", r"voltage 0 is impossible"),
    "simulate at NaN kV": Case(nothing, f"{MAKE} --voltage nan", r"voltage nan is impossible"),
    "simulate infinite shifts": Case(nothing, f"{MAKE} --shift inf", r"largest shift of inf is impossible"),
    "simulate at one defocus": Case(nothing, f"{MAKE} --defocus 9000", r"'--defocus'"),
    "simulate at NaN defocus": Case(nothing, f"{MAKE} --defocus nan nan", r"defocus of nan is impossible"),
    "simulate at a NaN B factor": Case(
        nothing, f"{MAKE} --b-factor nan", r"--b-factor|a B factor of nan is impossible"
    ),
    "simulate tilts in disorder": Case(nothing, f"{MAKE} --tilt 90 10", r"tilts lie between 0 and 180"),
    "simulate more than junk": Case(nothing, f"{MAKE} --junk 1", r"junk fraction of 1 is impossible"),
    "simulate by words": Case(nothing, f"{MAKE} --weights often", r"--weights often: numbers separated by commas"),
    "simulate over a truth": Case(nothing, "simulate builtin -o . --n 2 --box 32", r"exists; give --force"),
    "simulate into a file": Case(
        nothing, "simulate builtin -o map.mrc/out --n 2 --box 32", r"map\.mrc: cannot be made: File exists"
    ),
    "demo in a stranger's folder": Case(nothing, "demo -o stranger", r"stranger: is not empty and holds no hoarfrost"),
    "demo of ten": Case(nothing, "demo -o out --particles 10", r"'--particles'"),
}

CASES = {
    f"{title}: {name}": case
    for title, group in (
        ("table", TABLES),
        ("stack", STACKS),
        ("map", MAPS),
        ("refinement", REFINEMENTS),
        ("option", OPTIONS),
    )
    for name, case in group.items()
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_input_is_refused_in_one_line_and_nothing_is_touched(
    case: Case, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.spoil(project)
    said = refused(case.command, project, capsys)
    assert re.search(case.said, said), said


# What the disk and its permissions do -------------------------------------------------------------------------------

HEAD = [sys.executable, "-c", "from hoarfrost.cli.main import main; main()"]


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """As on a full disk: writing beyond ``size`` bytes of any file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Permissions count for nothing with root, who becomes nobody for a while."""
    root = os.getuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.mark.parametrize(
    ("command", "room"),
    [
        ("simulate map.mrc -o out --n 60 --box 16 --apix 8", 20_000),
        ("simulate map.mrc -o deep/out --n 60 --box 16 --apix 8", 1_000),
        ("downsample particles.star -o small/s.star --box 8", 10_000),
        ("downsample truth.cs -o s.cs --box 4", 4_864),
        ("convert particles.star p.cs", 2_000),
        ("convert particles.cs p.star", 2_000),
        ("flip map.mrc --particles truth.star -o out", 17_000),
        ("mask map.mrc -o m.mrc", 5_000),
        ("fsc map.mrc map.mrc -o f.csv --plot f.png", 3_000),
        ("evaluate truth.star --truth truth.star -o s.json", 100),
        ("abinit particles.star -o out", 500),
        (REFINE, 500),
        ("demo -o deep/out", 500),
    ],
)
def test_a_full_disk_leaves_nothing_behind(
    command: str, room: int, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tree(project))
    with files_no_longer_than(room):
        code = main.run(shlex.split(command))
    err = capsys.readouterr().err
    assert code == 2, err
    assert re.fullmatch(
        r"error: \S+: cannot be written: (File too large|the disk may be full .*); choose another place for it\n", err
    )
    assert set(tree(project)) == before


def test_a_disk_too_small_for_the_run_is_refused_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = project / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        said = refused("abinit particles.star -o disk/out", project, capsys)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert re.search(r"transformed images need 18 kB on disk and 16 kB are free; choose another output folder", said)


@pytest.mark.parametrize("command", [ABINIT, REFINE])
def test_a_disk_that_fills_up_later_leaves_a_run_to_go_on_with(
    command: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_no_longer_than(12_000):
        assert main.run(shlex.split(command)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: out/cache/bands\.bin: .* needed for the transformed images \(File too large\)", last)
    assert json.loads((project / "out" / "run.json").read_text())["status"] == "failed"
    assert not (project / "out" / "cache" / "bands.bin").exists()


@pytest.fixture
def locked(good: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The good folder where anyone may look, with a folder that nobody may write and a table that nobody may read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        shutil.copytree(good, folder)
        shutil.copy(folder / "particles.star", folder / "secret.star")
        (folder / "locked").mkdir(0o555)
        for path, mode in ((Path(name), 0o755), (folder, 0o755), (folder / "secret.star", 0o000)):
            path.chmod(mode)
        monkeypatch.chdir(folder)
        yield folder
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("convert particles.star locked/p.cs", r"locked/p\.cs: cannot be written: no permission in locked"),
        ("mask map.mrc -o locked/m.mrc", r"locked/m\.mrc: cannot be written: no permission"),
        ("downsample map.mrc -o locked/m.mrc --box 8", r"locked/m\.mrc: cannot be written: Permission denied"),
        ("downsample map.mrc -o locked/deep/m.mrc --box 8", r"locked/deep: cannot be made: Permission denied"),
        ("flip map.mrc -o locked/m.mrc", r"locked/m\.mrc: cannot be written: Permission denied"),
        ("simulate map.mrc -o locked/out --n 2 --box 16", r"locked/out: cannot be made: Permission denied"),
        ("abinit particles.star -o locked/out", r"locked/out: cannot be made: Permission denied"),
        ("abinit particles.star -o locked", r"locked: cannot be written \(Permission denied\)"),
        ("refine truth.star --map map.mrc -o locked/out", r"locked/out: cannot be made: Permission denied"),
        ("refine particles.star --map secret.star -o out", r"secret\.star'? (cannot be read|is not readable)"),
        ("demo -o locked", r"locked: cannot be written \(Permission denied\)"),
        ("abinit secret.star -o out", r"secret\.star'? (cannot be read|is not readable)"),
        ("fsc map.mrc secret.star", r"secret\.star'? (cannot be read|is not readable)"),
    ],
)
def test_missing_permissions_are_named(
    command: str, said: str, locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What a verb needs of the installation is loaded before the privileges go.
    main.run([command.split()[0], "--help"])
    capsys.readouterr()
    before = tree(locked)
    with without_privileges():
        code = main.run(shlex.split(command))
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert re.fullmatch(rf"error: [^\n]*{said}[^\n]*\n", err), err
    assert tree(locked) == before


# The program as a process -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (first(3), "abinit particles.star -o out", "error: 3 particles are too few for a reconstruction"),
        # Its pixel size comes with a warning, which must not stand beside the refusal.
        (nothing, "abinit map.mrc -o out", "error: 16 particles are too few for a reconstruction"),
        (pickled, "abinit bomb.cs -o out", "error: bomb.cs: not a cryoSPARC .cs file"),
        (cut("particles.mrcs", 20000), "info particles.star", "error: particles.mrcs: truncated"),
        (nothing, "simulate nan.mrc -o out --n 2 --box 16", "error: nan.mrc: 256 of 4096 voxels are not numbers"),
    ],
)
def test_a_process_says_one_line_as_well(spoil: Spoil, arguments: str, said: str, project: Path) -> None:
    spoil(project)
    before = tree(project)
    done = subprocess.run([*HEAD, *shlex.split(arguments)], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert tree(project) == before


def test_warnings_are_said_where_nothing_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["convert", "particles.mrcs", "p.star"]) == 0
    out, err = capsys.readouterr()
    assert "60 particles without poses" in out
    assert err == "warning: particles.mrcs: the pixel size 8 Å is taken from the stack's header\n"


def test_no_help_or_refusal_of_a_verb_loads_more_than_it_needs() -> None:
    code = (
        "import sys; from hoarfrost.cli.main import run; codes = run(['--help']), run(['abint']), run(['--version']);"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'gemmi', 'starfile'} & set(sys.modules);"
        "sys.exit(f'{codes} {heavy}' if heavy or codes != (0, 2, 0) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_the_standard_library_at_most() -> None:
    code = (
        "import sys; before = set(sys.modules); import hoarfrost;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "sys.exit(str(new - {'hoarfrost'} - sys.stdlib_module_names) if new - {'hoarfrost'} - sys.stdlib_module_names else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
