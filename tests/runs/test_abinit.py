"""The whole run on a small phantom: what it leaves, killed at random moments, stopped, refused."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.data.simulate import Noise, simulate
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from hoarfrost.kernels.library import library
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.runs.abinit import expected_seconds
from phantoms import GaussianPhantom

BOX, PIXEL_SIZE, COUNT = 32, 6.0, 260

DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from rich.console import Console
from hoarfrost.reconstruct.settings import AbInitioConfig
from hoarfrost.runs.abinit import run_abinit

torch.set_num_threads(1)
table, killed, whole, seed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
config = AbInitioConfig(starts=2, start_steps=4, start_batch=60, start_limit=8, levels=(8, 10), iterations=1, rivals=1)

def work(folder):
    with open(os.devnull, "w") as nowhere:
        run_abinit(table, folder, config, console=Console(file=nowhere))

began = time.perf_counter()
work(whole)
length, kills = time.perf_counter() - began, 0
random.seed(seed)
while True:
    child = os.fork()
    if child == 0:
        work(killed)
        os._exit(0)
    if kills < 12:
        time.sleep(random.uniform(0.02, 0.4 * length))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        break
    kills += 1
print(kills)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blind stack of a small phantom."""
    generator = torch.Generator().manual_seed(4)
    density = GaussianPhantom.random(18, 50.0, generator, sigma=9.0).volume(BOX, PIXEL_SIZE)
    stack = simulate(
        density, count=COUNT, box=BOX, pixel_size=PIXEL_SIZE, noise=Noise(0.5), shift_px=1.5, generator=generator
    )
    return stack.write(tmp_path_factory.mktemp("stack"))


def digest(folder: Path, *names: str) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def command(table: Path, output: Path, *more: str) -> list[str]:
    code = "from hoarfrost.cli.main import main; main()"
    settings = ["--preset", "fast", "--threads", "1", "--max-resolution", "20"]
    return [sys.executable, "-c", code, "abinit", str(table), "-o", str(output), *settings, *more]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_a_run_killed_at_random_moments_leaves_what_an_uninterrupted_one_leaves(
    table: Path, tmp_path: Path, seed: int
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = subprocess.run(
        [sys.executable, str(script), str(table), str(killed), str(whole), str(seed)],
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    names = ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc")
    for name in names:
        first, second = read_map(killed / name), read_map(whole / name)
        assert torch.allclose(first.data, second.data, rtol=1e-4, atol=1e-5 * float(second.data.abs().max())), name
    first, second = (
        read_particles(killed / "particles.star", root=table.parent),
        read_particles(whole / "particles.star", root=table.parent),
    )
    assert first.poses is not None
    assert second.poses is not None
    assert torch.allclose(first.poses.rotations, second.poses.rotations, atol=1e-5)
    assert torch.allclose(first.poses.shifts, second.poses.shifts, atol=1e-4)
    record = json.loads((killed / "run.json").read_text())
    assert record["status"] == "finished"
    assert 1 < record["attempts"] <= int(done.stdout) + 1, "a kill before the record was written leaves no attempt"
    assert not (killed / "cache").exists()


@pytest.mark.slow
def test_what_a_run_leaves(table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(command(table, run), capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    assert "Å at FSC 0.143" in done.stdout
    assert "Reading and transforming images: done" in done.stderr
    names = {path.name for path in run.iterdir()}
    assert names == {
        "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "particles.star", "fsc.csv", "view.cxc",
        "report.html", "figures", "run.json", "events.jsonl", "log.txt",
    }  # fmt: skip
    assert read_map(run / "map.mrc").voxel_size == pytest.approx(PIXEL_SIZE)
    posed = read_particles(run / "particles.star", root=table.parent)
    assert posed.poses is not None
    assert posed.half is not None
    assert posed.half.unique().tolist() == [1, 2]
    record = json.loads((run / "run.json").read_text())
    fsc = HalfMapFSC.read_csv(run / "fsc.csv")
    assert record["results"]["resolution"] == pytest.approx(fsc.resolution(0.143), rel=1e-3)
    assert record["command"][:2] == ["hoarfrost", "abinit"]
    assert set(record["files"]) >= names - {"figures", "run.json"}
    assert sum(record["timings"].values()) <= record["seconds"]
    before = digest(run, "map.mrc", "run.json", "report.html", "log.txt")
    again = subprocess.run(command(table, run), capture_output=True, text=True, timeout=100, check=False)
    assert again.returncode == 0
    assert "is finished" in again.stdout
    other = subprocess.run(command(table, run, "--seed", "5"), capture_output=True, text=True, timeout=100, check=False)
    assert other.returncode == 2
    assert "holds another run (seed was 0, is now 5)" in other.stderr
    assert digest(run, *before) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_which_then_says_how_to_go_on(
    table: Path, tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(command(table, run), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while "start-1" not in ((run / "events.jsonl").read_text() if (run / "events.jsonl").exists() else ""):
        assert time.monotonic() < deadline, "the run began"
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.splitlines()[-1].startswith(f"{run}: stopped, with everything saved; the same command goes on")
    assert "Traceback" not in said
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert (run / "cache" / "checkpoint.safetensors").exists()


def test_the_forecast_grows_with_the_work() -> None:
    quick, careful = AbInitioConfig.from_preset("fast"), AbInitioConfig.from_preset("careful")
    if library() is not None:
        assert 15 < expected_seconds(AbInitioConfig(), 4000, 96, 2) < 60, "measured: about 27 s"
    assert expected_seconds(quick, 4000, 96, 2) < expected_seconds(careful, 4000, 96, 2)
    assert expected_seconds(quick, 4000, 96, 2) < expected_seconds(quick, 40000, 96, 2)
    assert expected_seconds(quick, 4000, 96, 8) < expected_seconds(quick, 4000, 96, 2)


def test_a_dry_run_writes_nothing(table: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(table, tmp_path / "run", "--dry-run"), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{COUNT} particles, box {BOX} at 6 Å: roughly \d+.* GB of memory.* [kMG]B of disk", done.stdout)
    assert not (tmp_path / "run").exists()
