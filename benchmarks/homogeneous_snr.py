"""Gaussians from ever noisier images of a ribosomal subunit: whole curves of agreement with the truth.

Decibels are of power: -10, -15 and -20 dB are signal-to-noise ratios of 0.1, 0.032 and 0.01.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Record, Row, exit_code, no_data, parser, shared_data, show
from benchmarks.homogeneous import reconstructed, simulated_stack, true_mask
from hoarfrost.analysis.fsc import fourier_shell_correlation
from hoarfrost.io.mrc import read_map

NAME = "homogeneous_snr"

USABLE = 2.0
"""A map is usable if it agrees with the truth (FSC 0.5, masked) to half of Nyquist's frequency: so many finest periods."""

BARS = {"periods": USABLE}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a map is not usable."""
    made = parser(__doc__)
    made.add_argument("--structure", default="1ffk")
    made.add_argument("--particles", type=int, default=20_000)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--decibels", type=float, nargs="+", default=[-10.0, -15.0, -20.0])
    made.add_argument("--gaussians", type=int, default=5_120)
    options = made.parse_args(arguments)
    if options.quick:
        quick = {"structure": "builtin", "particles": 300, "box": 32, "decibels": [0.0], "gaussians": 100}
        vars(options).update(quick)
    elif shared_data() is None:
        return no_data(NAME)
    record, rows = Record.open(NAME, options, BARS), []
    methods = {"backprojection": None, "gaussians": options.gaussians}
    for decibels in options.decibels:
        stack = {name: getattr(options, name) for name in ("structure", "particles", "box")} | {"decibels": decibels}
        keys = [stack | {"method": method, "gaussians": count} for method, count in methods.items()]
        found = [record.done(key) for key in keys]
        rows += found if None not in found else measure(stack, keys, record, options.threads)
    record.write()
    return exit_code(report([row for row in rows if row is not None]), options)


def measure(stack: Row, keys: Sequence[Row], record: Record, threads: int) -> list[Row]:
    """Simulate one stack, and reconstruct it by every method that has no row yet."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        folder = Path(scratch) / "stack"
        simulated_stack(folder, stack | {"snr": round(10 ** (stack["decibels"] / 10), 4)})
        for key in keys:
            row = record.done(key)
            if row is None:
                print(f"{key['decibels']:g} dB, {key['method']} ...", flush=True)
                run = Path(scratch) / key["method"]
                count = () if key["gaussians"] is None else ("--gaussians", key["gaussians"])
                given = ("--method", key["method"], *count, "--threads", threads)
                row = reconstructed(folder / "truth.star", run, folder, given)
                row = record.add(key, row if "failed" in row else row | curves(run, folder))
            rows.append(row)
    return rows


def curves(run: Path, stack: Path) -> Row:
    """The correlation of a run's map with the truth in every shell from 0 to Nyquist."""
    found, truth = read_map(run / "map.mrc"), read_map(stack / "truth.mrc")
    masks = {"curve": None, "curve_masked": true_mask(stack).data}
    return {
        name: [round(value, 4) for value in fourier_shell_correlation(found, truth, mask).tolist()]
        for name, mask in masks.items()
    }


def report(rows: Sequence[Row]) -> bool:
    """Print the table; whether every map by Gaussians is usable."""
    lines = []
    for row in rows:
        line: Row = {name: row["key"][name] for name in ("decibels", "method", "gaussians")}
        shown = ("failed", "fsc_0.5", "fsc_0.143", "fsc_0.5_masked", "mean_fsc", "mean_fsc_masked", "wall_s", "cpu_s")
        line |= {name: row[name] for name in shown if name in row}
        for share in (0.25, 0.5, 0.75) if "curve_masked" in row else ():
            line[f"at {share:g} Nyquist"] = row["curve_masked"][round(share * (row["key"]["box"] // 2))]
        lines.append(line)
    show("Maps against the truth (Å), and the masked correlation at shares of Nyquist's frequency", lines)
    short = [
        row
        for row in rows
        if "failed" in row
        or (row["key"]["method"] == "gaussians" and row["fsc_0.5_masked"] > USABLE * 2 * row["pixel_size"])
    ]
    print("PASS" if not short else f"FALLS SHORT: {len(short)} maps are of no use")
    return not short


if __name__ == "__main__":
    sys.exit(main())
