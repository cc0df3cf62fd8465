"""Poses that are off by some degrees: the map with them as they are, and with ``--poses refine``, against true ones."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import Record, Row, exit_code, no_data, parser, shared_data, show
from benchmarks.homogeneous import METHODS, reconstructed, simulated_stack
from hoarfrost.analysis.alignment import align_rotations, rotation_errors
from hoarfrost.geometry.rotations import rotation_vector_to_matrix
from hoarfrost.io.particles import read_particles, write_particles
from hoarfrost.types import Poses

NAME = "homogeneous_poses"

WITHIN = 1.1
"""Times the resolution (FSC 0.5 with the truth, masked) from true poses that one from refined poses may have."""

BARS = {"times_the_resolution": WITHIN}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--structure", default="1ffk")
    made.add_argument("--particles", type=int, default=1_500)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--degrees", type=float, nargs="+", default=[2.0, 5.0], help="root mean square of the angles")
    made.add_argument("--pixels", type=float, default=1.0, help="deviation of the shifts on each axis")
    made.add_argument("--methods", nargs="+", default=["backprojection", "gaussians"], choices=list(METHODS))
    options = made.parse_args(arguments)
    if options.quick:
        quick = {"structure": "builtin", "particles": 300, "box": 32, "snr": 1.0, "degrees": [5.0]}
        vars(options).update(quick | {"methods": ["backprojection"]})
    elif shared_data() is None:
        return no_data(NAME)
    record = Record.open(NAME, options, BARS)
    stack = {name: getattr(options, name) for name in ("structure", "particles", "box", "snr", "pixels")}
    asked = [(0.0, "fixed"), *((degrees, poses) for degrees in options.degrees for poses in ("fixed", "refine"))]
    keys = [stack | {"method": m, "degrees": d, "poses": p} for m in options.methods for d, p in asked]
    found = [record.done(key) for key in keys]
    rows = [row for row in found if row is not None]
    if len(rows) < len(keys):
        rows = measure(stack, keys, record, options.threads)
    record.write()
    return exit_code(report(rows), options)


def measure(stack: Row, keys: Sequence[Row], record: Record, threads: int) -> list[Row]:
    """Simulate one stack, and reconstruct it in every way that has no row yet."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        folder = Path(scratch) / "stack"
        simulated_stack(folder, stack)
        for number, key in enumerate(keys):
            row = record.done(key)
            if row is None:
                print(f"{key['method']}, {key['degrees']:g} degrees, poses: {key['poses']} ...", flush=True)
                table, run = folder / f"{key['degrees']:g}.star", Path(scratch) / str(number)
                disturb(folder / "truth.star", table, key["degrees"], stack["pixels"] if key["degrees"] else 0.0)
                given = (*METHODS[key["method"]], "--poses", key["poses"], "--threads", threads)
                figures = reconstructed(table, run, folder, given)
                if "failed" not in figures:
                    figures |= errors(run / "particles.star", folder / "truth.star")
                row = record.add(key, figures)
            rows.append(row)
    return rows


def disturb(truth: Path, table: Path, degrees: float, pixels: float) -> None:
    """Write a table whose poses are off: rotation vectors and shifts are normal on every axis."""
    particles, generator = read_particles(truth), torch.Generator().manual_seed(1)
    poses = particles.poses
    assert poses is not None
    vectors = torch.randn(len(poses), 3, generator=generator) * (math.radians(degrees) / math.sqrt(3))
    shifts = torch.randn(len(poses), 2, generator=generator) * (pixels * particles.pixel_size)
    turned = poses.rotations @ rotation_vector_to_matrix(vectors.to(poses.rotations))
    write_particles(particles.replace(poses=Poses(turned, poses.shifts + shifts.to(poses.shifts))), table)


def errors(table: Path, truth: Path) -> Row:
    """The median angle between poses of two tables in their common frame, in degrees."""
    found, true = (read_particles(path, require_images=False).poses for path in (table, truth))
    assert found is not None
    assert true is not None
    aligned = align_rotations(found.rotations, true.rotations).apply(found.rotations)
    return {"median_deg": math.degrees(float(rotation_errors(aligned, true.rotations).median()))}


def report(rows: Sequence[Row]) -> bool:
    """Print the table; whether refined poses give the map that true ones do, but for a tenth."""
    lines, passed = [], True
    for row in rows:
        key = row["key"]
        line: Row = {name: key[name] for name in ("method", "degrees", "poses")}
        if "failed" in row:
            lines.append(line | {"failed": row["failed"]})
            passed = False
            continue
        true = next((other for other in rows if other["key"] == key | {"degrees": 0.0, "poses": "fixed"}), None)
        line |= {name: row[name] for name in ("fsc_0.5", "fsc_0.5_masked", "median_deg", "wall_s", "cpu_s")}
        if true is not None and "failed" not in true:
            line["times"] = row["fsc_0.5_masked"] / true["fsc_0.5_masked"]
            passed &= key["poses"] == "fixed" or line["times"] <= WITHIN
        lines.append(line)
    show("Poses that are off, and shifts as well: maps against the truth (Å)", lines)
    print("PASS" if passed else "FALLS SHORT")
    return passed


if __name__ == "__main__":
    sys.exit(main())
