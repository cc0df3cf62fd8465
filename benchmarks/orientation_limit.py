"""How many faint images fit a wrong orientation of the *true* map better than their own: what no blind run can get right.

The true pose of every image competes with its best other optima, of a grid of 7.5 degrees, all refined in the true map,
in a band that widens. What is lost there is lost to any estimator that decides by likelihood; with a map that is made
of the images it can only be more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import Record, Row, exit_code, no_data, parser, shared_data, show, use_threads
from benchmarks.robustness import CONDITIONS, STRUCTURES, WRONG_BASIN, simulate
from benchmarks.true_map import TrueMap
from hoarfrost.analysis.confidence import RIGHT_WITHIN
from hoarfrost.fourier.band import Band
from hoarfrost.geometry.rotations import geodesic_distance, random_rotations
from hoarfrost.geometry.shift_grid import shift_grid
from hoarfrost.poses.search import coarse_orientations
from hoarfrost.reconstruct.annealing import CoarseModel
from hoarfrost.reconstruct.rivals import Contest, Rivals

NAME = "orientation_limit"

SHELLS = 24, 32, 48, 63
"""Bands that are compared in turn, as far as the box goes; poses of one begin in the next."""

RIVALS = 16
"""Other optima of each image."""

BATCH = 250
"""Images at a time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=1_000)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, default=0.01)
    made.add_argument("--structures", nargs="+", choices=list(STRUCTURES), default=list(STRUCTURES)[:-1])
    made.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=["uniform", "coloured"])
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"particles": 60, "box": 48, "snr": 0.05, "structures": ["builtin"]})
    if shared_data() is None and options.structures != ["builtin"]:
        return no_data(NAME)
    use_threads(options.threads)
    record, rows = Record.open(NAME, options, {}), []
    sizes = {name: getattr(options, name) for name in ("particles", "box", "snr")}
    for structure in options.structures:
        for condition in options.conditions:
            key = {"structure": structure, "condition": condition, "seed": 0} | sizes
            rows.append(record.done(key) or record.add(key, measure(key)))
    record.write()
    show(
        f"{NAME}: share of {options.particles} images, SNR {options.snr:g}, that fit another orientation of the true map",
        [
            {"structure": row["key"]["structure"], "condition": row["key"]["condition"]}
            | {f"{shells} shells": share for shells, share in zip(row["shells"], row["elsewhere"], strict=True)}
            for row in rows
        ],
    )
    beyond = sum(min(row["elsewhere"]) > WRONG_BASIN for row in rows)
    print(f"{beyond} of {len(rows)} stacks have more than {WRONG_BASIN:.0%} of such images however far the map goes")
    return exit_code(True, options)


def measure(key: Row) -> Row:
    """Shares, band by band, of the images of one stack that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack = Path(scratch) / "stack"
        simulate(key, stack, Path(scratch))
        return elsewhere(TrueMap(stack))


def elsewhere(true: TrueMap) -> Row:
    """How many images fit another pose of the true map better than their own, refined, in bands of so many shells."""
    box = true.particles.box
    bands = [shells for shells in SHELLS if shells < box // 2] or [(box - 1) // 2]
    pixel_size = float(true.particles.optics.pixel_size[0])
    shifts = shift_grid(0.075 * box, 7)
    model = CoarseModel(box, pixel_size, 0.4 * box * pixel_size, "C1", coarse_orientations("C1"), shifts)
    rivals = Rivals(model, RIVALS, 4).finer()
    first = Band(box, bands[0])
    densities = [true.density(shells) for shells in bands]
    frame = random_rotations(1, torch.Generator().manual_seed(0))[0]
    bank = rivals.bank(densities[0], first, torch.ones(len(first)), frame)
    wrong = torch.zeros(len(bands))
    for rows in torch.arange(len(true.particles)).split(BATCH):
        rotations, moves = true.poses.rotations[rows], true.shifts[rows]
        found = rivals.search(true.images(rows, first.limit), bank, torch.ones(len(first)))
        for place, (shells, density) in enumerate(zip(bands, densities, strict=True)):
            images = true.images(rows, shells)
            contest = rivals.compete(images, density, torch.ones(len(images.band)), rotations, moves, found)
            wrong[place] += (geodesic_distance(contest.best[0], rotations) > RIGHT_WITHIN).sum()
            found = Contest(contest.rotations[:, 1:], contest.shifts[:, 1:], contest.log_likelihood[:, 1:])
    return {"shells": bands, "elsewhere": (wrong / len(true.particles)).tolist()}


if __name__ == "__main__":
    sys.exit(main())
