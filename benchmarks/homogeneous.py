"""Maps from true poses by every method: agreement with the truth, time and memory, side by side.

Stacks are simulated from atomic models and reconstructed by ``hoarfrost reconstruct`` from their true poses. Maps are
held against the truth as they are, and inside a mask that is made from the truth and so owes nothing to any method.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.abinit_accuracy import model
from benchmarks.common import (
    Record,
    Row,
    exit_code,
    hoarfrost,
    no_data,
    parser,
    run_figures,
    shared_data,
    show,
    simulated,
)
from hoarfrost.analysis.fsc import first_crossing, fourier_shell_correlation, shell_frequency
from hoarfrost.io.mrc import read_map
from hoarfrost.physics.masks import mask_from_map

NAME = "homogeneous"

METHODS: dict[str, tuple[str, ...]] = {
    "backprojection": ("--method", "backprojection"),
    "gaussians": ("--method", "gaussians"),
    "gaussians, isotropic": ("--method", "gaussians", "--isotropic"),
    "gaussians, random start": ("--method", "gaussians", "--start", "random"),
    "neural": ("--method", "neural"),
}

BARS = {"worse_than_backprojection": 0.0, "mean_gain": 0.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print all; 1 if a bar is missed."""
    made = parser(__doc__)
    made.add_argument("--structures", nargs="+", default=["1ffk", "1wcm_fitted", "6cs2"])
    made.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.01])
    made.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    made.add_argument("--particles", type=int, default=10_000)
    made.add_argument("--box", type=int, default=128)
    options = made.parse_args(arguments)
    if options.quick:
        vars(options).update({"structures": ["builtin"], "snr": [1.0], "particles": 300, "box": 32})
    elif shared_data() is None:
        return no_data(NAME)
    record, rows = Record.open(NAME, options, BARS), []
    for structure in options.structures:
        for snr in options.snr:
            stack = {"structure": structure, "snr": snr, "particles": options.particles, "box": options.box}
            keys = [stack | {"method": method, "threads": options.threads} for method in options.methods]
            found = [record.done(key) for key in keys]
            if None in found:
                found = measure(stack, keys, record)
            rows += [row for row in found if row is not None]
    record.write()
    return exit_code(report(rows), options)


def measure(stack: Row, keys: Sequence[Row], record: Record) -> list[Row | None]:
    """Simulate one stack, and reconstruct it by every method that has no row yet."""
    rows: list[Row | None] = []
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        folder = Path(scratch) / "stack"
        simulated(
            folder, model(stack["structure"]), n=stack["particles"], box=stack["box"], snr=stack["snr"],
            shift=10 * stack["box"] / 128, seed=0,
        )  # fmt: skip
        for key in keys:
            row = record.done(key)
            if row is None:
                print(f"{key['structure']}, SNR {key['snr']}, {key['method']} ...", flush=True)
                run = Path(scratch) / key["method"].replace(", ", "-").replace(" ", "-")
                given = ("--seed", 0, "--threads", key["threads"])
                done = hoarfrost("reconstruct", folder / "truth.star", "-o", run, *METHODS[key["method"]], *given)
                figures = {"failed": done.last_line} if done.code else run_figures(run) | against(run, folder)
                row = record.add(key, done.cost | figures)
            rows.append(row)
    return rows


def against(run: Path, stack: Path) -> Row:
    """A run's map and the truth: resolutions in Å and the mean correlation of all shells, without and with a mask."""
    truth, found = read_map(stack / "truth.mrc"), read_map(run / "map.mrc")
    mask = mask_from_map(truth, threshold=None, extend_px=3.0, edge_px=6.0, lowpass_angstrom=15.0).data
    frequency, figures = shell_frequency(truth.box, truth.voxel_size), {}
    for name, within in (("", None), ("_masked", mask)):
        curve = fourier_shell_correlation(found, truth, within)
        figures[f"fsc_0.5{name}"] = first_crossing(frequency, curve, 0.5)
        figures[f"fsc_0.143{name}"] = first_crossing(frequency, curve, 0.143)
        figures[f"mean_fsc{name}"] = float(curve[1 : truth.box // 2].mean())
    return figures


def report(rows: Sequence[Row]) -> bool:
    """Print the table; whether Gaussians are nowhere worse than back-projection, and better on average."""
    lines, gains = [], []
    for row in rows:
        key = row["key"]
        line = {name: key[name] for name in ("structure", "snr", "method")}
        if "failed" in row:
            lines.append(line | {"failed": row["failed"]})
            continue
        shown = ("fsc_0.5", "fsc_0.5_masked", "mean_fsc", "mean_fsc_masked", "wall_s", "cpu_s", "peak_mb")
        lines.append(line | {name: row[name] for name in shown} | {"half-maps 0.143": row["resolution"]})
        if key["method"] == "gaussians":
            others = (
                other for other in rows if other["key"] == key | {"method": "backprojection"} and "failed" not in other
            )
            gains += [(other["fsc_0.5_masked"] - row["fsc_0.5_masked"], row, other) for other in others]
    show("Maps from true poses against the truth (Å; without a mask, and in one made from the truth)", lines)
    if not gains:
        return True
    worst, mean = min(gain for gain, *_ in gains), sum(gain for gain, *_ in gains) / len(gains)
    print(f"\nFSC 0.5, masked, of Gaussians over back-projection: {mean:+.3f} Å on average, {worst:+.3f} Å at worst")
    passed = worst >= -1e-6 and mean >= 0
    print("PASS" if passed else "FALLS SHORT")
    return passed


if __name__ == "__main__":
    sys.exit(main())
