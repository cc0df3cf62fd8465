"""The whole run on a small phantom: what it leaves, killed at random moments, stopped, refused."""

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from hoarfrost.kernels.library import library
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.runs.abinit import expected_seconds
from small_runs import BOX, COUNT, PIXEL_SIZE, assert_alike, command, killed_and_whole, run

WORK = """
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.runs.abinit import run_abinit

config = AbInitioConfig(starts=2, start_steps=4, start_batch=60, start_limit=8, levels=(8, 10), iterations=1, rivals=1)

def run(table, folder, console):
    run_abinit(table, folder, config, console=console)
"""


def digest(folder: Path, *names: str) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_a_run_killed_at_random_moments_leaves_what_an_uninterrupted_one_leaves(stack: Path, tmp_path: Path) -> None:
    killed, whole, kills = killed_and_whole(stack / "particles.star", tmp_path, WORK, seed=1)
    assert kills >= 2
    assert_alike(killed, whole, stack)
    record = json.loads((killed / "run.json").read_text())
    assert record["status"] == "finished"
    assert 1 < record["attempts"] <= kills + 1, "a kill before the record was written leaves no attempt"
    assert not (killed / "cache").exists()


@pytest.mark.slow
def test_what_a_run_leaves(stack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    asked = ("abinit", stack / "particles.star", "-o", folder)
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    assert "Å at FSC 0.143" in done.stdout
    assert "Reading and transforming images: done" in done.stderr
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "particles.star", "fsc.csv", "view.cxc",
        "report.html", "figures", "run.json", "events.jsonl", "log.txt",
    }  # fmt: skip
    assert read_map(folder / "map.mrc").voxel_size == pytest.approx(PIXEL_SIZE)
    posed = read_particles(folder / "particles.star", root=stack)
    assert posed.poses is not None
    assert posed.half is not None
    assert posed.half.unique().tolist() == [1, 2]
    record = json.loads((folder / "run.json").read_text())
    fsc = HalfMapFSC.read_csv(folder / "fsc.csv")
    assert record["results"]["resolution"] == pytest.approx(fsc.resolution(0.143), rel=1e-3)
    assert record["command"][:2] == ["hoarfrost", "abinit"]
    assert set(record["files"]) >= names - {"figures", "run.json"}
    assert sum(record["timings"].values()) <= record["seconds"]
    before = digest(folder, "map.mrc", "run.json", "report.html", "log.txt")
    again = run(*asked)
    assert again.returncode == 0
    assert "is finished" in again.stdout
    other = run(*asked, "--seed", "5")
    assert other.returncode == 2
    assert "holds another run (seed was 0, is now 5)" in other.stderr
    assert digest(folder, *before) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_which_then_says_how_to_go_on(
    stack: Path, tmp_path: Path, number: int, code: int
) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command("abinit", stack / "particles.star", "-o", folder), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while "start-1" not in ((folder / "events.jsonl").read_text() if (folder / "events.jsonl").exists() else ""):
        assert time.monotonic() < deadline, "the run began"
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.splitlines()[-1].startswith(f"{folder}: stopped, with everything saved; the same command goes on")
    assert "Traceback" not in said
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert (folder / "cache" / "checkpoint.safetensors").exists()


def test_the_forecast_grows_with_the_work() -> None:
    quick, careful = AbInitioConfig.from_preset("fast"), AbInitioConfig.from_preset("careful")
    if library() is not None:
        assert 15 < expected_seconds(AbInitioConfig(), 4000, 96, 2) < 60, "measured: about 27 s"
    assert expected_seconds(quick, 4000, 96, 2) < expected_seconds(careful, 4000, 96, 2)
    assert expected_seconds(quick, 4000, 96, 2) < expected_seconds(quick, 40000, 96, 2)
    assert expected_seconds(quick, 4000, 96, 8) < expected_seconds(quick, 4000, 96, 2)


def test_a_dry_run_writes_nothing(stack: Path, tmp_path: Path) -> None:
    done = run("abinit", stack / "particles.star", "-o", tmp_path / "run", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{COUNT} particles, box {BOX} at 6 Å: roughly \d+.* GB of memory.* [kMG]B of disk", done.stdout)
    assert not (tmp_path / "run").exists()
