"""Small runs through the command line: to their end, or killed again and again at random moments."""

import subprocess
import sys
from pathlib import Path

import torch

from hoarfrost.data.simulate import Noise, simulate
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles
from phantoms import GaussianPhantom

BOX, PIXEL_SIZE, COUNT = 32, 6.0, 260

_DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from rich.console import Console

torch.set_num_threads(1)
table, killed, whole, seed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

{work}

def work(folder):
    with open(os.devnull, "w") as nowhere:
        run(table, folder, Console(file=nowhere))

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


def write_small_stack(folder: Path) -> Path:
    """A blind stack of a small phantom (particles.star), its poses (truth.star) and its map (truth.mrc)."""
    generator = torch.Generator().manual_seed(4)
    density = GaussianPhantom.random(18, 50.0, generator, sigma=9.0).volume(BOX, PIXEL_SIZE)
    images = simulate(
        density, count=COUNT, box=BOX, pixel_size=PIXEL_SIZE, noise=Noise(0.5), shift_px=1.5, generator=generator
    )
    return images.write(folder).parent


def command(*arguments: object) -> list[str]:
    """The command line of a small run, on one thread."""
    code = "from hoarfrost.cli.main import main; main()"
    settings = ["--preset", "fast", "--threads", "1", "--max-resolution", "20"]
    return [sys.executable, "-c", code, *map(str, arguments), *settings]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A small run, to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=1500, check=False)


def killed_and_whole(table: Path, folder: Path, work: str, seed: int) -> tuple[Path, Path, int]:
    """The folders of both runs, and how often the first was killed; ``work`` defines ``run(table, folder, console)``."""
    script, killed, whole = folder / "driver.py", folder / "killed", folder / "whole"
    script.write_text(_DRIVER.format(work=work))
    done = subprocess.run(
        [sys.executable, str(script), str(table), str(killed), str(whole), str(seed)],
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return killed, whole, int(done.stdout)


def assert_alike(one: Path, other: Path, root: Path) -> None:
    """Two run folders hold the same maps and poses."""
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc"):
        first, second = read_map(one / name), read_map(other / name)
        assert torch.allclose(first.data, second.data, rtol=1e-4, atol=1e-5 * float(second.data.abs().max())), name
    found, expected = (read_particles(folder / "particles.star", root=root).poses for folder in (one, other))
    assert found is not None
    assert expected is not None
    assert torch.allclose(found.rotations, expected.rotations, atol=1e-5)
    assert torch.allclose(found.shifts, expected.shifts, atol=1e-4)
