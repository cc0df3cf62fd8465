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

import torch

from benchmarks.common import Record, Row, hoarfrost, parser, read_json, show, simulated, use_threads
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
from hoarfrost.analysis.map_alignment import align_maps
from hoarfrost.data.dataset import Normalisation, estimate_noise, whitened_images
from hoarfrost.fourier.band import Band
from hoarfrost.fourier.slices import SliceGrid
from hoarfrost.io.mrc import read_map
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.reconstruct.assignment import split_halves
from hoarfrost.reconstruct.backprojection import BackProjection
from hoarfrost.types import Particles, Poses, Volume

NAME = "relion_agreement"

BARS = {"least_fsc_to_half_nyquist": LEAST_CORRELATION, "crossing_difference_shells": LARGEST_DIFFERENCE}
MAPS: dict[str, int | None] = {"half 1": 1, "half 2": 2, "all": None}
BALL = 0.4
"""Radius of the ball in which maps are compared with the truth, as a share of the box."""


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
    return 0 if all(row.get("passed") for row in rows) else 1


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
        compare = compare_true_poses if poses == "truth" else compare_run
        found = compare(stack, options)
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
    assert truth.poses is not None
    half = split_halves(len(blind), None, seed=0)
    posed = blind.replace(poses=truth.poses, half=half)
    table = stack / "posed.star"
    write_particles(posed, table)
    true_map, ball = _array(read_map(stack / "truth.mrc")), soft_ball(blind.box, BALL * blind.box)
    found = {}
    for name, ours in maps_from_poses(read_particles(table)).items():
        theirs = relion_reconstruct(table, stack / f"relion {name}.mrc", project=stack, half=MAPS[name])
        masked = [levelled(data, ball) for data in (_array(ours), theirs, true_map)]
        found[name] = with_truth(agreement(_array(ours), theirs), masked[0], masked[1], masked[2])
    return found


def maps_from_poses(particles: Particles) -> dict[str, Volume]:
    """Our maps of both halves and of all particles at the poses that they have, unfiltered, to the last shell."""
    poses, half = particles.poses, particles.half
    if poses is None or half is None:
        raise ValueError("particles with poses and halves are needed")
    band = Band.to_nyquist(particles.box)
    grid = SliceGrid(particles.box, band.limit)
    normalisation = Normalisation(0.42 * particles.box)
    noise = estimate_noise(particles, band, normalisation)
    first, second = (
        _sums(particles, poses, (half == number).nonzero()[:, 0], band, grid, normalisation, noise) for number in (1, 2)
    )
    sums = {"half 1": first, "half 2": second, "all": first + second}
    return {name: Volume(sums[name].volume(0.0), particles.pixel_size) for name in MAPS}


def _sums(
    particles: Particles,
    poses: Poses,
    rows: torch.Tensor,
    band: Band,
    grid: SliceGrid,
    normalisation: Normalisation,
    noise: torch.Tensor,
) -> BackProjection:
    sums = BackProjection.empty(grid)
    shifts = poses.shifts / particles.optics.pixel_size[:, None]
    for part in rows.split(128):
        images = whitened_images(particles, part, band, normalisation, noise)
        sums.add(images, poses.rotations[part].float(), shifts[part].float())
    return sums


def compare_run(stack: Path, options: argparse.Namespace) -> dict[str, Agreement]:
    """The maps of a blind run against RELION's of the run's ``particles.star``.

    The run's map ends where its half-maps cease to agree, and is masked by a ball: RELION's is masked alike, and
    compared to there.
    """
    run = stack / "run"
    done = hoarfrost("abinit", stack / "particles.star", "-o", run, "--threads", options.threads)
    if done.code != 0:
        raise RuntimeError(f"hoarfrost abinit failed: {done.last_line}")
    results = read_json(run / "run.json")["results"]
    files = {"half 1": "half1.mrc", "half 2": "half2.mrc", "all": "map.mrc"}
    true_map = read_map(stack / "truth.mrc")
    frame = align_maps(read_map(run / "map.mrc"), true_map)
    ball = soft_ball(options.box, 0.5 * results["diameter"] / results["voxel_size"])
    last = int(options.box * results["voxel_size"] / results["resolution"])
    found = {}
    for name, file in files.items():
        ours = _array(read_map(run / file))
        theirs = relion_reconstruct(run / "particles.star", stack / f"{name}.mrc", project=stack, half=MAPS[name])
        masked = [ours if name == "all" else levelled(ours, ball), levelled(theirs, ball)]
        compared = agreement(masked[0], masked[1], last_shell=last) if name == "all" else agreement(ours, theirs)
        laid = [_array(frame.apply(_volume(one, true_map.voxel_size), true_map)) for one in masked]
        found[name] = with_truth(compared, laid[0], laid[1], levelled(_array(true_map), ball))
    return found


def _array(volume: Volume) -> Array:
    return volume.data.double().numpy()


def _volume(data: Array, voxel_size: float) -> Volume:
    return Volume(torch.from_numpy(data).float(), voxel_size)


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
