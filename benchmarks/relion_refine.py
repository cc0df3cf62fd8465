"""RELION's auto-refinement of a stack, and what its worker processes take.

``relion_refine --auto_refine`` needs three processes: one for each half and a leader, which only waits, and does so
busily. The leader's time is left out of what RELION is said to take.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import METER, read_json

PROGRAM = "relion_refine_mpi"
LAUNCHER = "mpirun"
PROCESSES = 3


@dataclass(frozen=True)
class Refined:
    """What RELION found: a folder with the names of one of our runs, and processor and wall time in seconds."""

    folder: Path
    cpu_s: float
    leader_cpu_s: float
    wall_s: float


def relion_refine_found() -> bool:
    """Whether RELION's refinement and the launcher of its processes are installed."""
    return all(shutil.which(program) is not None for program in (PROGRAM, LAUNCHER))


def relion_refine(
    table: Path, reference: Path, output: Path, *, low_pass: float, diameter: float, symmetry: str = "C1"
) -> Refined:
    """Auto-refine a table whose image names count from its own folder; ``low_pass`` and ``diameter`` in Å.

    Settings are those of RELION's interface for a reference whose grey scale is not that of the images.
    """
    output.mkdir()
    settings = {
        "--i": table, "--ref": reference, "--o": output / "run", "--ini_high": low_pass, "--pad": 2,
        "--particle_diameter": diameter, "--oversampling": 1, "--healpix_order": 2, "--auto_local_healpix_order": 4,
        "--offset_range": 5, "--offset_step": 2, "--sym": symmetry, "--low_resol_join_halves": 40, "--j": 1,
    }  # fmt: skip
    switches = "--auto_refine --split_random_halves --firstiter_cc --ctf --flatten_solvent --zero_mask --norm --scale"
    # Every process is metered by itself; its rank is known only to itself.
    meter = f'exec {sys.executable} -I {METER} {output}/figures.$OMPI_COMM_WORLD_RANK.json "$@"'
    launch = [LAUNCHER, "--allow-run-as-root", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-n", PROCESSES]
    options = [part for setting in settings.items() for part in setting]
    command = [*launch, "sh", "-c", meter, "sh", PROGRAM, *switches.split(), *options]
    done = subprocess.run(
        [str(part) for part in command], cwd=table.parent, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not (output / "run_class001.mrc").exists():
        raise RuntimeError(f"{PROGRAM} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    for ours, theirs in {"particles.star": "run_data.star", "map.mrc": "run_class001.mrc"}.items():
        (output / ours).symlink_to(output / theirs)
    leader, *workers = (read_json(output / f"figures.{rank}.json") for rank in range(PROCESSES))
    return Refined(output, sum(worker["cpu_s"] for worker in workers), leader["cpu_s"], leader["wall_s"])
