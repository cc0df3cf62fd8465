"""Stacks that mislead: does a run get them right, or say plainly that it did not?

Small simulated stacks of one difficulty each, run blindly through ``hoarfrost abinit``. A run is right if half of the
poses are within 10 degrees of the truth (up to the particle's symmetry) and the map reaches, against the truth, about
the resolution that is claimed for it. What is neither right nor warned of is the one result that must not occur.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Record, Row, exit_code, hoarfrost, parser, read_json, run_figures, show
from benchmarks.symmetric_particles import symmetric_copies
from hoarfrost.data.acquisition import Noise, Views
from hoarfrost.data.builtin import builtin_complex
from hoarfrost.data.density import fitting_pixel_size
from hoarfrost.data.simulate import simulate
from hoarfrost.geometry.symmetry import point_group
from hoarfrost.io.atoms import Atoms
from hoarfrost.io.particles import read_particles

NAME = "hard_cases"

RIGHT_MEDIAN_DEG = 10.0
OVERCLAIM = 1.25
"""The map's true resolution (FSC 0.5 with the truth, where half-maps reach 0.143) may be this much worse in Å."""
BARS = {"right_median_deg": RIGHT_MEDIAN_DEG, "true_over_claimed": OVERCLAIM, "confident_and_wrong": 0}

NOTHING = 1e-6
"""A signal-to-noise ratio at which images hold noise only."""

CORRECT, WARNED, WRONG, REFUSED, FAULT = "correct", "warned", "CONFIDENT AND WRONG", "refused", "FAULT"


@dataclass(frozen=True)
class Case:
    """One difficulty: how the stack is made, and how the run is asked."""

    what: str
    symmetry: str = "C1"  # of the particle
    asked: str = "C1"  # given to the run
    snr: float | None = None  # that of all cases where not given
    simulation: dict[str, Any] = field(default_factory=dict)

    @property
    def hollow(self) -> bool:
        """Whether there is nothing to be found."""
        return self.snr == NOTHING


CASES = {
    "control": Case("nothing hard: uniform views"),
    "noise": Case("noise only", snr=NOTHING),
    "tilt-90": Case(
        "90-degree tilts only: views on a great circle", simulation={"views": Views(tilt=(math.pi / 2,) * 2)}
    ),
    "one-side": Case(
        "all views from one side: a cap of 30 degrees", simulation={"views": Views(tilt=(0.0, math.radians(30)))}
    ),
    "three-sides": Case("three preferred views", simulation={"views": Views(concentration=8.0)}),
    "c3": Case("C3 particle, --symmetry C3", "C3", "C3"),
    "c3-as-c1": Case("C3 particle, no symmetry given", "C3"),
    "d7": Case("D7 particle, --symmetry D7", "D7", "D7"),
    "d7-as-c1": Case("D7 particle, no symmetry given", "D7"),
    "c1-as-c3": Case("asymmetric particle, --symmetry C3", "C1", "C3"),
    "inverted": Case("inverted contrast", simulation={"invert": True}),
    "junk": Case("20 % junk images", simulation={"junk_fraction": 0.2}),
    "coloured": Case("coloured noise", simulation={"noise": Noise(colour="coloured")}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that the record lacks, and print all; 1 if any is confident and wrong."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=2_500)
    made.add_argument("--box", type=int, default=80)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--seeds", type=int, default=1, help="runs of each case, with seeds from 0")
    made.add_argument("--preset", default="default")
    made.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = made.parse_args(arguments)
    if options.quick:
        quick = {"particles": 300, "box": 40, "snr": 1.0, "preset": "fast", "cases": ["noise"]}
        vars(options).update(quick)
    record = Record.open(NAME, options, BARS)
    rows = [_row(record, options, name, seed) for name in options.cases for seed in range(options.seeds)]
    show(NAME, [_line(record, row) for row in rows])
    for row in rows:
        for warning in row.get("warnings", []):
            print(f"{row['key']['case']}, seed {row['key']['seed']}: {warning}")
    wrong = sum(row["verdict"] in (WRONG, FAULT) for row in rows)
    print("PASS" if not wrong else f"short: {wrong} of {len(rows)} runs were confident and wrong, or failed")
    return exit_code(not wrong, options)


def _row(record: Record, options: argparse.Namespace, name: str, seed: int) -> Row:
    key = {
        "case": name,
        "seed": seed,
        "particles": options.particles,
        "box": options.box,
        "snr": options.snr,
        "preset": options.preset,
    }
    done = record.done(key)
    if done is not None:
        return done
    print(f"{CASES[name].what}, seed {seed} ...", flush=True)
    row = record.add(key, measure(CASES[name], key, options.threads))
    print("  " + row["verdict"], flush=True)
    return row


def measure(case: Case, key: Row, threads: int) -> Row:
    """Simulate, run and evaluate one case."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack, run = Path(scratch) / "stack", Path(scratch) / "run"
        make_stack(case, key, stack)
        done = hoarfrost(
            "abinit", stack / "particles.star", "-o", run, "--symmetry", case.asked,
            "--seed", key["seed"], "--preset", key["preset"], "--threads", threads,
        )  # fmt: skip
        row: Row = {"what": case.what} | done.cost | run_figures(run)
        if done.code != 0:
            return row | {"verdict": REFUSED if done.code == 2 else FAULT, "said": done.last_line}
        if not case.hollow:
            evaluated = hoarfrost("evaluate", run, "--truth", stack, "--symmetry", case.symmetry)
            if evaluated.code != 0:
                return row | {"verdict": FAULT, "said": evaluated.last_line}
            row |= {"scores": read_json(run / "scores.json")}
        return row | {"confidence": confidence(run, stack), "verdict": verdict(row)}


def make_stack(case: Case, key: Row, folder: Path) -> None:
    """The stack of a case and its truth."""
    model = builtin_complex() if case.symmetry == "C1" else symmetric_complex(case.symmetry)
    settings = dict(case.simulation)
    noise = replace(settings.pop("noise", Noise()), snr=key["snr"] if case.snr is None else case.snr)
    stack = simulate(
        model,
        count=key["particles"],
        box=key["box"],
        pixel_size=fitting_pixel_size(model, key["box"]),
        shift_px=key["box"] / 16,
        noise=noise,
        generator=torch.Generator().manual_seed(key["seed"]),
        **settings,
    )
    stack.write(folder)


def symmetric_complex(name: str) -> Atoms:
    """Copies of a part of the built-in complex about the axes of a point group.

    The part has one or three domains, so that no particle is much larger than another.
    """
    whole = builtin_complex()
    count = int((0.4 if len(point_group(name)) < 6 else 0.13) * len(whole))
    part = replace(
        whole,
        coordinates=whole.coordinates[:count],
        elements=whole.elements[:count],
        b_factors=whole.b_factors[:count],
        occupancies=whole.occupancies[:count],
    )
    return symmetric_copies(part, name)


def confidence(run: Path, stack: Path) -> Row:
    """Median confidence that the run gives to particles, and to junk where there is some."""
    found = read_particles(run / "particles.star", require_images=False).poses
    truth = read_particles(stack / "truth.star", require_images=False)
    if found is None or found.confidence is None or truth.classes is None:
        return {}
    junk = truth.classes == 0
    medians = {"particles": found.confidence[~junk], "junk": found.confidence[junk]}
    return {name: float(values.median()) for name, values in medians.items() if len(values)}


def verdict(row: Row) -> str:
    """Correct, warned, or neither; a note says where a warning stands if not among those printed."""
    doubtful = row["report"] in ("caution", "bad")
    warning = WARNED if row["warnings"] else f"{WARNED} in the report only" if doubtful else ""
    if is_right(row):
        return f"{CORRECT}, {warning} all the same" if warning else CORRECT
    return warning or WRONG


def is_right(row: Row) -> bool:
    """Whether the poses are right and the map is as good as it claims to be."""
    scores = row.get("scores")
    if scores is None:
        return False
    honest = scores["fsc_0.5_angstrom_masked"] <= OVERCLAIM * row["resolution"]
    return bool(scores["rotation_deg"]["median"] < RIGHT_MEDIAN_DEG and honest)


def _line(record: Record, row: Row) -> Row:
    scores = row.get("scores", {})
    rotation = scores.get("rotation_deg", {})
    return {
        "case": row["key"]["case"],
        "given": row["what"],
        "seed": row["key"]["seed"],
        "claimed Å": row.get("resolution"),
        "true Å": scores.get("fsc_0.5_angstrom_masked"),
        "median deg": rotation.get("median"),
        "<10 deg": rotation.get("below_10"),
        "starts agree": row.get("agreement_of_starts"),
        "warnings": len(row.get("warnings", [])),
        "report": row.get("report"),
        "verdict": row["verdict"] + (f": {row['said']}" if "said" in row else ""),
        "code": "present" if record.is_current(row) else "older",
    }


if __name__ == "__main__":
    sys.exit(main())
