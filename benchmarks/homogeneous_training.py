"""From random Gaussians, how soon? Fits to sums, which read the images once, and training on images, epoch by epoch.

All start from a normal cloud that knows nothing but the particle's size. Training that has converged gains nothing from
twice the epochs; a fit to sums that has, nothing from a start that knows the half's own density.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import Record, Row, exit_code, no_data, parser, shared_data, show
from benchmarks.homogeneous import reconstructed, simulated_stack

NAME = "homogeneous_training"

EPOCHS = 5
GAINED = 1.02
"""Times the final resolution (FSC 0.5 with the truth, masked) that counts as having arrived there."""

BARS = {"epochs": EPOCHS, "times_the_final_resolution": GAINED}

WAYS: dict[str, tuple[object, ...]] = {
    "sums, from the density": ("--start", "density"),
    "sums": (),
    "images, 2 epochs": ("--preset", "images", "--epochs", 2),
    f"images, {EPOCHS} epochs": ("--preset", "images", "--epochs", EPOCHS),
    f"images, {2 * EPOCHS} epochs": ("--preset", "images", "--epochs", 2 * EPOCHS),
    f"published, {EPOCHS} epochs": ("--preset", "published", "--epochs", EPOCHS),
}

CONVERGED = {"sums": "sums, from the density", f"images, {EPOCHS} epochs": f"images, {2 * EPOCHS} epochs"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--structure", default="1ffk")
    made.add_argument("--particles", type=int, default=2_500)
    made.add_argument("--box", type=int, default=128)
    made.add_argument("--snr", type=float, default=0.1)
    made.add_argument("--gaussians", type=int, default=8_192)
    made.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = made.parse_args(arguments)
    if options.quick:
        quick = {"structure": "builtin", "particles": 300, "box": 32, "gaussians": 100, "ways": list(WAYS)[:3]}
        vars(options).update(quick)
    elif shared_data() is None:
        return no_data(NAME)
    record = Record.open(NAME, options, BARS)
    stack = {name: getattr(options, name) for name in ("structure", "particles", "box", "snr")}
    keys = [stack | {"gaussians": options.gaussians, "way": way} for way in options.ways]
    rows = [row for row in map(record.done, keys) if row is not None]
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
                print(f"{key['way']} ...", flush=True)
                given = ("--method", "gaussians", "--gaussians", key["gaussians"], "--start", "random")
                given = (*given, *WAYS[key["way"]], "--threads", threads)
                row = record.add(key, reconstructed(folder / "truth.star", Path(scratch) / str(number), folder, given))
            rows.append(row)
    return rows


def report(rows: Sequence[Row]) -> bool:
    """Print the table; whether few epochs were enough."""
    lines = []
    for row in rows:
        shown = ("failed", "epochs", "fsc_0.5", "fsc_0.5_masked", "mean_fsc", "mean_fsc_masked", "wall_s", "cpu_s")
        lines.append({"way": row["key"]["way"]} | {name: row[name] for name in shown if name in row})
    show("Gaussians from a random start: maps against the truth (Å)", lines)
    by_way = {row["key"]["way"]: row for row in rows if "failed" not in row}
    passed = len(by_way) == len(rows)
    for way, final in CONVERGED.items():
        if way in by_way and final in by_way:
            times = by_way[way]["fsc_0.5_masked"] / by_way[final]["fsc_0.5_masked"]
            passed &= times <= GAINED
            print(f"{way}: {times:.3f} times the resolution of {final}")
    print("PASS" if passed else "FALLS SHORT")
    return passed


if __name__ == "__main__":
    sys.exit(main())
