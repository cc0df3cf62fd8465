"""Blind reconstruction of stacks simulated from known structures: is the map right, and how exact are the poses?

Every run is what a user does: ``hoarfrost simulate`` puts a stack on disk, ``hoarfrost abinit`` sees its particles
only, ``hoarfrost evaluate`` compares with the truth. Runs that the record has already are not repeated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import (
    Record,
    Row,
    exit_code,
    hoarfrost,
    no_data,
    parser,
    read_json,
    run_figures,
    shared_data,
    show,
    simulated,
)

NAME = "abinit_accuracy"

STRUCTURES = {
    "1ffk": "50S ribosomal subunit",
    "1wcm_fitted": "RNA polymerase II",
    "4r8p_nucleosome_PRC1": "PRC1 on a nucleosome",
    "1igt": "IgG2a",
    "6cs2": "spike with ACE2",
    "3sn6": "receptor with Gs",
}
PSEUDO_SYMMETRIC = {"1igt"}
"""Structures in which some particles fit their pseudo-symmetric partner orientation nearly as well."""

BARS = {"median_deg": 0.7, "frobenius_mean": 0.03, "shift_px": 0.15, "from_snr": 0.1, "right_share_below": 0.9}
RIGHT_MEDIAN_DEG = 10.0
RIGHT_SHELL = 12.0
"""A map is right if half of the poses are within 10 degrees and it agrees with the truth (FSC 0.5) to this shell."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, default=10_000)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, nargs="+", default=[0.1])
    made.add_argument("--seeds", type=int, default=3, help="runs of each, with seeds from 0")
    made.add_argument("--structures", nargs="+", default=list(STRUCTURES), help="names in the shared data, or builtin")
    made.add_argument("--preset", default="default")
    options = made.parse_args(arguments)
    if options.quick:
        quick = {"particles": 400, "box": 48, "snr": [1.0], "seeds": 1, "structures": ["builtin"], "preset": "fast"}
        vars(options).update(quick)
    if shared_data() is None and options.structures != ["builtin"]:
        return no_data(NAME)
    record = Record.open(NAME, options, BARS)
    rows = []
    for key in wanted(options):
        row = record.done(key)
        if row is None:
            print(f"{key['structure']}, SNR {key['snr']:g}, seed {key['seed']} ...", flush=True)
            row = record.add(key, measure(key))
            print("  " + verdict(row), flush=True)
        rows.append(row)
    record.figures = {f"snr {snr:g}": summary([row for row in rows if row["key"]["snr"] == snr]) for snr in options.snr}
    record.write()
    return exit_code(report(record, rows), options)


def wanted(options: argparse.Namespace) -> list[Row]:
    """What tells one run from another, in the order of the runs."""
    return [
        {
            "structure": structure,
            "snr": snr,
            "seed": seed,
            "particles": options.particles,
            "box": options.box,
            "preset": options.preset,
            "threads": options.threads,
        }
        for snr in options.snr
        for structure in options.structures
        for seed in range(options.seeds)
    ]


def measure(key: Row) -> Row:
    """Simulate, reconstruct and evaluate one stack in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack, run = Path(scratch) / "stack", Path(scratch) / "run"
        simulated(
            stack,
            model(key["structure"]),
            n=key["particles"],
            box=key["box"],
            snr=key["snr"],
            shift=10 * key["box"] / 128,
            defocus=(8000, 25000),
            astigmatism=500,
            seed=key["seed"],
        )
        done = hoarfrost(
            "abinit", stack / "particles.star", "-o", run,
            "--seed", key["seed"], "--preset", key["preset"], "--threads", key["threads"],
        )  # fmt: skip
        if done.code != 0:
            return {"failed": done.last_line, "code": done.code, "right": False} | done.cost
        evaluated = hoarfrost("evaluate", run, "--truth", stack)
        if evaluated.code != 0:
            return {"failed": evaluated.last_line, "code": evaluated.code, "right": False} | done.cost
        scores = read_json(run / "scores.json")
        row: Row = done.cost | run_figures(run) | {"scores": scores}
        row["right"] = is_right(scores, extent=key["box"] * row["pixel_size"])
        return row


def model(name: str) -> object:
    """The file of a structure, or the name of the built-in one."""
    folder = shared_data()
    if name == "builtin" or folder is None:
        return name
    found = sorted(p for p in (folder / "structures").rglob("*.gz") if p.name.split(".")[0] == name)
    if not found:
        sys.exit(f"{NAME}: the shared data hold no structure {name}")
    return found[0]


def is_right(scores: Row, *, extent: float) -> bool:
    """Whether the map shows the molecule; ``extent`` is the side of the box in Å."""
    agrees = scores.get("fsc_0.5_angstrom", float("inf")) <= extent / RIGHT_SHELL
    return bool(scores["rotation_deg"]["median"] < RIGHT_MEDIAN_DEG and agrees)


def verdict(row: Row) -> str:
    """PASS, or what falls short."""
    if "failed" in row:
        return "FAILED: " + row["failed"]
    if not row["right"]:
        return "WRONG MAP"
    if row["key"]["structure"] in PSEUDO_SYMMETRIC or row["key"]["snr"] < BARS["from_snr"]:
        return "PASS"
    scores = row["scores"]
    reached = {
        "median_deg": scores["rotation_deg"]["median"],
        "frobenius_mean": scores["rotation_frobenius"]["mean"],
        "shift_px": scores["shift_px"]["after_origin"],
    }
    missed = [name.split("_")[0] for name, value in reached.items() if not value <= BARS[name]]
    return "short: " + ", ".join(missed) if missed else "PASS"


def summary(rows: Sequence[Row]) -> Row:
    """What the runs at one signal-to-noise ratio come to; the worst figures of those with a right map."""
    right = [row for row in rows if row["right"]]
    held = [row["scores"] for row in right if row["key"]["structure"] not in PSEUDO_SYMMETRIC]
    return {
        "runs": len(rows),
        "right": len(right),
        "passed": sum(verdict(row) == "PASS" for row in rows),
        "worst_median_deg": max((s["rotation_deg"]["median"] for s in held), default=None),
        "worst_frobenius_mean": max((s["rotation_frobenius"]["mean"] for s in held), default=None),
        "worst_shift_px": max((s["shift_px"]["after_origin"] for s in held), default=None),
        "longest_s": max((row["wall_s"] for row in rows), default=None),
        "peak_mb": max((row["peak_mb"] for row in rows), default=None),
    }


def report(record: Record, rows: Sequence[Row]) -> bool:
    """Print runs and summary; whether all bars are met."""
    show(NAME, [_line(record, row) for row in rows])
    show(
        f"bars: median <= {BARS['median_deg']} deg, mean Frobenius <= {BARS['frobenius_mean']}, "
        f"shift <= {BARS['shift_px']} px from SNR {BARS['from_snr']} on (not for pseudo-symmetric ones); "
        f"right map in all runs, in {BARS['right_share_below']:.0%} below that SNR",
        [{"snr": name.split()[1]} | values for name, values in record.figures.items()],
    )
    if any(not record.is_current(row) for row in rows):
        print("*: measured with other code than the present; --again measures those anew")
    return all(_passed(name, values) for name, values in record.figures.items())


def _passed(name: str, values: Row) -> bool:
    least = 1.0 if float(name.split()[1]) >= BARS["from_snr"] else BARS["right_share_below"]
    return bool(values["passed"] >= least * values["runs"])


def _line(record: Record, row: Row) -> Row:
    key, scores = row["key"], row.get("scores", {})
    rotation, shift = scores.get("rotation_deg", {}), scores.get("shift_px", {})
    return {
        "structure": key["structure"] + ("" if record.is_current(row) else " *"),
        "SNR": key["snr"],
        "seed": key["seed"],
        "right": row["right"],
        "median deg": rotation.get("median"),
        "mean deg": rotation.get("mean"),
        "<10 deg": rotation.get("below_10"),
        "partner": scores.get("partner_share"),
        "Frobenius": scores.get("rotation_frobenius", {}).get("mean"),
        "shift px": shift.get("after_origin"),
        "FSC 0.5 Å": scores.get("fsc_0.5_angstrom"),
        "0.143 Å": scores.get("fsc_0.143_angstrom"),
        "claimed Å": row.get("resolution"),
        "report": row.get("report"),
        "wall s": row["wall_s"],
        "peak MB": round(row["peak_mb"]),
        "verdict": verdict(row),
    }


if __name__ == "__main__":
    sys.exit(main())
