"""Time and memory of ``hoarfrost abinit`` from file to report, by the number of particles.

The rates of its inner functions are the business of ``benchmarks/kernels.py``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Record, Row, exit_code, hoarfrost, parser, run_figures, show, simulated

NAME = "abinit_speed"

BARS = {"wall_s_at_10000": 120.0, "peak_mb": 4000.0, "growth_with_5x_particles": 0.10}
BAR_PARTICLES = 10_000

REST = "start-up, preflight, validation, report"
"""What of the wall time lies outside the stages."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--particles", type=int, nargs="+", default=[2_000, 10_000, 50_000])
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--preset", default="default")
    made.add_argument("--model", default="builtin", help="what is simulated: a file, or builtin")
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"particles": [300], "box": 40, "snr": 1.0, "preset": "fast"})
    record = Record.open(NAME, options, BARS)
    rows = [_row(record, options, count) for count in options.particles]
    record.figures = {"growth": growth(rows)}
    record.write()
    return exit_code(report(record, rows), options)


def _row(record: Record, options: argparse.Namespace, count: int) -> Row:
    key = {
        "model": Path(options.model).name,
        "particles": count,
        "box": options.box,
        "snr": options.snr,
        "preset": options.preset,
        "threads": options.threads,
    }
    done = record.done(key)
    if done is not None:
        return done
    print(f"{count:,} particles ...", flush=True)
    return record.add(key, measure(options.model, key))


def measure(model: str, key: Row) -> Row:
    """Simulate a stack, and measure the run on it; nothing is left behind."""
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        stack, run = Path(scratch) / "stack", Path(scratch) / "run"
        made = simulated(
            stack, model, n=key["particles"], box=key["box"], snr=key["snr"], shift=10 * key["box"] / 128, seed=0
        )
        done = hoarfrost(
            "abinit", stack / "particles.star", "-o", run,
            "--seed", 0, "--preset", key["preset"], "--threads", key["threads"],
        )  # fmt: skip
        if done.code != 0:
            return {"failed": done.last_line} | done.cost
        return done.cost | {"simulation_s": round(made.wall_s, 2)} | run_figures(run)


def growth(rows: Sequence[Row]) -> Row:
    """Peak memory with more particles relative to the size before, less one."""
    pairs = itertools.pairwise(rows)
    return {
        f"{small['key']['particles']} to {large['key']['particles']}": large["peak_mb"] / small["peak_mb"] - 1
        for small, large in pairs
    }


def report(record: Record, rows: Sequence[Row]) -> bool:
    """Print the tables; whether all bars are met."""
    show(NAME, [_line(record, row) for row in rows])
    stages = [*dict.fromkeys(stage for row in rows for stage in row.get("stages", {})), REST]
    share = [
        {"stage": stage} | {f"{row['key']['particles']:,}": _share(row, stage) for row in rows} for stage in stages
    ]
    show("share of the wall time, %", share)
    for name, value in record.figures["growth"].items():
        print(f"peak memory from {name.replace(' to ', ' particles to ')}: {100 * value:+.1f} %")
    return _judge(rows)


def _judge(rows: Sequence[Row]) -> bool:
    """Hold the figures against the bars they are meant for."""
    by_size = {row["key"]["particles"]: row for row in rows if "failed" not in row}
    missed = [f"{row['key']['particles']:,} particles: {row['failed']}" for row in rows if "failed" in row]
    bar = by_size.get(BAR_PARTICLES)
    if bar is not None and bar["key"]["box"] == 128:
        if bar["wall_s"] > BARS["wall_s_at_10000"]:
            missed.append(f"wall time {bar['wall_s']:.0f} s > {BARS['wall_s_at_10000']:.0f} s")
        if bar["peak_mb"] > BARS["peak_mb"]:
            missed.append(f"peak memory {bar['peak_mb']:.0f} MB > {BARS['peak_mb']:.0f} MB")
        five = by_size.get(5 * BAR_PARTICLES)
        if five is not None and five["peak_mb"] > (1 + BARS["growth_with_5x_particles"]) * bar["peak_mb"]:
            missed.append(f"memory grows by {100 * (five['peak_mb'] / bar['peak_mb'] - 1):.0f} % with 5x the particles")
    print("short: " + "; ".join(missed) if missed else "PASS")
    return not missed


def _line(record: Record, row: Row) -> Row:
    reached = row.get("throughput", {})
    return {
        "particles": row["key"]["particles"],
        "wall s": row["wall_s"],
        "cpu s": row["cpu_s"],
        "load before": row["load"],
        "peak MB": round(row["peak_mb"]),
        "s / 1,000": 1000 * row["wall_s"] / row["key"]["particles"],
        "resolution Å": row.get("resolution"),
        "search 1e12 op/s": reached.get("search_tera_operations"),
        "of peak": reached.get("search_fraction_of_peak"),
        "code": "present" if record.is_current(row) else "older",
    }


def _share(row: Row, stage: str) -> float | None:
    stages = row.get("stages", {})
    seconds = row["wall_s"] - sum(stages.values()) if stage == REST else stages.get(stage)
    return None if seconds is None else round(100 * seconds / row["wall_s"], 1)


if __name__ == "__main__":
    sys.exit(main())
