"""RELION reads what hoarfrost writes: its maps of our particle tables against our maps.

Once with the true poses, and once with those of a blind run: ``relion_reconstruct --i particles.star --ctf`` for each
half and for all particles. Maps must agree (FSC > 0.98 to half Nyquist), and be equally far from the truth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.common import Record, Row, exit_code, hoarfrost, parser, read_json, show, simulated, use_threads
from benchmarks.relion_maps import (
    LARGEST_DIFFERENCE,
    LEAST_CORRELATION,
    PROGRAM,
    Agreement,
    Array,
    agreement,
    levelled,
    relion_found,
    relion_reconstruct,
    soft_ball,
    with_truth,
)
from hoarfrost.analysis.map_alignment import MapAlignment, align_maps
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.reconstruct.assignment import split_halves
from hoarfrost.reconstruct.homogeneous import reconstruct
from hoarfrost.reconstruct.settings import ReconstructConfig
from hoarfrost.types import Volume

NAME = "relion_agreement"

BARS = {"least_fsc_to_half_nyquist": LEAST_CORRELATION, "crossing_difference_shells": LARGEST_DIFFERENCE}
MAPS: dict[str, int | None] = {"half 1": 1, "half 2": 2, "all": None}
BALL, MARGIN = 0.4, 1.05
"""Radius of the ball for known poses, as a share of the box, and what the reconstruction adds to a diameter."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and leave the curves; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=5_000)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--poses", nargs="+", choices=["truth", "estimated"], default=["truth", "estimated"])
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"particles": 300, "box": 40, "snr": 1.0, "poses": ["truth"]})
    if not relion_found():
        print(f"{NAME}: skipped, it needs RELION: {PROGRAM} is not installed (apt-get install relion)")
        return 0
    use_threads(options.threads)
    record = Record.open(NAME, options, BARS)
    rows = [row for poses in options.poses for row in _rows(record, options, poses)]
    show(NAME, [_line(record, row) for row in rows])
    print(f"bars: FSC > {LEAST_CORRELATION} to half Nyquist; crossings within {LARGEST_DIFFERENCE:g} shell")
    return exit_code(all(row["passed"] for row in rows), options)


def _rows(record: Record, options: argparse.Namespace, poses: str) -> list[Row]:
    size = {"particles": options.particles, "box": options.box, "snr": options.snr}
    keys = [{"poses": poses, "map": name} | size for name in MAPS]
    done = [row for row in map(record.done, keys) if row is not None]
    if len(done) == len(keys):
        return done
    print(f"{poses} poses ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack = Path(scratch) / "stack"
        simulated(stack, "builtin", n=options.particles, box=options.box, snr=options.snr, shift=5)
        found = (compare_true_poses if poses == "truth" else compare_run)(stack, options)
    return [record.add(key, figures(found[key["map"]])) for key in keys]


def figures(found: Agreement) -> Row:
    """An agreement for the record."""
    return {
        "least": found.least,
        "last_shell": found.last_shell,
        "our_crossing": found.our_crossing,
        "their_crossing": found.their_crossing,
        "passed": found.passed,
        "curve": [round(value, 5) for value in found.curve],
    }


def compare_true_poses(stack: Path, options: argparse.Namespace) -> dict[str, Agreement]:
    """Both reconstructions of a table with the true poses, which hoarfrost wrote."""
    blind, truth = read_particles(stack / "particles.star"), read_particles(stack / "truth.star")
    table = stack / "posed.star"
    write_particles(blind.replace(poses=truth.poses, half=split_halves(len(blind), None, seed=0)), table)
    true_map = read_map(stack / "truth.mrc")
    radius = BALL * blind.box
    config = ReconstructConfig(diameter=2 * radius * blind.pixel_size / MARGIN)
    ours = reconstruct(read_particles(table), config).maps
    maps = Maps(_array(ours.half_maps.first), _array(ours.half_maps.second), _array(ours.map))
    return compare(maps, table, project=stack, radius=radius, resolution=ours.fsc.resolution(), truth=true_map)


def compare_run(stack: Path, options: argparse.Namespace) -> dict[str, Agreement]:
    """The maps of a blind run against RELION's of the run's ``particles.star``, laid over the truth together."""
    run = stack / "run"
    done = hoarfrost("abinit", stack / "particles.star", "-o", run, "--threads", options.threads)
    if done.code != 0:
        raise RuntimeError(f"hoarfrost abinit failed: {done.last_line}")
    results = read_json(run / "run.json")["results"]
    true_map = read_map(stack / "truth.mrc")
    return compare(
        Maps(*(_array(read_map(run / name)) for name in ("half1.mrc", "half2.mrc", "map.mrc"))),
        run / "particles.star",
        project=stack,
        radius=0.5 * results["diameter"] / results["voxel_size"],
        resolution=results["resolution"],
        truth=true_map,
        frame=align_maps(read_map(run / "map.mrc"), true_map),
    )


class Maps(NamedTuple):
    """Our half-maps, as they are, and our map, filtered and inside a ball."""

    first: Array
    second: Array
    all: Array


def compare(
    ours: Maps,
    table: Path,
    *,
    project: Path,
    radius: float,
    resolution: float,
    truth: Volume,
    frame: MapAlignment | None = None,
) -> dict[str, Agreement]:
    """Our maps of a table against RELION's.

    All are compared inside the ball (``radius`` in voxels) that holds the particle: beyond it there is only noise, which
    the kernels of two interpolations colour each in its own way. Our map ends at its resolution (Å) and is compared to
    there. ``frame`` lays maps over the truth.
    """
    ball = soft_ball(truth.box, radius)
    last_shell = int(truth.box * truth.voxel_size / resolution)
    found = {}
    for (name, half), our in zip(MAPS.items(), ours, strict=True):
        their = relion_reconstruct(table, project / f"{name}.mrc", project=project, half=half)
        masked = (our if half is None else levelled(our, ball)), levelled(their, ball)
        same = agreement(*masked, last_shell=last_shell if half is None else None)
        laid = masked if frame is None else tuple(_array(frame.apply(_volume(m, truth), truth)) for m in masked)
        found[name] = with_truth(same, laid[0], laid[1], levelled(_array(truth), ball))
    return found


def _array(volume: Volume) -> Array:
    return volume.data.double().numpy()


def _volume(data: Array, like: Volume) -> Volume:
    return Volume(torch.from_numpy(data).float(), like.voxel_size)


def _line(record: Record, row: Row) -> Row:
    return {
        "poses": row["key"]["poses"],
        "map": row["key"]["map"],
        "least FSC": row["least"],
        "to shell": row["last_shell"],
        "ours to truth 0.5, shell": row["our_crossing"],
        "RELION's": row["their_crossing"],
        "verdict": "PASS" if row["passed"] else "short",
        "code": "present" if record.is_current(row) else "older",
    }


if __name__ == "__main__":
    sys.exit(main())
