"""Halves of nothing but noise: at which shell does their FSC end, with and without a mask, by every method?

A method that invents detail of its own, or that lets a mask do so, finds a resolution here. None is to be found.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import Record, Row, exit_code, hoarfrost, parser, show, simulated
from benchmarks.hard_cases import NOTHING
from benchmarks.homogeneous import METHODS, true_mask
from hoarfrost.analysis.fsc import HalfMapFSC
from hoarfrost.io.mrc import read_map, write_map
from hoarfrost.physics.masks import soft_sphere
from hoarfrost.types import Volume

NAME = "homogeneous_noise"

LAST_SHELL = 6
"""The few coefficients of lower shells may agree by chance."""

BARS = {"last_shell": LAST_SHELL}

MASKS = ("automatic", "sphere", "particle")
"""Made from the map itself; a sphere of two thirds of the box; about the particle that the images do not show."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a method finds a resolution."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=5_000)
    made.add_argument("--box", type=int, default=64)
    made.add_argument("--seeds", type=int, default=1, help="stacks, with seeds from 0")
    made.add_argument("--methods", nargs="+", default=["backprojection", "gaussians", "neural"], choices=list(METHODS))
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"particles": 200, "box": 32, "methods": ["backprojection"]})
    record, rows = Record.open(NAME, options, BARS), []
    for seed in range(options.seeds):
        stack = {"seed": seed, "particles": options.particles, "box": options.box}
        keys = [stack | {"method": method, "mask": mask} for method in options.methods for mask in MASKS]
        found = [record.done(key) for key in keys]
        rows += found if None not in found else measure(stack, keys, record, options.threads)
    record.write()
    return exit_code(report([row for row in rows if row is not None]), options)


def measure(stack: Row, keys: Sequence[Row], record: Record, threads: int) -> list[Row]:
    """Simulate a stack of noise, and reconstruct it in every way that has no row yet."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        folder = Path(scratch) / "stack"
        simulated(folder, "builtin", n=stack["particles"], box=stack["box"], snr=NOTHING, seed=stack["seed"])
        for mask, volume in (("sphere", sphere(folder)), ("particle", true_mask(folder))):
            write_map(folder / f"{mask}.mrc", volume)
        for number, key in enumerate(keys):
            row = record.done(key)
            if row is None:
                print(f"{key['method']}, mask: {key['mask']} ...", flush=True)
                within = () if key["mask"] == "automatic" else ("--mask", folder / f"{key['mask']}.mrc")
                run = Path(scratch) / str(number)
                given = (*METHODS[key["method"]], *within, "--threads", threads)
                done = hoarfrost("reconstruct", folder / "truth.star", "-o", run, *given)
                row = record.add(key, done.cost | ({"failed": done.last_line} if done.code else crossings(run)))
            rows.append(row)
    return rows


def sphere(stack: Path) -> Volume:
    """A soft sphere in the middle of the box of a stack."""
    truth = read_map(stack / "truth.mrc")
    return Volume(soft_sphere(truth.box, truth.box / 3, 4.0).to(torch.float32), truth.voxel_size)


def crossings(run: Path) -> Row:
    """The shells at which the FSC of the half-maps first falls below 0.143, and the curve that is reported."""
    fsc = HalfMapFSC.read_csv(run / "fsc.csv")
    extent = 1 / float(fsc.frequency[1])
    shells = {f"{curve} shell": extent / fsc.resolution(curve=curve) for curve in ("unmasked", "masked", "corrected")}
    return shells | {"corrected": [round(value, 4) for value in fsc.corrected.tolist()]}


def report(rows: Sequence[Row]) -> bool:
    """Print the table; whether no curve that is reported goes on beyond the lowest shells."""
    lines = []
    for row in rows:
        shells = {name: row[name] for name in row if name.endswith("shell")}
        lines.append({name: row["key"][name] for name in ("seed", "method", "mask")} | shells)
    show("Noise only: the shell at which the FSC of the half-maps falls below 0.143", lines)
    failed = [row for row in rows if "failed" in row or row["corrected shell"] > LAST_SHELL]
    print("PASS" if not failed else f"FALLS SHORT: {len(failed)} of {len(rows)} find a resolution, or failed")
    return not failed


if __name__ == "__main__":
    sys.exit(main())
