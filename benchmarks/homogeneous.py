"""Maps from true poses by every method: agreement with the truth, time and memory, side by side.

Stacks are simulated from atomic models and reconstructed by ``hoarfrost reconstruct`` from their true poses. Maps are
held against the truth as they are, and inside a mask that is made from the truth and so owes nothing to any method.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.abinit_accuracy import model
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
from hoarfrost.analysis.fsc import first_crossing, fourier_shell_correlation, shell_frequency
from hoarfrost.io.mrc import read_map
from hoarfrost.physics.masks import mask_from_map
from hoarfrost.types import Volume

NAME = "homogeneous"

METHODS: dict[str, tuple[str, ...]] = {
    "backprojection": ("--method", "backprojection"),
    "gaussians": ("--method", "gaussians"),
    "gaussians, 30,000": ("--method", "gaussians", "--gaussians", "30000"),
    "gaussians, isotropic": ("--method", "gaussians", "--isotropic"),
    "gaussians, random start": ("--method", "gaussians", "--start", "random"),
    "neural": ("--method", "neural"),
}

SMOKE = ["backprojection", "gaussians", "gaussians, isotropic"]

BARS = {"least_gain": 0.0, "mean_gain": 0.0}

COMPARISONS = (
    ("gaussians", "backprojection"),
    ("gaussians, 30,000", "backprojection"),
    ("gaussians", "gaussians, isotropic"),
)
"""The first of two methods is nowhere to be worse than the second, and better on average."""

HARDLY = 1e-3
"""Mean FSC of two maps that reach Nyquist both may differ by this much: it tells nobody anything."""


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
        quick = {"structures": ["builtin"], "snr": [1.0], "particles": 300, "box": 32, "methods": SMOKE}
        vars(options).update(quick)
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


def simulated_stack(folder: Path, stack: Row) -> None:
    """Images of a structure and their truth: the same for the same row."""
    box = stack["box"]
    simulated(
        folder, model(stack["structure"]), n=stack["particles"], box=box, snr=stack["snr"], shift=10 * box / 128, seed=0
    )


def measure(stack: Row, keys: Sequence[Row], record: Record) -> list[Row | None]:
    """Simulate one stack, and reconstruct it by every method that has no row yet."""
    rows: list[Row | None] = []
    with tempfile.TemporaryDirectory(prefix="hoarfrost-bench-") as scratch:
        folder = Path(scratch) / "stack"
        simulated_stack(folder, stack)
        for key in keys:
            row = record.done(key)
            if row is None:
                print(f"{key['structure']}, SNR {key['snr']}, {key['method']} ...", flush=True)
                run = Path(scratch) / key["method"].replace(", ", "-").replace(" ", "-")
                given = (*METHODS[key["method"]], "--threads", key["threads"])
                row = record.add(key, reconstructed(folder / "truth.star", run, folder, given))
            rows.append(row)
    return rows


def reconstructed(table: Path, run: Path, stack: Path, options: Sequence[object]) -> Row:
    """The cost and the figures of ``hoarfrost reconstruct`` on a table of a stack, in a new folder ``run``."""
    done = hoarfrost("reconstruct", table, "-o", run, *options)
    return done.cost | ({"failed": done.last_line} if done.code else run_figures(run) | against(run, stack))


def against(run: Path, stack: Path) -> Row:
    """A run's map and the truth: resolutions in Å and the mean correlation of all shells, without and with a mask."""
    truth, found = read_map(stack / "truth.mrc"), read_map(run / "map.mrc")
    frequency, results = shell_frequency(truth.box, truth.voxel_size), read_json(run / "run.json")["results"]
    figures: Row = {name: results[name] for name in ("epochs", "gaussians") if results[name] is not None}
    for name, within in (("", None), ("_masked", true_mask(stack).data)):
        curve = fourier_shell_correlation(found, truth, within)
        figures[f"fsc_0.5{name}"] = first_crossing(frequency, curve, 0.5)
        figures[f"fsc_0.143{name}"] = first_crossing(frequency, curve, 0.143)
        figures[f"mean_fsc{name}"] = float(curve[1 : truth.box // 2].mean())
    return figures


def true_mask(stack: Path) -> Volume:
    """A mask about the truth."""
    truth = read_map(stack / "truth.mrc")
    return mask_from_map(truth, threshold=None, extend_px=3.0, edge_px=6.0, lowpass_angstrom=15.0)


def report(rows: Sequence[Row]) -> bool:
    """Print the table; whether the better methods of :data:`COMPARISONS` are better."""
    lines = []
    for row in rows:
        line = {name: row["key"][name] for name in ("structure", "snr", "method")}
        shown = ("gaussians", "epochs", "fsc_0.5", "fsc_0.5_masked", "mean_fsc", "mean_fsc_masked", "wall_s", "cpu_s")
        figures = {name: row[name] for name in shown if name in row} | {"half-maps 0.143": row.get("resolution")}
        lines.append(line | ({"failed": row["failed"]} if "failed" in row else figures))
    show("Maps from true poses against the truth (Å; without a mask, and in one made from the truth)", lines)
    better = [_is_better(rows, first, second) for first, second in COMPARISONS]
    return all(better)


def _is_better(rows: Sequence[Row], first: str, second: str) -> bool:
    """Say by how much the maps of one method surpass those of another; whether they do."""
    crossings, curves = [], []
    for row, other in _pairs(rows, first, second):
        for mask in ("", "_masked"):
            own, others = row[f"fsc_0.5{mask}"], other[f"fsc_0.5{mask}"]
            if max(own, others) > 2 * row["pixel_size"] * (1 + 1e-6):
                crossings.append(others - own)
            else:
                curves.append(row[f"mean_fsc{mask}"] - other[f"mean_fsc{mask}"])
    passed = True
    for found, what, slack in (
        (crossings, "Å of FSC 0.5", 1e-6),
        (curves, "mean FSC where both reach Nyquist", HARDLY),
    ):
        if found:
            mean = sum(found) / len(found)
            good = min(found) >= -slack and mean >= -slack
            passed &= good
            print(
                f"{first} over {second}, {what}: {mean:+.3f} on average, {min(found):+.3f} at worst, of {len(found)}: "
                + ("PASS" if good else "FALLS SHORT")
            )
    return passed


def _pairs(rows: Sequence[Row], first: str, second: str) -> Iterator[tuple[Row, Row]]:
    """Rows of two methods on the same stack."""
    for row in rows:
        for other in rows:
            same = row["key"] | {"method": second} == other["key"]
            if row["key"]["method"] == first and same and not {"failed"} & (row.keys() | other.keys()):
                yield row, other


if __name__ == "__main__":
    sys.exit(main())
